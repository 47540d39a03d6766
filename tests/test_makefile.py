"""The Makefile says what it does, quotes what it is given, and rebuilds .venv only for a reason."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TARGETS = (
    re.search(r"^\.PHONY: ((?:.*\\\n)*.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].replace("\\", "").split()
)


def make(*arguments: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "PROFILE"))}
    command = ["make", "--no-print-directory", *arguments]
    done = subprocess.run(command, cwd=cwd, env={**clean, **environment}, capture_output=True, text=True, check=False)
    done.stdout = re.sub(" +", " ", done.stdout)  # settings that are not given leave blanks
    return done


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A copy of what set-up reads, with a .venv that is up to date and holds nothing."""
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").write_text("#!/bin/sh\n", encoding="utf-8")
    (tmp_path / ".venv" / "bin" / "python").chmod(0o755)
    mark = make("-pn", "help", cwd=tmp_path).stdout.split("ENV_MARK := ")[1].split("\n")[0]
    assert len(mark) == 40
    (tmp_path / ".venv" / ".ready").write_text(mark + "\n")
    return tmp_path


def test_make_alone_prints_help_with_a_line_for_each_target():
    result = make()
    assert result.returncode == 0
    lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines()[1:])
    assert set(TARGETS) == set(lines) and all(lines.values())


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_resolves(clone, target):
    result = make("-n", target, cwd=clone)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("profile", ["demo", "smoke", "ped2"])
def test_reproduce_names_notebooks_in_order(clone, profile):
    line = make(
        "-n", "reproduce", f"PROFILE={profile}", "DATA_ROOT=/my data/ped2", "BENCH_SEED=3", "JOBS=2", cwd=clone
    ).stdout
    assert (
        f"run --profile '{profile}' 'DATA_ROOT=/my data/ped2' 'BENCH_SEED=3' 'JOBS=2' notebooks/00_start_here.ipynb"
        in line
    )
    names = [word for word in line.split() if word.endswith(".ipynb")]
    assert names == sorted(names) and names[-1] == "notebooks/60_print_tables.ipynb"
    assert ("notebooks/12_align_prompts.ipynb" in names) == (profile != "ped2")  # Ped2 has no captions


def test_declared_notebooks_exist():
    names = {word for word in make("-n", "reproduce").stdout.split() if word.endswith(".ipynb")}
    assert {name for name in names if not (ROOT / name).is_file()} == set()


def test_settings_reach_the_command_line_expanded(clone):
    line = make("-n", "train", cwd=clone).stdout
    given = make(
        "-n", "floors", "PROFILE=ucf_crime", "DATA_ROOT=/my data", "SPLIT=uca", "ALLOW_MISSING=1", cwd=clone
    ).stdout
    assert "floors --profile 'ucf_crime' 'DATA_ROOT=/my data' 'SPLIT=uca' 'ALLOW_MISSING=1'" in given
    assert "$(" not in line and re.search(r"--profile 'demo'( 'JOBS=\d+')? train", line)


def test_a_launcher_and_any_setting_reach_the_pipeline(clone):
    line = make("-n", "train", "LAUNCH=torchrun --nproc-per-node 2", "SET=chunk=4 compile=inductor", cwd=clone).stdout
    assert (
        line.split("step ")[1].strip()
        == "--profile 'demo' 'chunk=4' 'compile=inductor' --launch 'torchrun --nproc-per-node 2' train"
    )
    assert "--launch" not in make("-n", "train", cwd=clone).stdout


