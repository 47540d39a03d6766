"""What training and extraction at the published sizes reach on this GPU: ``make bench-gpu``, which takes four minutes.

One training epoch of TimeSformer-B on rendered footage, a step of the method's joint training and one of AnomalyCLIP's,
and the feature extraction of every frozen network: each in float32, in TF32 and in bfloat16, with its memory, its share
of what one large matrix product reaches (`matrix_limit`), and where its time goes. Weights are random, which changes no
duration. Without a GPU the same code runs in tiny sizes, to see that it works; such a page says so in its first line.
"""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from zsad_lib.files import paths
from zsad_lib.maintenance.gpu_works import TINY, Sizes, Step, Work, works
from zsad_lib.maintenance.machine import GIB, as_table, describe_machine, short
from zsad_lib.maintenance.matrix_limit import count_operations, product_rate
from zsad_lib.maintenance.timing import timed

PRECISIONS = {  # name -> whether float32 products may take TF32, whether networks compute in bfloat16
    "float32": (False, False),
    "float32 with TF32": (True, False),
    "bfloat16": (False, True),
}
SECONDS = 200.0  # after which nothing new is measured
SPLIT_STEPS = 4  # steps whose parts are timed one by one


@contextlib.contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Whether float32 products and convolutions on a GPU may take TF32, while the block lasts."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def measure(step: Step, work: Work, half: bool, side: int = 0) -> dict[str, object]:
    """A step's figures, in the precision that is set; `half`: in bfloat16. `side`: see `product_rate`."""
    run = lambda: [part(half) for part in step.parts.values()]
    run()  # fetches memory, chooses kernels
    operations, rate = count_operations(run), product_rate(torch.bfloat16 if half else torch.float32, side)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    seconds, count = 0.0, 0
    while count < step.steps and seconds < work.seconds:
        some = min(4, step.steps - count)  # without waiting in between, so that data may come beside computing
        seconds += timed(lambda some=some: [run() for _ in range(some)])
        count += some
    peak = torch.cuda.max_memory_allocated() / GIB if torch.cuda.is_available() else np.nan
    split = [[timed(lambda part=part: part(half)) for part in step.parts.values()] for _ in range(SPLIT_STEPS)]
    each = np.median(split, axis=0)
    return {
        "steps_timed": count,
        "steps_per_s": count / seconds,
        "units_per_s": step.units * count / seconds,
        "tokens_per_s": step.tokens * count / seconds or np.nan,
        "peak_gib": peak,
        "tflop_per_s": operations * count / seconds / 1e12,
        "limit_tflop_per_s": rate / 1e12,
        "time": ", ".join(f"{name} {share:.0%}" for name, share in zip(step.parts, each / each.sum())),
    }


def figures(work: Work, until: float, side: int = 0) -> Iterator[dict[str, object]]:
    """Rows of one work in all precisions; its batch is halved where memory does not suffice.

    Args:
        work: what is measured.
        until: `time.monotonic()` after which nothing new begins.
        side: see `product_rate`.
    """
    step, batch, names = None, work.batch, list(PRECISIONS)
    while names:
        row = {"what": work.what, "unit": work.unit, "precision": names[0], "batch": batch, "note": ""}
        full = False
        if time.monotonic() > until:
            yield row | {"note": "left out: the time was over"}
            names.pop(0)
            continue
        try:
            step = step or work.make(batch)
            allowed, half = PRECISIONS[names[0]]
            with tf32(allowed):
                row |= measure(step, work, half, side)
        except torch.OutOfMemoryError:
            full = batch > 1
            row["note"] = "does not fit into memory"
        except Exception as error:  # the other rows still tell something, and this one says what is to be mended
            row["note"] = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        if full:
            step, batch = None, batch // 2  # outside of the handler, whose error holds the tensors
            free_memory()
            continue
        if batch < work.batch and not row["note"]:
            row["note"] = f"batch halved from {work.batch} to fit into memory"
        yield row
        names.pop(0)
    step = None
    free_memory()


def free_memory() -> None:
    """Gives back what nothing holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def gpu_page(rows: list[dict[str, object]], facts: dict[str, str], seconds: float) -> str:
    """The page of all rows so far; its first line says what they are figures of."""
    title = f"# Published sizes on {facts['GPU']}" if "GPU" in facts else "# CPU fallback in tiny sizes: no figures"
    lines = [title, "", "<!-- Written by `make bench-gpu`; nobody edits it. -->", "", as_table(facts), ""]
    lines += [
        "Rates are of steps in a row, without waiting; where the time goes is from steps with a wait after each part."
        " The limit is what one large matrix product reaches in the same precision: norms, activations and memory"
        f" traffic count as free there. Memory is the peak of torch's allocator. All took {seconds:.0f} s.",
        "",
        "| Work | Precision | Batch | A second | Tokens a second | Steps a second | Peak, GiB | TFLOP/s | Of the limit"
        " | Where the time goes | Note |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---|---|",
    ]
    for row in rows:
        units, tokens, steps = (short(row.get(f"{name}_per_s", np.nan)) for name in ("units", "tokens", "steps"))
        reached, limit = (row.get(f"{name}tflop_per_s", np.nan) for name in ("", "limit_"))
        share = f"{reached / limit:.0%}" if reached > 0 else "-"
        cells = [
            row["what"], row["precision"], row["batch"], f"{units} {row['unit']}", tokens, steps,
            short(row.get("peak_gib", np.nan)), short(reached), share, row.get("time", "-"),
            row["note"].replace("|", "/"),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join([*lines, ""])


def main(out: Path | None = None) -> int:
    """Measures everything and writes the page: docs/results/gpu.md of a GPU, runs/gpu/gpu.md without one.

    Args:
        out: where to write the page instead.

    Returns:
        1 where something could not be measured.
    """
    gpu, start = torch.cuda.is_available(), time.monotonic()
    folder, sizes, side = paths.runs() / "gpu", Sizes() if gpu else TINY, 0 if gpu else 64
    page = out or (paths.root() / "docs" / "results" if gpu else folder) / "gpu.md"
    facts, rows = describe_machine(), []
    if not gpu:
        print("no CUDA device: CPU fallback in tiny sizes, to see that it works", flush=True)
    for work in works(sizes):
        for row in figures(work, start + SECONDS, side):
            rows.append(row)
            spent = time.monotonic() - start
            pace = f"{short(row['units_per_s'])} {row['unit']} a second" if "units_per_s" in row else row["note"]
            print(f"{spent:5.0f} s  {work.what}, {row['precision']}, batch {row['batch']}: {pace}", flush=True)
            paths.write_text(page, gpu_page(rows, facts, spent))  # whatever happens to the next one
            paths.write_table(folder / "gpu.csv", pd.DataFrame(rows), "%.6g")
    print(page)
    return int(any("units_per_s" not in row for row in rows))
