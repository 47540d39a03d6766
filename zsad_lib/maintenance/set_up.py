"""``make env``: makes ``.venv`` hold what ``requirements.lock`` holds, no more and no other version, every hash
checked.

Nothing is resolved here: the lock is complete (a test proves it), so that a release of tomorrow cannot change or break
a set-up. uv does it fast; it is pinned in the lock like the rest and brought by pip. Where uv cannot be had pip does
the same.

With ``CPU=1`` the libraries for GPUs stay out, and torch comes as its own build for CPUs. That build is another file
than the lock's, so it carries no hash here: it is taken from the index that the user's own pip settings name.

Runs on the machine's own Python, before anything is installed: standard library alone.
"""

import argparse
import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "requirements.lock"
QUIET = ("-q", "--disable-pip-version-check", "--no-deps", "--retries", "2")
PIP = ("install", *QUIET, "--no-compile")
EXACT = ("--require-hashes", "--only-binary", ":all:")  # a source archive would fetch what it is built with
# GB to download and GB on disk, at most: measured in November 2026 on Linux x86_64 with Python 3.11; every page and
# message that tells them is held to these.
SIZES = {"gpu": (3.4, 6.7), "cpu": (1.0, 2.4)}
GPU_LIBRARIES = r"nvidia-|cuda-|triton$"  # names of what a build of torch for GPUs alone loads
CPU_BUILDS = ("torch", "torchvision")  # whose versions for CPUs end in +cpu
# A user's own settings for pip would install elsewhere than into .venv, or more than the lock holds.
NOT_HERE = (
    "PYTHONHOME", "PYTHONPATH", "PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_CONSTRAINT", "VIRTUAL_ENV",
)  # fmt: skip
REASONS = (  # what a log holds -> what is wrong, and what helps
    (r"No space left on device|os error 28", f"the disk is full; it takes {SIZES['gpu'][1]} GB"),
    (
        r"(?i)hash mismatch|do not match the hashes",
        "what the index or the cache holds is not what requirements.lock names; empty the cache or ask another mirror",
    ),
    (
        r"(?i)name resolution|NewConnectionError|connection (refused|reset|timed out|broken)|network is unreachable"
        r"|dns error|timed? ?out|error sending request|ProxyError|failed to fetch|Max retries",
        "no connection to the package index; connect, or name a mirror in PIP_INDEX_URL",
    ),
    (
        r"No matching distribution found for \S+\+cpu",
        "no index here has this build for CPUs; name one that has in PIP_EXTRA_INDEX_URL, or leave CPU=1 out"
        " (the other build runs without a GPU too)",
    ),
    (r"No matching distribution|no usable wheels", f"no such file for Python {sys.version.split()[0]} on this machine"),
)


