"""What this machine computes on: its name, and whether it multiplies bfloat16 itself."""

import platform
from pathlib import Path

import torch


def has_bfloat16_units() -> bool:
    """Whether the GPU, or else the CPU, multiplies bfloat16 matrices itself."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(set(cpu_info().split()) & {"avx512_bf16", "amx_bf16", "bf16"})  # bf16: as Arm calls it


def device_name() -> str:
    """The GPU, or the CPU's model with the number of threads torch uses."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    lines = cpu_info().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"{model or platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def cpu_info() -> str:
    """What Linux tells of the CPU; "" elsewhere."""
    file = Path("/proc/cpuinfo")
    return file.read_text(encoding="utf-8") if file.is_file() else ""
