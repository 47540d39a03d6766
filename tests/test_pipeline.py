"""Steps run once, resume after a kill, and run again only for what could change a number."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from zsad_lib.__main__ import main
from zsad_lib.config import get_profile
from zsad_lib.errors import ZsadError
from zsad_lib.files import paths
from zsad_lib.pipeline import artefacts, fingerprints, launch, lock, run_step

STEPS = {
    "data": ("toy.prepare:prepare", ()),
    "train": ("toy.train:fit", ("data",)),
    "tables": ("toy.tables:write", ("train",)),
}
TOY = {
    "__init__": "",
    "log": """
        import os, pathlib
        def ran(name):
            with open(os.environ["TOY_LOG"], "a") as file:
                file.write(name + "\\n")
    """,
    "prepare": """
        from toy.log import ran
        CONTENT = "a"
        def prepare(profile, folder):
            ran("data")
            (folder / "manifest.csv").write_text(CONTENT)
            return {"metrics": {"manifest_sha256": CONTENT}, "artefacts": [folder / "manifest.csv"]}
    """,
    "train": """
        import os, time
        from toy.log import ran
        from zsad_lib.files.paths import atomic
        def fit(profile, folder):
            for item in range(5):
                file = folder / f"{item}.txt"
                if file.exists():
                    continue
                with atomic(file) as handle:
                    handle.write(str(item * item))
                    if item == 3 and os.environ.get("TOY_HANG"):
                        handle.flush(); ran("hanging"); time.sleep(60)
                ran(f"item {item}")
            total = sum(int((folder / f"{item}.txt").read_text()) for item in range(5))
            return {"metrics": {"total": total}, "artefacts": {"last": "4.txt"}}
    """,
    "tables": """
        from toy.log import ran
        COLOUR = "red"
        def write(profile, folder):
            ran("tables")
    """,
}
# What a user starts: the command line on the toy steps.
DRIVER = """
import sys
from pathlib import Path
sys.path.insert(0, {home!r})
from zsad_lib.pipeline import fingerprints, launch, run_step
from zsad_lib.__main__ import main
fingerprints.PACKAGES["toy"] = Path({home!r}) / "toy"
run_step.STEPS["scene_rules"] = {steps!r}
{patch}
if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def toy(run_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (run_home / "toy").mkdir()
    for name, source in TOY.items():
        (run_home / "toy" / f"{name}.py").write_text(textwrap.dedent(source))
    monkeypatch.setitem(fingerprints.PACKAGES, "toy", run_home / "toy")
    monkeypatch.setitem(run_step.STEPS, "scene_rules", STEPS)
    monkeypatch.setenv("TOY_LOG", str(run_home / "log"))
    monkeypatch.delenv("MAKELEVEL", raising=False)
    monkeypatch.syspath_prepend(run_home)
    yield run_home
    for name in [name for name in sys.modules if name.partition(".")[0] == "toy"]:
        del sys.modules[name]


def test_stand_ins_that_are_made_again_count(toy):
    edit(toy, "train", "import os, time", "import os, time\nWEIGHTS = ('clip.safetensors',)")
    usual, other = get_profile("demo"), get_profile("demo", pretrain_seed=1)
    before, absent = run_step.fingerprint("train", usual), run_step.fingerprint("train", other)
    folder = paths.make_folder(toy / "cache" / "stand_ins" / "seed1")
    marks = set()
    for content in ("one", "two and more"):
        (folder / "clip.safetensors").write_text(content)
        marks.add(run_step.fingerprint("train", other))
    assert len(marks | {absent}) == 3 and run_step.fingerprint("train", usual) == before


def ran(toy: Path) -> list[str]:
    """What ran since the last look."""
    log = toy / "log"
    lines = log.read_text().splitlines() if log.exists() else []
    log.write_text("")
    return lines


def edit(toy: Path, module: str, old: str, new: str) -> None:
    file = toy / "toy" / f"{module}.py"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    sys.modules.pop(f"toy.{module}", None)  # a new process would read it again


EVERYTHING = ["data", *(f"item {i}" for i in range(5)), "tables"]


def test_needed_steps_run_first_and_only_once(toy):
    result = run_step.ensure("tables", get_profile("demo"))
    assert ran(toy) == EVERYTHING and result["step"] == "tables" and result["artefacts"] == {}
    recorded = paths.read_json(toy / "runs" / "demo" / "train" / "result.json")
    assert recorded["metrics"] == {"total": 30} and recorded["artefacts"] == {"last": "4.txt"}
    assert set(recorded) == {
        "fingerprint", "step", "profile", "began", "seconds", "seconds_before", "versions", "git", "metrics",
        "artefacts", "output_hash", "files", "sha256", "code", "date",
    }  # fmt: skip
    assert recorded["code"] == run_step.code_of("train", "scene_rules") and recorded["date"] == run_step.today()
    assert list(recorded["files"]) == [f"runs/demo/train/{item}.txt" for item in range(5)]
    assert recorded["profile"]["name"] == "demo" and "torch" in recorded["versions"]
    for name in ("log", "prepare", "train", "tables"):
        os.utime(toy / "toy" / f"{name}.py")
    edit(toy, "train", "import os, time", "# a comment\nimport os, time")
    assert run_step.ensure("tables", get_profile("demo", jobs=2)) == result and ran(toy) == []


def test_only_what_depends_on_a_change_runs_again(toy):
    profile = get_profile("demo")
    run_step.ensure("tables", profile)
    ran(toy)
    edit(toy, "tables", "red", "blue")
    run_step.ensure("tables", profile)
    assert ran(toy) == ["tables"]
    edit(toy, "train", "item * item", "item + item")
    assert run_step.current("tables", profile) is None and run_step.current("data", profile)
    run_step.ensure("tables", profile)
    assert ran(toy) == EVERYTHING[1:]  # the old items are gone, so none of them was mixed in
    run_step.ensure("train", get_profile("demo", bench_seed=1))
    assert ran(toy) == EVERYTHING[:-1] and (toy / "runs" / "demo-seed1" / "train").is_dir()


def test_same_output_stops_the_change(toy):
    profile = get_profile("demo")
    run_step.ensure("tables", profile)
    ran(toy)
    edit(toy, "prepare", 'ran("data")', 'ran("data"); del profile')
    run_step.ensure("tables", profile)
    assert ran(toy) == ["data"]
    edit(toy, "prepare", '"a"', '"b"')
    run_step.ensure("tables", profile)
    assert ran(toy) == EVERYTHING


def test_deleted_or_broken_files_are_made_again(toy):
    profile = get_profile("demo")
    run_step.ensure("tables", profile)
    ran(toy)
    (toy / "runs" / "demo" / "train" / "4.txt").unlink()
    run_step.ensure("tables", profile)
    assert ran(toy) == ["item 4"]
    (toy / "runs" / "demo" / "data" / "result.json").write_text("{")
    run_step.ensure("tables", profile)
    assert ran(toy) == ["data"]


def flip_a_byte(file: Path) -> None:
    """Changes the last byte, and neither size nor time of the last change."""
    content, state = bytearray(file.read_bytes()), file.stat()
    content[-1] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))