class Failed(Exception):
    """A command of the set-up that ended with an error; its text is the command's output."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a line per stage and returns 0, or 1 after one line that says what is missing, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="set_up.py", description="Install the pinned libraries and the kit.")
    parser.add_argument("--folder", type=Path, default=ROOT / ".venv", help="environment to make; default: .venv")
    parser.add_argument("--mark", default="", help="content of the stamp that says: up to date")
    parser.add_argument("--cpu", action="store_true", help="leave the libraries for GPUs out")
    parser.add_argument("--with", dest="installer", choices=("uv", "pip"), default="uv", help="default: uv, else pip")
    options = parser.parse_args(arguments)
    start = time.monotonic()
    try:
        with _alone():
            stamp = options.folder / ".ready"
            made = stamp.read_text(encoding="utf-8").strip() if stamp.is_file() else ""
            if options.mark and made == options.mark and python_of(options.folder).exists():
                return 0  # by another process while this one waited
            set_up(options.folder, options.installer, options.cpu)
            stamp.write_text(options.mark + "\n", encoding="utf-8")
    except Failed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: set-up: {error.filename or options.folder}: {error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("set-up: interrupted; the same command starts it again", file=sys.stderr)
        return 130
    print(f"set-up: done in {time.monotonic() - start:.0f} s")
    return 0


def set_up(folder: Path, installer: str = "uv", cpu: bool = False) -> str:
    """Makes the environment `folder` anew and returns who installed: "uv", or "pip" where uv could not be had.

    With `cpu` the libraries for GPUs stay out; whether an index has torch for CPUs is found out before anything else
    is fetched.

    Raises:
        Failed: one line on what is missing.
    """
    version = ".".join(map(str, sys.version_info[:3]))
    print(f"set-up: Python {version} into {folder.name}; {tell_size(cpu)}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        raise Failed(f"{folder}: cannot be removed; remove it by hand")
    try:
        run(sys.executable, "-m", "venv", str(folder))
    except Failed as error:
        shutil.rmtree(folder, ignore_errors=True)
        if "ensurepip" in str(error):
            remedy = "install it: apt install python3-venv"
            raise Failed(f"{sys.executable} cannot make a virtual environment (no ensurepip); {remedy}") from None
        raise Failed(f"set-up: {explain_log(str(error))}") from None
    python = python_of(folder)
    lock, builds, pins = LOCK, [], LOCK.read_text(encoding="utf-8")
    try:
        if cpu:
            pins, names = choose_cpu_builds(pins)
            print(f"set-up: fetching {' and '.join(names)}", flush=True)
            run(str(python), "-m", "pip", "download", *QUIET, *EXACT[1:], "-d", str(folder / "cpu"), *names)
            lock, builds = folder / "cpu.lock", sorted(map(str, (folder / "cpu").iterdir()))
            lock.write_text(pins, encoding="utf-8")
        count = len(re.findall(r"^[\w.-]+.*==", pins, re.MULTILINE))
        print(f"set-up: installing what the lock holds of {count} pins", flush=True)
        if installer == "uv":
            try:
                _by_uv(python, lock)
            except Failed as error:
                print(f"set-up: without uv ({explain_log(str(error))}); pip does it, slower", flush=True)
                installer = "pip"
        if installer == "pip":
            run(str(python), "-m", "pip", *PIP, *EXACT, "-r", str(lock))
        if builds:
            run(str(python), "-m", "pip", *PIP, "--no-index", *builds)
            shutil.rmtree(folder / "cpu")
        # The kit itself, as a link to this folder. setuptools is in the lock: nothing is fetched to build it.
        run(str(python), "-m", "pip", *PIP, "--no-index", "--no-build-isolation", "--editable", str(ROOT))
    except Failed as error:
        log = folder / "set-up.log"
        log.write_text(str(error), encoding="utf-8")
        raise Failed(f"set-up: {explain_log(str(error))} (log: {log})") from None
    return installer


def python_of(folder: Path) -> Path:
    """The Python of the environment `folder`."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def tell_size(cpu: bool = False) -> str:
    """What a set-up fetches and takes, in words."""
    download, disk = SIZES["cpu" if cpu else "gpu"]
    libraries = "GPU libraries left out" if cpu else "two thirds of it GPU libraries (CPU=1 leaves them out)"
    return f"at most {download} GB to download, what is cached is not fetched again, and {disk} GB on disk, {libraries}"


def choose_cpu_builds(lock: str) -> tuple[str, list[str]]:
    """`lock` without torch and what only GPUs need, and the builds for CPUs that take torch's place.

    >>> choose_cpu_builds("a==1 --hash=x\\ntorch==2.1 \\\\\\n    --hash=y\\ntriton==3 --hash=z\\n")
    ('a==1 --hash=x\\n', ['torch==2.1+cpu'])
    """
    kept, builds = [], []
    for found in re.finditer(r"^([\w.-]+)(?:\[[^]]*\])?==([\w.]+).*\n(?:[ \t]+.*\n)*", lock, re.MULTILINE):
        if found[1] in CPU_BUILDS:
            builds.append(f"{found[1]}=={found[2]}+cpu")
        elif not re.match(GPU_LIBRARIES, found[1]):
            kept.append(found[0])
    return "".join(kept), builds


