"""Notebooks run in order, are skipped when unchanged, and fail with one line."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from zsad_lib.__main__ import main
from zsad_lib.config import get_profile
from zsad_lib.errors import ZsadError
from zsad_lib.files import paths
from zsad_lib.pipeline import fingerprints, run_notebooks, run_step
from zsad_lib.pipeline.artefacts import write_result
from zsad_lib.processes import parallel

REPOSITORY = Path(run_step.__file__).parents[2]
SETUP = "import zsad_lib as z\nrun = z.begin(globals())"


def write(folder: Path, name: str, *cells: str, framed: bool = True) -> Path:
    book = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    parameters = nbformat.v4.new_code_cell("PROFILE = 'smoke'", metadata={"tags": ["parameters"]})
    book.cells = [nbformat.v4.new_markdown_cell("# Title"), parameters]
    cells = (SETUP, *cells, "run.finish(metrics={'x': 1})") if framed else cells  # the frame imports torch
    book.cells += [nbformat.v4.new_code_cell(cell) for cell in cells]
    path = folder / f"{name}.ipynb"
    nbformat.write(book, path)
    return path


@pytest.fixture
def home(run_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (run_home / "toy").mkdir()
    (run_home / "toy" / "__init__.py").write_text("")
    (run_home / "toy" / "step.py").write_text("def prepare(profile, folder):\n    return {'metrics': {'n': 3}}\n")
    monkeypatch.setitem(fingerprints.PACKAGES, "toy", run_home / "toy")
    monkeypatch.setitem(run_step.STEPS, "scene_rules", {"data": ("toy.step:prepare", ())})
    monkeypatch.setattr(
        run_notebooks, "ensure_apart", lambda steps, profile: [run_step.ensure(s, profile) for s in steps]
    )
    monkeypatch.syspath_prepend(run_home)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    yield run_home
    for name in [name for name in sys.modules if name.partition(".")[0] == "toy"]:
        del sys.modules[name]


def test_executed_once_with_the_profile_and_its_settings(home, capsys):
    book = write(
        home, "01_look", "%matplotlib inline\nassert (PROFILE, BENCH_SEED) == ('demo', 3)\nprint(run.profile.jobs)"
    )
    profile = get_profile("demo", bench_seed=3, jobs=2)
    run_notebooks.execute([book], profile)
    folder = home / "runs" / "demo-seed3" / "notebooks"
    result = paths.read_json(folder / "01_look" / "result.json")
    assert result["metrics"] == {"x": 1} and result["profile"]["bench_seed"] == 3
    assert "[1/1] 01_look: done in" in capsys.readouterr().out
    assert (folder / "01_look.html").read_text().count("Title") >= 1
    assert "ZSAD_NOTEBOOK" not in os.environ
    os.utime(book)
    run_notebooks.execute([book], profile)
    assert capsys.readouterr().out == "" and run_notebooks.is_current(book, profile)
    write(home, "01_look", "changed = 1")
    assert not run_notebooks.is_current(book, profile)
    assert not run_notebooks.is_current(book, get_profile("demo"))


def test_the_workers_of_a_step_end_soon_after_it(monkeypatch):
    """Else they hold their memory beside the pieces that come next, and the process that ran the step cannot end."""
    monkeypatch.setattr(run_step, "ensure", lambda *_: list(parallel(abs, [(-1,), (-2,)], jobs=2)))
    monkeypatch.setattr(run_notebooks, "IDLE_S", 0.5)
    asked = ["pgrep", "-f", "-P", str(os.getpid()), "LokyProcess"]
    workers = lambda: subprocess.run(asked, capture_output=True, check=False).stdout.split()
    run_notebooks.make("train", get_profile("smoke"))
    assert len(workers()) == 2
    deadline = time.monotonic() + 20
    while workers():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_lines_of_progress_say_whose_they_are(monkeypatch, capsys):
    def ensure(step, profile):
        print(f"{step}: running", flush=True)
        print("  trained, seed 0")
        print("  3 of 4 videos", file=sys.stderr, flush=True)

    monkeypatch.setattr(run_step, "ensure", ensure)
    run_notebooks.make("train", get_profile("smoke"))
    assert tuple(capsys.readouterr()) == ("train: running\n  train: trained, seed 0\n", "  train: 3 of 4 videos\n")


def test_stamp_follows_library_and_needed_steps(home, monkeypatch):
    book = write(home, "01_look", "import toy.step", "run.need('data')")
    folder, profile = home / "runs" / "smoke" / "notebooks", get_profile("smoke", jobs=1)
    ran = []

    def fake(notebook, output, profile):
        ran.append(notebook.stem)
        output.write_bytes(notebook.read_bytes())
        write_result(folder / notebook.stem, {"artefacts": {}, "files": {}})

    monkeypatch.setattr(run_notebooks, "_papermill", fake)
    run_notebooks.execute([book], profile)
    run_notebooks.execute([book], profile)
    assert ran == ["01_look"] and run_step.current("data", profile)
    (home / "toy" / "step.py").write_text("def prepare(profile, folder):\n    return {'metrics': {'n': 4}}\n")
    sys.modules.pop("toy.step")
    run_notebooks.execute([book], profile)
    assert len(ran) == 2 and run_step.ensure("data", profile)["metrics"] == {"n": 4}
    (home / "runs" / "smoke" / "data" / "result.json").unlink()
    assert not run_notebooks.is_current(book, profile)
    run_notebooks.execute([book], profile)
    (folder / "01_look" / "stamp.json").write_text("{")
    assert not run_notebooks.is_current(book, profile)
    monkeypatch.setattr(run_notebooks, "_papermill", lambda notebook, output, profile: None)
    with pytest.raises(ZsadError, match=r"01_look: ended without run\.finish"):
        run_notebooks.execute([book], profile)


def test_failures_are_one_line_with_notebook_and_cell(home):
    profile = get_profile("smoke")
    for cell, line in (
        ("raise ValueError('first\\nlast words')", r"last words \(02_fail, cell 3; see .*02_fail\.ipynb\)"),
        (
            "import zsad_lib as z\nraise z.ZsadError('a.mp4: the file is empty')",
            r"^a\.mp4: the file is empty \(02_fail, cell 3",
        ),
    ):
        with pytest.raises(ZsadError, match=line) as error:
            run_notebooks.execute([write(home, "02_fail", cell, framed=False)], profile)
        assert "\n" not in str(error.value)
        assert not (home / "runs" / "smoke" / "notebooks" / "02_fail" / "result.json").exists()
    with pytest.raises(ZsadError, match="absent.ipynb: no such notebook"):
        run_notebooks.execute([home / "absent.ipynb"], profile)
    (home / "broken.ipynb").write_text("{}")
    with pytest.raises(ZsadError, match="broken.ipynb: not a readable notebook"):
        run_notebooks.execute([home / "broken.ipynb"], profile)
    with pytest.raises(ZsadError, match="not valid Python"):
        run_notebooks.execute([write(home, "03_syntax", "x = = 1")], profile)


def test_dead_kernel_is_explained(home):
    with pytest.raises(ZsadError, match="04_dies: its kernel died, most often because memory ran out"):
        run_notebooks.execute([write(home, "04_dies", "import os; os._exit(9)", framed=False)], get_profile("smoke"))


def test_interrupt_ends_the_kernel(home, process_ended):
    book = write(
        home,
        "05_long",
        f"import os; open({str(home / 'pid')!r}, 'w').write(str(os.getpid()))\nimport time; time.sleep(60)",
        framed=False,
    )
    no_steps = (
        "from zsad_lib import __main__ as command; from zsad_lib.pipeline import run_step;"
        " run_step.STEPS['scene_rules'] = {}; "
    )
    main = f"{no_steps}exit(command.main(['run', '--profile', 'smoke', {str(book)!r}]))"
    process = subprocess.Popen(
        [sys.executable, "-c", main], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    deadline = time.monotonic() + 30
    while not ((home / "pid").exists() and (home / "pid").read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    kernel = int((home / "pid").read_text())
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 130, out
    assert out.strip() == "interrupted; the same command resumes"
    assert process_ended(kernel)


def test_status_on_the_command_line(home, capsys):
    book = write(home, "01_look", "run.need('data')")
    assert main(["status", "--profile", "smoke", str(book)]) == 0
    assert capsys.readouterr().out == "data: to run\n01_look: to run\n"
    assert main(["run", "--profile", "smoke", str(home / "absent.ipynb")]) == 1
    assert capsys.readouterr().err.endswith("absent.ipynb: no such notebook\n")


def test_needed_step_depends_on_the_data_set(home):
    book = write(home, "06_two", "run.need('data', ucsd_ped2='train')")
    assert run_notebooks._facts(book, get_profile("smoke"))[1] == ["data"]
    assert run_notebooks._facts(book, get_profile("ped2"))[1] == ["train"]
