"""What a page of figures says of the machine that they come from."""

import datetime
import os
import shutil
import subprocess

import torch

from zsad_lib.features.devices import cpu_info, device_name
from zsad_lib.methods.context_aware.memory_plan import machine_bytes
from zsad_lib.pipeline.run_step import provenance

UNITS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_tile", "asimd", "sve", "bf16")  # flags
GIB = 2**30


def describe_machine() -> dict[str, str]:
    """Fact -> what it is here and now, for the head of a page: device, units, versions, revision, date."""
    made, facts, flags = provenance(), {}, cpu_info().split()
    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / GIB
        facts["GPU"] = f"{torch.cuda.get_device_name()}, {memory:.0f} GiB"
        facts["Driver, CUDA"] = f"{_driver()}, {torch.version.cuda}"
        model = next((line.partition(":")[2].strip() for line in cpu_info().splitlines() if "model name" in line), "")
        facts["Processor"] = f"{model or 'not told'}, {torch.get_num_threads()} threads"
    else:
        facts["Processor"] = device_name()
    facts["Cores, memory"] = f"{os.cpu_count()}, {machine_bytes() / GIB:.0f} GiB"
    facts["Units of the processor"] = ", ".join(unit for unit in UNITS if unit in flags) or "not told"
    facts["torch, Python"] = f"{made['versions']['torch']}, {made['versions']['python']}"
    commit, changed = made["git"]["commit"], made["git"]["changed"]
    facts["Revision"] = f"{commit[:10]}{', with changes' if changed else ''}" if commit else "not told"
    facts["Date"] = datetime.date.today().isoformat()
    return facts


def as_table(facts: dict[str, str]) -> str:
    """Facts as a Markdown table."""
    return "\n".join(["| Machine | |", "|---|---|", *(f"| {fact} | {value} |" for fact, value in facts.items())])


def short(value: float) -> str:
    """A positive number in three digits, those before the point in full; "-" for one that is not known.

    >>> short(12345.6), short(12.345), short(0.0123456), short(float("nan"))
    ('12,346', '12.3', '0.0123', '-')
    """
    return "-" if not value > 0 else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _driver() -> str:
    """The GPU driver's version, as its own tool tells it."""
    if shutil.which("nvidia-smi") is None:
        return "not told"
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    return done.stdout.strip().partition("\n")[0] or "not told"
