"""The frame of a notebook: parameters are checked, results are written last, headless output is plain."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from zsad_lib import notebook as frame
from zsad_lib.errors import ZsadError
from zsad_lib.exercises.answers import close
from zsad_lib.files import paths
from zsad_lib.pipeline import progress, run_step


def test_begin_seeds_and_says_where_it_stands(run_home, monkeypatch, capsys):
    monkeypatch.setenv("ZSAD_NOTEBOOK", "99_try_things")
    run = frame.begin({"PROFILE": "smoke", "np": np, "_hidden": 1, "fn": print})
    line = capsys.readouterr().out.strip()
    assert line.startswith("profile smoke · seed 0 · c") and line.endswith("a quick look, not results")
    assert run.folder == run_home / "runs" / "smoke" / "notebooks" / "99_try_things" and run.folder.is_dir()
    drawn = random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002
    frame.begin({"PROFILE": "demo", "BENCH_SEED": 2, "SEEDS": [0], "ALPHA": None})
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == drawn  # noqa: NPY002
    line = capsys.readouterr().out.strip()
    assert "profile demo-seed2" in line and "not results" not in line


@pytest.mark.parametrize(
    ("parameters", "line"),
    [
        ({}, "sets no PROFILE"),
        ({"PROFILE": "smok"}, "profile 'smok' is unknown; did you mean 'smoke'"),
        ({"PROFILE": "smoke", "SEDS": [0]}, "parameter 'SEDS' is unknown; did you mean 'SEEDS'"),
        ({"PROFILE": "smoke", "profile": "demo"}, "parameter 'profile' is unknown; did you mean 'PROFILE'"),
        ({"PROFILE": "smoke", "JOBS": "many"}, "JOBS='many': a whole number is needed"),
        ({"PROFILE": "smoke", "NAME": "demo"}, "'NAME' is unknown"),
    ],
)
def test_unknown_or_ill_typed_parameters_fail(run_home, parameters, line):
    with pytest.raises(ZsadError, match=line):
        frame.begin(parameters)
    assert not (run_home / "runs").exists()


def test_only_parameter_cells_are_checked_in_a_notebook(run_home):
    cells = ["", "# parameters\nPROFILE = 'smoke'  # which", "%matplotlib inline", "run = z.begin(globals())", "n = 3"]
    frame.begin({"In": cells, "PROFILE": "smoke", "n": 3})
    with pytest.raises(ZsadError, match="'SEDS'"):
        frame.begin({"In": [*cells[:2], "SEDS = [1]", *cells[2:]], "PROFILE": "smoke", "SEDS": [1], "n": 3})
    run = frame.begin({"In": [*cells, "PROFILE = 'demo'\nALPHA = 0.2"], "PROFILE": "demo", "ALPHA": 0.2, "n": 3})
    assert run.profile.name == "demo" and run.profile.alpha == 0.2


def test_settings_are_found_where_the_kernel_keeps_no_history(run_home):
    run = frame.begin({"In": [""], "PROFILE": "smoke", "ALPHA": 0.2, "CLIP_FRAMES": (0, 4)})
    assert (run.profile.name, run.profile.alpha) == ("smoke", 0.2)


def test_a_notebook_declares_parameters_of_its_own(run_home):
    frame.begin({"PROFILE": "smoke", "RETRAIN": True}, RETRAIN=bool)
    with pytest.raises(ZsadError, match="RETRAIN='maybe': yes or no is needed"):
        frame.begin({"PROFILE": "smoke", "RETRAIN": "maybe"}, RETRAIN=bool)
    with pytest.raises(ZsadError, match="'RETRIAN' is unknown; did you mean 'RETRAIN'"):
        frame.begin({"PROFILE": "smoke", "RETRIAN": True}, RETRAIN=bool)


def test_notebook_name_from_the_surroundings(monkeypatch):
    for name in ("ZSAD_NOTEBOOK", "JPY_SESSION_NAME"):
        monkeypatch.delenv(name, raising=False)
    assert frame._notebook_name({}) == "interactive"
    with monkeypatch.context() as nbval:
        nbval.setattr("zsad_lib.notebook.notebook_kernel", lambda: "a kernel")
        nbval.setenv("PYTEST_CURRENT_TEST", "notebooks/03_c.ipynb::Cell 0 (setup)")
        assert frame._notebook_name({}) == "03_c"
    assert frame._notebook_name({"__vsc_ipynb_file__": "/a/02_b.ipynb"}) == "02_b"
    monkeypatch.setenv("JPY_SESSION_NAME", "/x/01_a.ipynb")
    assert frame._notebook_name({"__vsc_ipynb_file__": "/a/02_b.ipynb"}) == "01_a"


def test_finish_writes_the_result_whole(run_home, monkeypatch):
    monkeypatch.setenv("ZSAD_NOTEBOOK", "99_try_things")
    run = frame.begin({"PROFILE": "smoke"})
    (run.folder / "a.png").write_text("")
    run.finish(metrics={"auc": np.float64(0.5)}, artefacts={"picture": "a.png"})
    result = paths.read_json(run.folder / "result.json")
    assert result["metrics"] == {"auc": 0.5} and result["artefacts"] == {"picture": "a.png"}
    assert result["notebook"] == "99_try_things" and result["is_result"] is False
    assert {"profile", "seed", "seconds", "versions", "git"} <= set(result)
    (run.folder / "result.json").unlink()
    with pytest.raises(ZsadError, match="not written"):
        run.finish(artefacts=[run.folder / "b.png"])
    assert not (run.folder / "result.json").exists()


def test_need_asks_the_pipeline(run_home, monkeypatch):
    monkeypatch.setattr(run_step, "ensure", lambda step, profile: {"step": step, "of": profile.name})
    run = frame.begin({"PROFILE": "smoke"})
    assert run.need("score") == {"step": "score", "of": "smoke"}
    assert run.need("data", scene_rules="train")["step"] == "train"  # another step for this data set
    assert run.need("data", ucsd_ped2="train")["step"] == "data"


def test_what_is_no_result_says_so_with_the_width_of_its_interval(run_home, capsys):
    row = {"value": 0.62, "low": 0.4, "high": 0.81, "delta": -0.1, "delta_low": -0.3, "delta_high": 0.25}
    auc, delta = frame.interval(row), frame.interval(row, "delta")
    unknown = frame.interval({"value": 0.5, "low": float("nan"), "high": float("nan")})

    def said(profile: str) -> list[str]:
        frame.begin({"PROFILE": profile})
        capsys.readouterr()
        frame.say("AUC {a:.2f} [{a.low:.2f}, {a.high:.2f}] of `{name}`", a=auc, name="ln")
        frame.say("{a:.2f}, {d:+.2f}", a=auc, d=delta)
        frame.say("{n} clips, {u:.1f}", n=3, u=unknown)
        print("0.5", frame.mark())
        return capsys.readouterr().out.splitlines()

    plain = ["AUC 0.62 [0.40, 0.81] of `ln`", "0.62, -0.10", "3 clips, 0.5", "0.5 "]
    notes = [" *(smoke: no result, 95 % interval 0.41 wide)*", " *(smoke: no result, 95 % intervals up to 0.55 wide)*",
             " *(smoke: no result)*", "(smoke: no result)"]  # fmt: skip
    assert said("smoke") == [line + note for line, note in zip(plain, notes)]
    assert said("demo") == plain


def test_say_show_progress_in_plain_text(capsys, monkeypatch):
    monkeypatch.setattr(frame, "_no_result", "")
    frame.say("AUC {auc:.3f}", auc=0.98765)
    frame.show(frame.say)
    assert list(progress.progress([1, 2], "reading")) == [1, 2] and list(progress.progress(iter("ab"), "letters")) == [
        "a",
        "b",
    ]
    out = capsys.readouterr().out
    assert out.startswith("AUC 0.988\ndef say(")
    assert "reading: started, 2 items\nreading: done in 0.0 s\nletters: started\nletters: done" in out
    with pytest.raises(ZsadError, match="'rand' is not from this library"):
        frame.show(torch.rand)


def test_lines_tell_how_far_work_is(monkeypatch, capsys):
    clock = iter(range(0, 100, 10))  # every look at it is ten seconds later
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    lines = lambda *words, **more: (
        list(progress.report_progress(*words, **more)),
        capsys.readouterr().err.splitlines(),
    )
    items, said = lines("abc", "clips rendered", 5, 2)
    assert items == ["a", "b", "c"]  # two each, and one left for the last
    assert said == ["  2 of 5 clips rendered, about 15 s left", "  4 of 5 clips rendered, about 5 s left",
                    "  5 of 5 clips rendered, about 0 s left"]  # fmt: skip
    assert lines("a", "frames scored", share=lambda count: 0.25)[1] == ["  1 frames scored, about 30 s left"]
    assert lines("a", "frames scored")[1] == ["  1 frames scored"]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: 0.0))
    assert lines("ab", "frames scored", 2)[1] == []  # no five seconds have passed
    assert lines("a", "trials", 1, name="trial {}".format)[1] == ["  1 of 1 trials: trial a, about 0 s left"]


def test_rich_output_in_a_notebook(monkeypatch):
    shown = []
    monkeypatch.setattr(frame, "_no_result", "")
    shell = SimpleNamespace(kernel=object())
    monkeypatch.setattr("builtins.get_ipython", lambda: shell, raising=False)
    monkeypatch.setattr("IPython.display.display", shown.append)
    monkeypatch.delenv("PYTEST_VERSION", raising=False)
    monkeypatch.setattr("tqdm.notebook.tqdm", lambda items, desc, total: shown.append(desc) or items)
    frame.say("**{n}** clips", n=3)
    frame.show(frame.say)
    assert list(progress.progress([1], "reading")) == [1]
    assert shown[0].data == "**3** clips" and "def say(" in shown[1].data and shown[2] == "reading"


def test_checks_tell_right_from_wrong(capsys):
    close(torch.ones(2, requires_grad=True), [1, 1], "the gate")
    assert capsys.readouterr().out == "the gate: right\n"
    with pytest.raises(AssertionError, match=r"the gate: got 1.1, wanted 1$"):
        close(1.1, 1.0, "the gate")
    with pytest.raises(AssertionError, match=r"the gate: got 1.00001 at \[0, 1\], wanted 1$"):
        close([[1, 1.00001]], [[1, 1]], "the gate")
    with pytest.raises(AssertionError, match=r"the gate: got shape \(2,\), wanted shape \(3,\)"):
        close([1, 1], [1, 1, 1], "the gate")