def _by_uv(python: Path, lock: Path) -> None:
    """Installs uv at its pin, then everything else that `lock` holds with it."""
    wanted = python.parent.parent / "uv.lock"
    wanted.write_text(pin("uv", LOCK.read_text(encoding="utf-8")), encoding="utf-8")
    run(str(python), "-m", "pip", *PIP, *EXACT, "-r", str(wanted))
    mirror = next(iter(re.findall(r"(?m)^\S*\.index-url='(.*)'$", run(str(python), "-m", "pip", "config", "list"))), "")
    settings = {"UV_DEFAULT_INDEX": mirror} if mirror and "UV_DEFAULT_INDEX" not in os.environ else {}
    uv = python.with_name("uv" + python.suffix)
    # Into a terminal uv draws its bars itself; what goes wrong there pip's line will tell.
    run(str(uv), "--no-config", "pip", "sync", *EXACT, "--python", str(python), str(lock), bars=True, **settings)


def pin(name: str, lock: str) -> str:
    """The lines of `lock` that pin the package `name`, with its hashes.

    >>> pin("b", "a==1 --hash=x\\nb[c]==2 \\\\\\n    --hash=y\\nd==3\\n")
    'b[c]==2 \\\\\\n    --hash=y\\n'

    Raises:
        Failed: the lock does not hold it.
    """
    if found := re.search(rf"^{re.escape(name)}(\[[^]]*\])?==.*\n(?:[ \t]+.*\n)*", lock, re.MULTILINE):
        return found[0]
    raise Failed(f"requirements.lock holds no {name}")


def explain_log(log: str) -> str:
    """One line on what a failed command's output means: the package, the reason, the remedy.

    >>> explain_log("ERROR: No matching distribution found for timm==1.0.31\\nConnectionError: Name resolution failed")
    'timm==1.0.31: no connection to the package index; connect, or name a mirror in PIP_INDEX_URL'
    """
    named = re.search(r"found for ([\w.\[\]-]+==[\w.+]+)|(?:Failed to \w+|mismatch for):? `([^`]+)`", log)
    named = named or re.search(r"/simple/([\w.-]+)/", log)
    name = next(filter(None, named.groups()), "") if named else ""
    last = next((line.strip() for line in reversed(log.splitlines()) if line.strip()), "no word why")
    reason = next((reason for pattern, reason in REASONS if re.search(pattern, log)), last)
    return f"{name}: {reason}" if name else reason


def run(*command: str, bars: bool = False, **settings: str) -> str:
    """Runs a command to its end and returns its output; with `bars` a terminal sees its errors and progress at once.

    Raises:
        Failed: it ended with an error; the text is its output.
    """
    environment = {name: value for name, value in os.environ.items() if name not in NOT_HERE} | settings
    straight = bars and sys.stderr.isatty()
    try:
        done = subprocess.run(
            command, env=environment, encoding="utf-8", errors="replace", close_fds=False, check=False,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=None if straight else subprocess.STDOUT,
        )  # fmt: skip
    except OSError as error:
        raise Failed(f"{command[0]}: {error.strerror or error}") from None
    if done.returncode:
        raise Failed(done.stdout.strip() or f"{Path(command[0]).name} ended with status {done.returncode}")
    return done.stdout


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """One set-up at a time in this folder: a second one waits. Where there are no file locks (Windows) it does not."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    folder = os.open(ROOT, os.O_RDONLY)
    os.set_inheritable(folder, True)  # pip and uv hold it too: what a killed set-up started ends before the next begins
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("set-up: another one is at work in this folder; waiting for it", flush=True)
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


if __name__ == "__main__":
    sys.exit(main())
