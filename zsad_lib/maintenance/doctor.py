"""Looks at the machine and says, line by line, what is fine, what is tight, and how to mend what is missing."""

import importlib
import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from zsad_lib.errors import ZsadError
from zsad_lib.files import paths
from zsad_lib.methods.context_aware.memory_plan import machine_bytes

GIB = 2**30


class Finding(NamedTuple):
    """One line of the report; `level` is ok, warn or fail."""

    level: str
    what: str
    found: str
    mend: str = ""


def examine() -> Iterator[Finding]:
    """Runs every check; one that breaks is a failed check, not the end of the report."""
    for check in CHECKS:
        try:
            yield check()
        except Exception as error:  # whatever is wrong with the machine, the other lines still help
            what, first = check.__name__.strip("_").replace("_", " "), (str(error).splitlines() or [""])[0]
            fault = f"{type(error).__name__}: {first}"
            yield Finding("fail", what, fault, "remove the folder .venv and run `make env`")


def main() -> int:
    """Prints the report; 1 where something is missing, else 0."""
    findings = list(examine())
    for level, what, found, mend in findings:
        print(f"{level:<4}  {what:<20} {found}" + (f"\n      -> {mend}" if mend and level != "ok" else ""))
    failed = sum(finding.level == "fail" for finding in findings)
    print(f"{failed} to mend" if failed else "ready")
    return 1 if failed else 0


def _python() -> Finding:
    found = f"{platform.python_version()} at {sys.executable}"
    mend = "install Python 3.11 or newer, then `make env`"
    return Finding("ok" if sys.version_info >= (3, 11) else "fail", "Python", found, mend)


def _disk() -> Finding:
    folder = next(folder for folder in (paths.root(), *paths.root().parents) if folder.exists())
    free = shutil.disk_usage(folder).free / GIB
    level = "ok" if free >= 5 else "warn" if free >= 1 else "fail"
    mend = "free at least 5 GiB, or set ZSAD_HOME to a larger disk"
    return Finding(level, "disk", f"{free:.1f} GiB free in {folder}", mend)


def _memory() -> Finding:
    total = machine_bytes()
    level = "ok" if total >= 7 * GIB else "warn"
    return Finding(level, "memory", f"{total / GIB:.1f} GiB", "the demo is made for 8 GiB: close other programs")


def _write_access() -> Finding:
    mend = "set ZSAD_HOME to a folder you may write to"
    try:
        for folder in (paths.runs(), paths.data(), paths.cache()):
            probe = paths.make_folder(folder) / ".doctor"
            paths.write_text(probe, "ok").unlink()
    except ZsadError as error:
        return Finding("fail", "write access", str(error), mend)
    return Finding("ok", "write access", f"runs, data and cache in {paths.root()}")


def _decoders() -> Finding:
    import numpy as np

    from zsad_lib.files.second_decoder import digest, objection
    from zsad_lib.files.video import read_video, write_video

    frames = np.zeros((12, 32, 32, 3), np.uint8)
    frames[:, ::2] = 200
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "probe.mp4"
        write_video(path, frames, fps=10)
        seen = {number: digest(frame) for number, frame in enumerate(read_video(path))}
        reason = objection(path, seen) if len(seen) == len(frames) else f"frames {len(seen)} of {len(frames)}"
        if reason:
            mend = "PyAV is used: decord is a second opinion and no more"
            return Finding("warn", "video decoders", f"decord and PyAV differ: {reason}", mend)
    name = next(n for n in ("decord", "decord2") if importlib.util.find_spec("decord") and _version(n))
    return Finding("ok", "video decoders", f"{name} {_version(name)} and PyAV {_version('av')} agree")


def _ffmpeg() -> Finding:
    import av

    numbers = {name: ".".join(map(str, av.library_versions[name])) for name in ("libavcodec", "libavformat")}
    versions = ", ".join(f"{name} {number}" for name, number in numbers.items())
    if "libx264" not in av.codecs_available:
        mend = "reinstall PyAV from its wheel: `make env`"
        return Finding("fail", "ffmpeg library", f"{versions}, without libx264", mend)
    return Finding("ok", "ffmpeg library", f"{versions}, inside PyAV")


def _torch_and_torchvision() -> Finding:
    import torch
    import torchvision

    found = f"torch {torch.__version__}, torchvision {torchvision.__version__}"
    try:  # torchvision's compiled operators load only beside the torch they were built for
        torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
        fits = True
    except (RuntimeError, AttributeError):
        fits = False
    mend = "they do not match: `make env` installs a matching pair"
    return Finding("ok" if fits else "fail", "torch, torchvision", found, mend)


def _gpu() -> Finding:
    import torch

    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        return Finding("ok", "GPU", f"{torch.cuda.get_device_name()}, {free / GIB:.0f} of {total / GIB:.0f} GiB free")
    if shutil.which("nvidia-smi"):
        fault = "a driver is there, but torch cannot use it"
        return Finding("warn", "GPU", fault, "update the NVIDIA driver; CPU is used")
    return Finding("ok", "GPU", f"none; {os.cpu_count()} CPU cores are enough for smoke, demo and ped2")


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


CHECKS: tuple[Callable[[], Finding], ...] = (
    _python, _disk, _memory, _write_access, _decoders, _ffmpeg, _torch_and_torchvision, _gpu,
)  # fmt: skip