CHANGES = {  # what happens to a file of the step `train`, or of another one -> steps and items that run again
    "flipped": (lambda run: flip_a_byte(run / "train" / "2.txt"), ["item 2"]),
    "edited": (lambda run: (run / "train" / "2.txt").write_text("400"), ["item 2"]),
    "emptied": (lambda run: (run / "train" / "2.txt").write_text(""), ["item 2"]),
    "removed": (lambda run: (run / "train" / "2.txt").unlink(), ["item 2"]),
    "a folder": (lambda run: ((run / "train" / "2.txt").unlink(), (run / "train" / "2.txt").mkdir()), ["item 2"]),
    "manifest": (lambda run: (run / "data" / "manifest.csv").write_text("b"), ["data"]),
    "outside": (lambda run: flip_a_byte(run / "scores" / "own" / "0.csv"), ["tables"]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_files_make_their_step_run_again(toy, capsys, change):
    writes = 'ran("tables"); home = folder.parent / "scores" / "own"; home.mkdir(parents=True, exist_ok=True)'
    edit(toy, "tables", 'ran("tables")', f'{writes}; (home / "0.csv").write_text("5"); return dict(files=[home])')
    profile, run = get_profile("demo"), toy / "runs" / "demo"
    before = run_step.ensure("tables", profile)
    ran(toy)
    act, again = CHANGES[change]
    act(run)
    step = {"data": "data", "tables": "tables"}.get(again[0], "train")
    assert run_step.current("tables", profile) is None and run_step.current(step, profile) is None
    main(["status"])
    capsys.readouterr()
    run_step.ensure("tables", profile)
    told = capsys.readouterr().out
    assert re.match(rf"{step}: .*(2\.txt|manifest\.csv|0\.csv) changed or missing since; running again\n", told)
    assert ran(toy) == again
    assert run_step.current("train", profile)["metrics"] == {"total": 30}
    assert (run / "train" / "2.txt").read_text() == "4" and (run / "scores" / "own" / "0.csv").read_text() == "5"
    assert run_step.current("tables", profile)["files"] == before["files"]


def test_status_names_what_was_changed(toy, capsys):
    run_step.ensure("train", get_profile("demo"))
    for number in (1, 3):
        (toy / "runs" / "demo" / "train" / f"{number}.txt").write_text("other")
    capsys.readouterr()
    assert main(["status"]) == 0
    _, train, tables = capsys.readouterr().out.splitlines()
    assert train.startswith("train: to run, ") and train.endswith("1.txt and 1 more changed or missing since")
    assert tables == "tables: to run"


def test_times_change_nothing(toy, tmp_path_factory, monkeypatch):
    """A copy without times, and one at another place, is as good as the first; what was hashed is not hashed again."""
    profile = get_profile("demo")
    run_step.ensure("tables", profile)
    for file in (toy / "runs").rglob("*.txt"):
        os.utime(file, (0, 0))
    assert run_step.current("tables", profile)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    shutil.copytree(toy / "runs", elsewhere / "runs", copy_function=shutil.copy)
    monkeypatch.setenv("ZSAD_HOME", str(elsewhere))
    assert run_step.current("tables", profile)
    artefacts._seen.cache_clear()  # as a new process begins
    monkeypatch.setattr(paths, "sha256_file", None)
    assert run_step.current("tables", profile)


@pytest.mark.skipif(os.name == "nt", reason="Windows locks differently")
def test_a_broken_memory_of_hashes_does_no_harm(toy):
    profile = get_profile("demo")
    run_step.ensure("tables", profile)
    for content in ("", "[]", '{"a": 1}', "{"):
        (toy / "runs" / "demo" / ".hashes.json").write_text(content)
        artefacts._seen.cache_clear()
        artefacts._read_memory.cache_clear()
        assert run_step.current("tables", profile)


RESULTS = {  # of another shape
    "list": "[]", "object": "{}", "text": '"done"', "number": "7", "null": "null", "nothing": "", "words": "done",
    "nested": "[" * 100_000, "zeros": "\0" * 40, "metrics": '{"metrics": {}}',
    "files": '{"files": 3, "artefacts": 4, "sha256": 5}',
}  # fmt: skip


@pytest.mark.parametrize("content", RESULTS.values(), ids=RESULTS)
def test_a_result_of_another_shape_runs_the_step_again(toy, capsys, content):
    profile, file = get_profile("demo"), toy / "runs" / "demo" / "data" / "result.json"
    run_step.ensure("data", profile)
    ran(toy)
    file.write_text(content)
    assert main(["status"]) == 0 and "data: to run, " in capsys.readouterr().out
    run_step.ensure("data", profile)
    assert ran(toy) == ["data"]
    assert re.match(r"data: \S*result\.json changed .*running again\n", capsys.readouterr().out)


def test_an_edited_or_cut_result_runs_the_step_again(toy):
    profile, file = get_profile("demo"), toy / "runs" / "demo" / "train" / "result.json"
    run_step.ensure("train", profile)
    whole = file.read_text()
    old = json.dumps({name: value for name, value in json.loads(whole).items() if name not in ("files", "sha256")})
    edited = whole.replace('"total": 30', '"total": 31'), whole.replace("2.txt", "3.txt")
    for case in (whole[: len(whole) // 2], *edited, old):
        file.write_text(case)
        assert run_step.current("train", profile) is None
    file.unlink()
    file.mkdir()
    assert run_step.ensure("train", profile)["metrics"] == {"total": 30}
    file.write_bytes(b"\xff\xfe")
    assert run_step.ensure("train", profile)["metrics"] == {"total": 30}


def test_exchanged_data_root_is_seen(toy):
    root = toy / "copy"
    root.mkdir()
    (root / "a.jpg").write_text("1")
    profile = get_profile("demo", data_root=str(root))
    run_step.ensure("tables", profile)
    os.utime(root / "a.jpg")
    assert run_step.current("tables", profile)
    (root / "a.jpg").write_text("other")
    assert run_step.current("data", profile) is None
    ran(toy)
    run_step.ensure("tables", profile)
    assert ran(toy) == ["data"]  # prepared again, with the same content


def test_failures_are_told_and_leave_no_result(toy):
    profile = get_profile("demo")
    with pytest.raises(ZsadError, match="step 'trian' is unknown for profile demo; did you mean 'train'"):
        run_step.ensure("trian", profile)
    edit(toy, "tables", 'ran("tables")', 'return {"artefacts": ["absent.csv"]}')
    with pytest.raises(ZsadError, match="absent.csv: announced as artefact 'absent.csv' but not written"):
        run_step.ensure("tables", profile)
    assert not (toy / "runs" / "demo" / "tables" / "result.json").exists()


def test_run_folder_that_cannot_be_written(toy):
    (toy / "runs").write_text("a file in the place of the folder")
    with pytest.raises(ZsadError, match="cannot write"):
        run_step.ensure("data", get_profile("demo"))
    assert ran(toy) == []


# --- processes ------------------------------------------------------------------------------------------------------


def start(toy: Path, *arguments: str, hang: bool = False, patch: str = "") -> subprocess.Popen:
    file = toy / "driver.py"
    file.write_text(DRIVER.format(home=str(toy), steps=STEPS, patch=patch))
    environment = {**os.environ, "PYTHONPATH": str(Path(run_step.__file__).parents[2]), "TOY_HANG": "1" if hang else ""}
    return subprocess.Popen(
        [sys.executable, str(file), *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(toy: Path, line: str) -> None:
    deadline = time.monotonic() + 20
    while not ((toy / "log").exists() and line in (toy / "log").read_text()):
        assert time.monotonic() < deadline, f"{line!r} never happened"
        time.sleep(0.02)


def test_kill_9_resumes_with_the_same_result(toy):
    process = start(toy, "step", "--child", "tables", hang=True)
    wait_for(toy, "hanging")
    process.send_signal(signal.SIGKILL)
    process.wait()
    folder = toy / "runs" / "demo" / "train"
    assert sorted(p.name for p in folder.glob("*.txt")) == ["0.txt", "1.txt", "2.txt"]
    assert list(folder.glob(f"{paths.PARTIAL}*")) and not (folder / "result.json").exists()
    ran(toy)
    process = start(toy, "step", "--child", "tables")
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0, out
    assert ran(toy) == ["item 3", "item 4", "tables"]  # items 0 to 2 were kept
    assert paths.read_json(folder / "result.json")["metrics"] == {"total": 30}
    assert not list(folder.glob(f"{paths.PARTIAL}*"))


def leave(home: Path) -> list[Path]:
    """Leftovers of every kind, as a killed process or an older kit leaves them."""
    places = [home / "runs" / "demo" / "train", home / "runs" / "demo" / "scores" / "deep" / "er", home / "data" / "x"]
    places += [home / "cache" / "features" / "1"]
    left = []
    for place in places:
        folder = place / f"{paths.PARTIAL}folder" / "a" / "b"
        folder.mkdir(parents=True)
        (folder / "half.mp4").write_text("half")
        (place / f"{paths.PARTIAL}file.mp4").write_text("half")
        (place / f"{paths.PARTIAL}link").symlink_to(home / "toy")
        (place / f"{paths.PARTIAL}dangling").symlink_to("nowhere")
        os.mkfifo(place / f"{paths.PARTIAL}pipe")
        os.chmod(folder, 0o500)
        os.chmod(place / f"{paths.PARTIAL}file.mp4", 0o400)
        left += place.glob(f"{paths.PARTIAL}*")
    return left


def test_leftovers_are_cleared_wherever_steps_write(toy):
    run_step.ensure("tables", get_profile("demo"))
    left = leave(toy)
    assert len(left) == 20
    (toy / "runs" / "demo" / "data" / "result.json").unlink()
    with paths.atomic(toy / "cache" / "features" / "1" / "mine.txt") as handle:  # this process still runs
        handle.write("whole")
        run_step.ensure("data", get_profile("demo"))
    assert not any(os.path.lexists(path) for path in left) and (toy / "toy" / "log.py").exists()
    assert (toy / "cache" / "features" / "1" / "mine.txt").read_text() == "whole"
    assert not list(toy.rglob(f"{paths.PARTIAL}*"))


def test_killed_while_a_folder_fills_it_starts_again(toy):
    """As `films` does, whose pieces lie in a folder until the film is whole."""
    filling = """
        import os, signal
        from zsad_lib.files.unfinished import scratch
        def write(profile, folder):
            with scratch(folder) as place:
                (place / "deep").mkdir()
                (place / "deep" / "half.mp4").write_text("half")
                if os.environ.get("TOY_HANG"):
                    os.kill(os.getpid(), signal.SIGKILL)
                os.replace(place / "deep" / "half.mp4", folder / "0.mp4")
    """
    (toy / "toy" / "tables.py").write_text(textwrap.dedent(filling))
    run_step.ensure("train", get_profile("demo"))
    process = start(toy, "step", "--child", "tables", hang=True)
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL and list((toy / "runs").rglob("half.mp4"))
    for _ in range(2):
        run_step.ensure("tables", get_profile("demo"))
    assert sorted(path.name for path in (toy / "runs" / "demo" / "tables").iterdir()) == [
        "0.mp4", "result.json", "started.json",
    ]  # fmt: skip


def test_interrupt_is_one_line_and_130(toy):
    process = start(toy, "step", "--child", "train", hang=True)
    wait_for(toy, "hanging")
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 130 and "Traceback" not in out
    assert not (toy / "runs" / "demo" / "train" / "result.json").exists()
    assert not list((toy / "runs").rglob(f"{paths.PARTIAL}*"))


CHILD_IS_TOY = """
command = launch.run_child
launch.run_child = lambda line: command([line[0], __file__, *line[3:]])
"""


@pytest.mark.parametrize(("sign", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -9)])
def test_children_end_with_their_parent(toy, process_ended, sign, code):
    process = start(toy, "step", "train", hang=True, patch=CHILD_IS_TOY)
    wait_for(toy, "hanging")
    child = int(subprocess.check_output(["pgrep", "-P", str(process.pid)], text=True).split()[0])
    process.send_signal(sign)
    out, _ = process.communicate(timeout=20)
    assert process.returncode == code
    assert "Traceback" not in out and out.count("interrupted; the same command resumes") == (code == 130)
    assert process_ended(child)


def test_child_status_and_interrupt(tmp_path, process_ended):
    assert launch.run_child([sys.executable, "-c", "raise SystemExit(3)"]) == 3
    note = tmp_path / "pid"
    note.touch()
    code = f"import os, time; open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(60)"

    def interrupt() -> None:  # as Ctrl-C does: a signal, which ends the wait for the child
        while not note.read_text():
            time.sleep(0.02)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        launch.run_child([sys.executable, "-c", code])
    assert process_ended(int(note.read_text()))


def test_killed_child_is_explained(toy):
    process = start(toy, "step", "train", hang=True, patch=CHILD_IS_TOY)
    wait_for(toy, "hanging")
    os.kill(int(subprocess.check_output(["pgrep", "-P", str(process.pid)], text=True).split()[0]), signal.SIGKILL)
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 2 and "error: train: ended by signal 9 (SIGKILL)" in out and "memory" in out


def test_second_run_waits_then_says_who_holds_the_folder(toy, monkeypatch, capsys):
    process = start(toy, "step", "--child", "train", hang=True)
    wait_for(toy, "hanging")
    monkeypatch.setattr(lock, "LOCK_WAIT_S", 0.3)
    with pytest.raises(ZsadError, match=f"in use by process {process.pid}; wait for it or end it"):
        run_step.ensure("tables", get_profile("demo"))
    assert capsys.readouterr().err.count(f"in use by process {process.pid}; waiting up to 0 s for it") == 1
    process.kill()
    process.wait()
    monkeypatch.setattr(lock, "LOCK_WAIT_S", 5)
    assert run_step.ensure("tables", get_profile("demo"))["step"] == "tables"


def test_command_line(toy, capsys, monkeypatch):
    assert main(["status", "--profile", "demo"]) == 0
    assert capsys.readouterr().out.splitlines() == ["data: to run", "train: to run", "tables: to run"]
    run_step.ensure("train", get_profile("demo"))
    capsys.readouterr()
    assert main(["status", "JOBS=2"]) == 0
    assert capsys.readouterr().out.splitlines() == ["data: up to date", "train: up to date", "tables: to run"]
    monkeypatch.setattr(launch, "run_child", lambda command: [run_step.ensure(command[-1], get_profile("demo")), 0][1])
    assert main(["step", "tables"]) == 0 and run_step.current("tables", get_profile("demo"))
    capsys.readouterr()
    assert main(["run"]) == 0  # nothing to do
    assert re.fullmatch(r"demo: up to date in \d s, see .*runs/demo\n", capsys.readouterr().out)
    monkeypatch.setattr(launch, "run_child", lambda command: 3)
    with pytest.raises(SystemExit) as stop:
        main(["step", "tables", "BENCH_SEED=5"])
    assert stop.value.code == 3
    for arguments, line in (
        (["step", "trian"], "error: step 'trian' is unknown"),
        (["status", "--profile", "dmo"], "error: profile 'dmo' is unknown; did you mean 'demo'?"),
        (["status", "JOBS=many"], "error: setting JOBS='many': a whole number is needed"),
    ):
        assert main(arguments) == 2
        assert line in capsys.readouterr().err


def test_check_path_imports_nothing_heavy():
    code = (
        "import sys, zsad_lib.__main__ as p; p.main(['status']); print(*{'torch', 'numpy', 'pandas'} & {*sys.modules})"
    )
    out = subprocess.check_output([sys.executable, "-c", code], text=True, cwd=Path(run_step.__file__).parents[2])
    assert out.splitlines()[-1] == ""


def test_what_reads_without_running_refuses_changed_files(toy):
    run_step.ensure("train", get_profile("demo"))
    run = toy / "runs" / "demo"
    artefacts.refuse_changed(run, ("data", "train", "tables"))
    (run / "train" / "3.txt").write_text("10")
    with pytest.raises(ZsadError, match=r"3\.txt: changed or missing since the step train wrote it; `make reproduce`"):
        artefacts.refuse_changed(run, ("data", "train", "tables"))