def test_own_video_and_own_scores(clone):
    line = make("-n", "score", "VIDEO=my clip.mp4", "CAUSAL=1", cwd=clone).stdout
    assert line.replace("\\\n", "").split("-m zsad_lib ")[1].split() == ["score", "--causal", "--", '"$VIDEO"']
    (clone / ".venv/bin/python").write_text('#!/bin/sh\nprintf "<%s>" "$@"\n')  # a name with quotes arrives as it is
    (clone / ".venv/bin/python").chmod(0o755)
    for target, name in (("score", "VIDEO"), ("explain", "VIDEO"), ("calibrate", "NORMAL")):
        shown = make(target, f"""{name}=it's "mine".mp4""", "RUN=a'b", "FPS=25", cwd=clone).stdout
        assert shown == f"""<-m><zsad_lib><{target}><--run><a'b><--fps><25><--><it's "mine".mp4>"""
    assert make("explain", "VIDEO=a", "AT=2.5", cwd=clone).stdout == "<-m><zsad_lib><explain><--at><2.5><--><a>"
    assert "--format 'parquet'" in make("-n", "score", "VIDEO=a", "FORMAT=parquet", cwd=clone).stdout
    assert "--allow-missing" in make("-n", "calibrate", "NORMAL=a", "ALLOW_MISSING=1", cwd=clone).stdout
    assert "zsad_lib step --profile 'demo'" in make("-n", "score", cwd=clone).stdout
    line = make("-n", "features", "VIDEOS=my clips", "SHARD=0/4", "ALLOW_MISSING=1", cwd=clone).stdout
    assert "-m zsad_lib features 'my clips'" in line and "--shard '0/4'" in line and "--allow-missing" in line
    assert "allow-missing" not in make("-n", "features", "VIDEOS=my clips", cwd=clone).stdout
    assert make("-n", "features", cwd=clone).stdout.split()[-2:] == ["features", "frame_features"]
    line = make("-n", "evaluate", "SCORES=a", "LABELS=b", cwd=clone).stdout
    assert line.replace("\\\n", "").split("-m zsad_lib ")[1].split() == ["evaluate", "'a'", "'b'"]
    assert (
        "step --profile 'ped2' 'JOBS=1' evaluate" in make("-n", "evaluate", "PROFILE=ped2", "JOBS=1", cwd=clone).stdout
    )


def test_tests_run_side_by_side_after_what_all_notebooks_need(clone):
    lines = make("-n", "test", cwd=clone).stdout.splitlines()
    suite, steps, grids, books = (next(i for i, line in enumerate(lines) if word in line)
                                  for word in ("doctest", "step --profile smoke tables", "zsad_lib ablate",
                                               "nbval"))  # fmt: skip
    assert suite < steps < grids < books
    assert all("-n auto --maxprocesses 4 --dist loadfile" in lines[i] for i in (suite, books))
    named = re.search(r"--grid (\S+)", lines[grids])[1].split(",")
    of_grids = {{"stream": "streams"}.get(name, name) for name in named}
    assert {path.stem[3:] for path in (ROOT / "notebooks").glob("*_ablate_*")} == {f"ablate_{x}" for x in of_grids}
    assert " -n 1 " in make("-n", "test", "JOBS=1", cwd=clone).stdout


def test_weights_and_what_clean_keeps(clone):
    line = make("-n", "weights", "PROFILE=ucf_crime", "WEIGHTS_ROOT=my weights", "CHECK=1", cwd=clone).stdout
    assert "-m zsad_lib weights --profile 'ucf_crime' --check" in line and "--root 'my weights'" in line
    assert "--check" not in make("-n", "weights", "CHECK=0", cwd=clone).stdout
    for name in ("cache/weights/a.pth", "cache/features/b", "runs/c"):
        (clone / name).mkdir(parents=True)
    assert make("clean", cwd=clone).returncode == 0
    assert (clone / "cache/weights/a.pth").is_dir()
    assert not (clone / "cache/features").exists() and not (clone / "runs").exists()


def test_touching_does_not_set_up_again_but_a_change_or_an_interruption_does(clone):
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        os.utime(clone / name)
    assert "set_up.py" not in make("-n", "data", cwd=clone).stdout
    text = (clone / "pyproject.toml").read_text()
    (clone / "pyproject.toml").write_text(text + "\n# lint settings only\n")
    assert "set_up.py" not in make("-n", "data", cwd=clone).stdout
    (clone / "pyproject.toml").write_text(text.replace("numpy>=", "numpy>"))
    assert "set_up.py" in make("-n", "data", cwd=clone).stdout
    (clone / "pyproject.toml").write_text(text)
    (clone / ".venv" / ".ready").unlink()
    assert "set_up.py" in make("-n", "data", cwd=clone).stdout


def test_a_missing_python_is_one_line(clone, tmp_path):
    (clone / ".venv" / ".ready").unlink()
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("bash", "make", "git", "sed", "cat", "pwd"):
        (tools / name).symlink_to(shutil.which(name))
    (tools / "python3").write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")  # too old, or too new for the lock's wheels
    (tools / "python3").chmod(0o755)
    result = make("env", cwd=clone, PATH=str(tools))
    assert result.returncode != 0 and "error: no Python 3.11 to 3.14 found" in result.stderr


@pytest.mark.parametrize(
    ("target", "option"), [("score VIDEO=a CAUSAL", "--causal"), ("pretrain HELD_OUT", "--held-out")]
)
def test_a_switch_at_0_is_off(clone, target, option):
    shown = {value: make("-n", *f"{target}={value}".split(), cwd=clone).stdout for value in (0, 1)}
    assert option in shown[1] and option not in shown[0]


