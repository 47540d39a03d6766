"""The report names what is wrong and how to mend it."""

import shutil
from types import SimpleNamespace

import pytest

from zsad_lib.maintenance import doctor


def test_this_machine_is_ready(run_home, capsys):
    assert doctor.main() == 0
    out = capsys.readouterr().out
    assert "fail" not in out and out.endswith("ready\n")
    for what in ("Python", "disk", "memory", "write access", "video decoders", "ffmpeg library", "torch, torch", "GPU"):
        assert what in out
    assert sorted(p.name for p in run_home.rglob("*")) == ["cache", "data", "runs"]


def test_folder_that_cannot_be_written(run_home, capsys):
    (run_home / "data").write_text("")
    assert doctor.main() == 1
    out = capsys.readouterr().out
    assert "fail  write access" in out and "-> set ZSAD_HOME" in out and "1 to mend" in out


@pytest.mark.parametrize(("gibibytes", "level"), [(0.5, "fail"), (3, "warn"), (50, "ok")])
def test_disk(run_home, monkeypatch, gibibytes, level):
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=gibibytes * doctor.GIB))
    assert doctor._disk().level == level


def test_little_memory_and_missing_encoder(monkeypatch):
    monkeypatch.setattr(doctor.os, "sysconf", lambda name: 2**15)
    assert doctor._memory().level == "warn" and doctor._memory().found == "1.0 GiB"
    monkeypatch.setattr("av.codecs_available", {"h264"})
    assert doctor._ffmpeg().level == "fail" and "without libx264" in doctor._ffmpeg().found


def test_mismatched_torchvision_and_unusable_gpu(monkeypatch):
    def broken(*arguments):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr("torchvision.ops.nms", broken)
    assert doctor._torch_and_torchvision().level == "fail"
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/" + name)
    assert doctor._gpu().level == "warn"
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda: (2 * doctor.GIB, 8 * doctor.GIB))
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "Card")
    assert doctor._gpu().found == "Card, 2 of 8 GiB free"


def test_decoders_that_differ_and_a_check_that_breaks(monkeypatch, capsys):
    assert doctor._decoders().level == "ok"
    monkeypatch.setattr("zsad_lib.files.second_decoder.digest", lambda frame: "another")
    assert doctor._decoders().found == "decord and PyAV differ: frame 0 is another picture there"

    def _broken_check():
        raise ImportError("libGL.so.1: cannot open\nmore")

    monkeypatch.setattr(doctor, "CHECKS", (_broken_check,))
    assert doctor.main() == 1
    assert "fail  broken check         ImportError: libGL.so.1: cannot open\n" in capsys.readouterr().out
