"""`make bench-gpu` in tiny sizes: every work has its figures, and what cannot be measured is told and loses nothing."""

import numpy as np
import pandas as pd
import pytest
import torch

from zsad_lib.__main__ import main
from zsad_lib.maintenance import gpu_figures as g
from zsad_lib.maintenance import gpu_works
from zsad_lib.maintenance.matrix_limit import count_operations


def product(batch: int) -> gpu_works.Step:
    """One product of matrices, in the precision that is asked for."""
    x = torch.ones(batch, 8)
    multiply = lambda half: (x @ x.T, x.bfloat16() @ x.bfloat16().T)[half]
    return gpu_works.Step({"forward": multiply}, batch, 10 * batch)


def test_without_a_gpu_every_work_runs_and_the_page_of_results_stays(run_home, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["bench-gpu"]) == 0, capsys.readouterr().out
    page = (run_home / "runs" / "gpu" / "gpu.md").read_text(encoding="utf-8")
    assert page.startswith("# CPU fallback in tiny sizes: no figures\n") and "| Processor |" in page
    assert not (run_home / "docs").exists()
    table = pd.read_csv(run_home / "runs" / "gpu" / "gpu.csv")
    assert len(table) == 21 and table["note"].isna().all() and page.count("\n| ") == 21 + 7 + 1
    assert (table[["steps_per_s", "units_per_s", "tflop_per_s", "limit_tflop_per_s"]] > 0).all(axis=None)
    assert set(table["precision"]) == {"float32", "float32 with TF32", "bfloat16"}
    training = table[table["what"].str.contains("raining")]
    assert training["time"].str.contains("forward .*backward .*optimiser").all() and len(training) == 9
    assert training["time"].str.startswith("data").sum() == 3  # of the epoch, which reads its clips
    assert torch.get_float32_matmul_precision() == "highest"


def test_figures_of_a_gpu_have_a_page_of_their_own(run_home, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # a machine that says so, and computes on the CPU
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    for name in ("reset_peak_memory_stats", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, lambda: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 3 * 2**30)
    monkeypatch.setattr(g, "describe_machine", lambda: {"GPU": "H200, 139 GiB", "Driver, CUDA": "580, 13.0"})
    monkeypatch.setattr(g, "product_rate", lambda dtype, side: 1e12)
    monkeypatch.setattr(g, "works", lambda sizes: [gpu_works.Work("a product", "rows", product, 4, 0.01)])
    assert g.main() == 0
    page = (run_home / "docs" / "results" / "gpu.md").read_text(encoding="utf-8")
    assert page.startswith("# Published sizes on H200, 139 GiB\n") and "| Driver, CUDA | 580, 13.0 |" in page
    assert page.count("| a product |") == 3 and "| 3 |" in page  # GiB
    assert g.main(run_home / "elsewhere.md") == 0 and (run_home / "elsewhere.md").is_file()


def test_a_batch_that_does_not_fit_is_halved_and_says_so():
    def make(batch: int) -> gpu_works.Step:
        if batch > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return product(batch)

    rows = list(g.figures(gpu_works.Work("a product", "rows", make, 16, 0.01), np.inf, 8))
    assert [row["batch"] for row in rows] == [4, 4, 4]
    assert all(row["note"] == "batch halved from 16 to fit into memory" and row["units_per_s"] > 0 for row in rows)

    def never(batch: int) -> gpu_works.Step:
        raise torch.OutOfMemoryError("CUDA out of memory")

    rows = list(g.figures(gpu_works.Work("a product", "rows", never, 4, 0.01), np.inf, 8))
    assert [(row["batch"], row["note"]) for row in rows] == [(1, "does not fit into memory")] * 3


def test_what_fails_or_comes_too_late_has_a_row_that_says_why(run_home, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    def broken(batch: int) -> gpu_works.Step:
        raise RuntimeError("no kernel image\nfor this device")

    listed = [gpu_works.Work("one", "rows", broken, 2, 0.01), gpu_works.Work("two", "rows", product, 2, 0.01)]
    monkeypatch.setattr(g, "works", lambda sizes: listed)
    assert g.main() == 1
    page = (run_home / "runs" / "gpu" / "gpu.md").read_text(encoding="utf-8")
    assert page.count("RuntimeError: no kernel image |") == 3 and page.count("| two |") == 3
    monkeypatch.setattr(g, "SECONDS", -1.0)
    assert g.main() == 1 and capsys.readouterr().out.count("left out: the time was over") == 6


def test_operations_are_counted_with_attention_and_backward():
    q = torch.randn(1, 2, 10, 8, requires_grad=True)
    forward = 2 * 2 * (2 * 10 * 10 * 8)  # two heads, scores and mixing
    attend = lambda: torch.nn.functional.scaled_dot_product_attention(q, q, q)
    assert count_operations(attend) == forward
    assert count_operations(lambda: attend().sum().backward()) == pytest.approx(3.5 * forward)