def test_failing_recipe_fails_make(clone):
    (clone / ".venv" / "bin" / "python").write_text("#!/bin/sh\nexit 3\n")
    (clone / ".venv" / "bin" / "python").chmod(0o755)
    assert make("train", cwd=clone).returncode == 2


def test_lock_names_no_index_and_pins_with_hashes():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith((" ", "#"))]
    assert all("==" in line for line in pins) and not any("://" in line or line.startswith("-") for line in lines)
    assert sum("--hash=sha256:" in line for line in lines) >= len(pins)


ODD = """-it's "my" $HOME $(x) a`b`\\ c;d*.e"""  # of a path: all that a shell or make might read something into
ODD_TARGETS = [  # target, the variable that holds a path or a text, further ones
    *[("score", name, "VIDEO=v") for name in ("VIDEO", "RUN", "TRUTH", "CAPTIONS", "PROMPTS", "SCENE")],
    *[("explain", name, "VIDEO=v") for name in ("VIDEO", "RUN", "AT", "CAPTIONS", "PROMPTS", "SCENE")],
    *[("calibrate", name, "NORMAL=n") for name in ("NORMAL", "RUN", "CAPTIONS")],
    *[("live", name, "SOURCE=s") for name in ("SOURCE", "RUN", "CAPTIONS", "SCENE")],
    *[("evaluate", name, "SCORES=s", "LABELS=l") for name in ("SCORES", "LABELS", "NORMAL", "OUT")],
    *[("features", name, "VIDEOS=v") for name in ("VIDEOS", "WEIGHTS", "SHARD")],
    *[("weights", name) for name in ("PROFILE", "WEIGHTS_ROOT", "MIRROR")],
    *[
        (target, "DATA_ROOT")
        for target in ("data", "train", "floors", "cost", "report", "status", "ablate", "reproduce")
    ],
    *[("train", name) for name in ("PROFILE", "LAUNCH", "SPLIT")],
    *[("ablate", name) for name in ("GRID", "CLUSTER")],
]


@pytest.mark.parametrize("target, name, others", [(target, name, others) for target, name, *others in ODD_TARGETS])
def test_what_is_given_arrives_letter_by_letter(clone, target, name, others):
    (clone / ".venv/bin/python").write_text('#!/bin/sh\nprintf "<%s>" "$@"\n', encoding="utf-8")
    others = [one for one in others if not one.startswith(f"{name}=")]
    for environment in ({}, {name: ODD}):  # on the command line, and in the environment
        done = make(target, *others, *([] if environment else [f"{name}={ODD}"]), cwd=clone, **environment)
        assert done.returncode == 0, done.stderr
        assert f"{ODD}>" in done.stdout and re.search(r"[<=/]" + re.escape(ODD), done.stdout)


def test_a_newline_arrives_and_a_password_is_not_shown(clone):
    (clone / ".venv/bin/python").write_text('#!/bin/sh\nprintf "<%s>" "$@"\n', encoding="utf-8")
    named = {"score": "VIDEO", "explain": "VIDEO", "live": "SOURCE", "features": "VIDEOS", "calibrate": "NORMAL"}
    for target, name in named.items():
        assert "<two\nlines>" in make(target, f"{name}=two\nlines", cwd=clone).stdout
    assert "secret" not in make("-n", "live", "SOURCE=rtsp://admin:secret@10.0.0.5/live", cwd=clone).stdout


def test_what_is_given_is_never_run(clone, tmp_path):
    for target, name in (("score", "VIDEO"), ("live", "SOURCE"), ("data", "DATA_ROOT"), ("evaluate", "SCORES")):
        for value in (f"$(shell touch {tmp_path}/run)", f"`touch {tmp_path}/run`", f"'; touch {tmp_path}/run; '"):
            make(target, f"{name}={value}", cwd=clone)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("uid", "flag"), [("0", True), ("1000", False)])
def test_the_lab_starts_as_root_too_and_reaches_the_pages(clone, tmp_path, uid, flag):
    """JupyterLab refuses root without a word, and shows no file above its folder: notebooks link into docs."""
    fake = tmp_path / "bin" / "id"
    fake.parent.mkdir()
    fake.write_text(f"#!/bin/sh\necho {uid}\n", encoding="utf-8")
    fake.chmod(0o755)
    line = make("-n", "lab", cwd=clone, PATH=f"{fake.parent}:{os.environ['PATH']}").stdout
    assert ("--allow-root" in line) is flag and "--notebook-dir=. " in line and "/lab/tree/notebooks" in line
