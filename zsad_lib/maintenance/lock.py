"""``make lock`` pins every library with its hashes; ``make lock-check`` tells what has become of the pins since."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from zsad_lib.errors import ZsadError
from zsad_lib.maintenance.set_up import LOCK, ROOT

PYPROJECT = ROOT / "pyproject.toml"
NEWEST = ROOT / "build" / "newest"  # environment and home of the trial with today's versions
OLDEST = "3.11"  # pins hold from this Python on
# One lock for every system and Python; extras stay, because conda's pip resolves while it installs.
STYLE = (
    "--universal", "--python-version", OLDEST, "--no-strip-extras", "--no-header", "--no-annotate",
    "--no-emit-index-url",
)  # fmt: skip
STRICT = '''"""Put there by `make lock-check`: what the kit's own lines call and a library gives up is an error here."""
import warnings

for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
    warnings.filterwarnings("error", category=category, module=r"(zsad_lib|data_prep)(\\.|$)")
'''


def write(upgrade: bool = False) -> None:
    """Writes the lock and prints which pins changed; `upgrade` takes the newest of everything."""
    before = pins(LOCK.read_text(encoding="utf-8")) if LOCK.is_file() else {}
    newest = ("--upgrade",) if upgrade else ()
    uv("pip", "compile", PYPROJECT, "--all-extras", *STYLE, *newest, "--generate-hashes", "--output-file", LOCK)
    changed = differences(before, pins(LOCK.read_text(encoding="utf-8")))
    print("\n".join([*changed, f"{LOCK.name}: written, {len(changed)} pins changed"]))


def check() -> int:
    """Prints what has become of the pins; 1 where one is yanked or gone, or today's versions do not pass."""
    pinned = pins(LOCK.read_text(encoding="utf-8"))
    faults = pins_today(pinned)
    print(
        "\n".join(faults) or f"{sum(map(len, pinned.values()))} pins: all there, none yanked, every hash still served"
    )
    newest = try_newest(pinned)
    print(newest)
    return 1 if faults or not newest.startswith("newest versions: pass") else 0


def pins(lock: str) -> dict[str, dict[str, tuple[str, set[str]]]]:
    """Package -> its pin as written (with extras and markers) -> (version, hashes).

    >>> pins("a[x]==1 ; os_name == 'nt' \\\\\\n    --hash=sha256:00\\n")
    {'a': {"a[x]==1 ; os_name == 'nt'": ('1', {'00'})}}
    """
    pinned: dict[str, dict[str, tuple[str, set[str]]]] = {}
    for block in re.findall(r"^\S.*(?:\n[ \t]+.*)*", lock, re.MULTILINE):
        line = block.splitlines()[0].rstrip(" \\")
        name, _, rest = line.partition("==")
        version = rest.partition(";")[0].strip()
        pinned.setdefault(name.partition("[")[0], {})[line] = version, set(re.findall(r"sha256:(\w+)", block))
    return pinned


def differences(before: dict, after: dict) -> list[str]:
    """A line for each package whose versions differ: ``name: old -> new``."""

    def versions(pinned: dict, name: str) -> str:
        return ", ".join(sorted({version for version, _ in pinned.get(name, {}).values()})) or "-"

    changes = {name: (versions(before, name), versions(after, name)) for name in sorted(before.keys() | after.keys())}
    return [f"{name}: {old} -> {new}" for name, (old, new) in changes.items() if old != new]


def pins_today(pinned: dict[str, dict[str, tuple[str, set[str]]]]) -> list[str]:
    """Asks the index for every pin: a line for each that is yanked, gone, or served with other files than locked."""
    folder = ROOT / "build" / "lock"
    folder.mkdir(parents=True, exist_ok=True)
    asked, answer, faults = folder / "pins.txt", folder / "today.txt", []
    lines = {line: name for name, entries in pinned.items() for line in entries}
    while True:
        asked.write_text("\n".join(lines) + "\n", encoding="utf-8")
        answer.unlink(missing_ok=True)
        options = ("--no-deps", *STYLE, "--generate-hashes", "--output-file", answer, "--refresh")
        try:
            messages = uv("pip", "compile", asked, *options)
            break
        except ZsadError as error:  # one pin at a time: the resolver stops at the first that is gone
            patterns = (r"no version of ([\w.-]+)", r"Because ([\w.-]+) was not found")
            gone = next(filter(None, (re.search(pattern, str(error)) for pattern in patterns)), None)
            if gone is None or gone[1] not in lines.values():
                raise
            served = f"the index serves {', '.join(pinned[gone[1]])} no more"
            faults.append(f"{gone[1]}: gone, {served}; `make lock UPGRADE=1`")
            lines = {line: name for line, name in lines.items() if name != gone[1]}
    for name, reason in re.findall(r"`([^`]+)` is yanked(?: \(reason: (.*?)\))?", messages):
        reason = reason or "no reason given"
        faults.append(f"{name}: yanked ({reason}); raise its bound in pyproject.toml, then `make lock`")
    today = pins(answer.read_text(encoding="utf-8"))
    for name, entries in today.items():
        served = set().union(*(hashes for _, hashes in entries.values()))
        locked = set().union(*(hashes for _, hashes in pinned[name].values()))
        if gone := locked - served:
            faults.append(f"{name}: {len(gone)} of {len(locked)} locked files are no longer served; `make lock`")
    return faults


def try_newest(pinned: dict) -> str:
    """Resolves pyproject.toml as of today, installs that apart from .venv and runs the smoke profile there.

    Returns:
        "newest versions: pass, ..." or "newest versions: FAIL, ..."; the newer versions are printed on the way.
    """
    python, wanted = NEWEST / "bin" / "python", NEWEST.with_suffix(".txt")
    shutil.rmtree(NEWEST, ignore_errors=True)
    NEWEST.parent.mkdir(parents=True, exist_ok=True)
    wanted.unlink(missing_ok=True)
    uv("pip", "compile", PYPROJECT, "--all-extras", *STYLE, "--output-file", wanted, "--refresh")
    changed = differences(pinned, pins(wanted.read_text(encoding="utf-8")))
    summary = f"{len(changed)} packages have other versions today; trying them in {NEWEST}"
    print("\n".join([*changed, summary]), flush=True)
    subprocess.run([sys.executable, "-m", "venv", NEWEST], check=True)
    uv("pip", "sync", "--python", python, wanted)
    uv("pip", "install", "--python", python, "--no-deps", "--no-build-isolation", "--editable", ROOT)
    site = next(NEWEST.glob("lib/python*/site-packages"))
    (site / "zsad_strict.py").write_text(STRICT, encoding="utf-8")
    (site / "zsad_strict.pth").write_text("import zsad_strict\n", encoding="utf-8")
    (NEWEST / ".ready").write_text("newest\n", encoding="utf-8")
    home = NEWEST / "home"
    command = ["make", "reproduce", "PROFILE=smoke", f"VENV={NEWEST.relative_to(ROOT)}", "ENV_MARK=newest"]
    status = subprocess.run(command, cwd=ROOT, env=os.environ | {"ZSAD_HOME": str(home)}, check=False).returncode
    warned = deprecations(home)
    if status or warned:
        fault = f"newest versions: FAIL, status {status}, {len(warned)} warnings of notebooks; see {home}"
        return "\n".join([*warned, fault])
    kept = "no deprecated call of the kit's own"
    return f"newest versions: pass, smoke ran with {len(changed)} other versions and {kept}"


def deprecations(home: Path) -> list[str]:
    """What executed notebooks below `home` were warned of: their kernels print such warnings and go on."""
    warnings, pattern = [], r'"([^"\n]*(?:Deprecation|Future)Warning: [^"\n]*)"'
    for path in sorted(home.glob("runs/*/notebooks/*.ipynb")):
        lines = set(re.findall(pattern, path.read_text(encoding="utf-8")))
        warnings += [f"{path.name}: {line}" for line in sorted(lines)]
    return warnings


def uv(*arguments: str | Path) -> str:
    """Runs uv and returns what it said; ZsadError with its words where it failed or is not there."""
    program = Path(sys.executable).with_name("uv")
    command = [str(program), "--no-config", "--color", "never", *map(str, arguments)]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=False)
    except FileNotFoundError:
        raise ZsadError(f"{program}: no uv here; `make env` installs it where it can be had") from None
    if done.returncode:
        raise ZsadError(f"uv {arguments[0]} {arguments[1]}: " + " ".join(done.stderr.split())[-600:])
    return done.stderr
