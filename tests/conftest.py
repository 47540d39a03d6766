"""Fixtures that every test file may use."""

import hashlib
import http.server
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the suite was started in the background

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log):
    """Side by side, a file is tested by one worker, and so are all files that use one of the runs below: it is made
    once."""
    from xdist.scheduler import LoadFileScheduling

    class ByRun(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            text = (config.rootpath / file).read_text(encoding="utf-8")
            return next((run for run in ("tiny_run", "weak_run") if run in text), file)

    return ByRun(config, log)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """A parameter's id is a few plain words: of a text its first ones, of bytes and lambdas the argument's name."""
    if isinstance(val, bytes) or getattr(val, "__name__", "") == "<lambda>":
        return argname
    if isinstance(val, str) and not re.fullmatch(r"[\w.+-]{1,24}", val, re.ASCII):
        return "-".join(re.findall(r"\w+", val, re.ASCII)[:4])[:32] or argname
    return None


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with real footage and reference tensors beside the clone; tests that need it skip without it."""
    if not SHARED.is_dir():
        pytest.skip("no ../shared beside this clone (real footage and reference tensors)")
    return SHARED


@pytest.fixture
def annotations(shared: Path) -> Path:
    """The published annotation files of UCF-Crime."""
    folder = shared / "data" / "annotations"
    if not folder.is_dir():
        pytest.skip("no annotations of UCF-Crime in ../shared")
    return folder


@pytest.fixture
def run_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home: runs, data and cache of the test land in its temporary folder.

    Without bytecode: a module that a test rewrites within one second would be read from its old bytecode.
    """
    monkeypatch.setenv("ZSAD_HOME", str(tmp_path))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return tmp_path


@pytest.fixture
def process_ended() -> Callable[[int], bool]:
    """Tells whether a process is gone within seconds; one that nobody has reaped yet is gone too."""

    def ended(pid: int) -> bool:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                if Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z":
                    return True
            except (FileNotFoundError, ProcessLookupError):
                return True
            time.sleep(0.05)
        return False

    return ended


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory):
    """A whole run of the embedded benchmark, as small as it gets: (profile, run folder), all steps up to the scores
    done."""
    from zsad_lib.config import get_profile
    from zsad_lib.pipeline.run_step import ensure, run_folder

    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZSAD_HOME", str(home))
        clips = dict(train_clips=3, normal_clips=2, family_clips=1, stream_frames=150, before_frames=90)
        profile = get_profile("smoke", **clips, train_steps=4, seeds="0,1", jobs=1)
        ensure("score", profile)
        yield profile, run_folder(profile)


@pytest.fixture(scope="session")
def weak_run(tmp_path_factory: pytest.TempPathFactory):
    """A tiny run with its weakly supervised methods and tables: (profile, run folder)."""
    from zsad_lib.config import get_profile
    from zsad_lib.pipeline.run_step import ensure, run_folder

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZSAD_HOME", str(tmp_path_factory.mktemp("home")))
        sizes = dict(train_clips=3, normal_clips=2, family_clips=2, weak_clips=2, weak_epochs=2, streams=0)
        profile = get_profile("smoke", **sizes, train_steps=5, jobs=1)
        ensure("tables", profile)
        yield profile, run_folder(profile)


@pytest.fixture(scope="session")
def scored():
    """Frame scores -> a table as `score_video` gives it: 10 frames per second, one abnormal prompt."""
    import numpy as np
    import pandas as pd

    def table(score):
        n = len(score)
        frames = pd.DataFrame({"frame": np.arange(n), "time_s": np.arange(n) / 10, "score": np.asarray(score, float)})
        frames[["s_sem", "s_pred", "s_mem"]], frames["warmup"] = 0.5, False
        frames["caption"], frames["prompt"] = [f"caption {i}" for i in range(n)], "a fire burns"
        frames["p_prompt"] = frames["p(a fire burns)"] = 0.3
        frames.attrs = {"threshold": None, "statistics": dict.fromkeys(("s_sem", "s_pred", "s_mem"), (0.5, 0.1))}
        return frames

    return table


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves the server's `content` with Range and ETag; sends at most `limit` bytes of the body when that is set."""

    def do_GET(self):
        server = self.server
        server.ranges.append(self.headers.get("Range"))
        if self.path == "/absent":
            return self.send_error(404)
        start, tag = 0, hashlib.md5(server.content).hexdigest()
        if self.headers.get("Range") and self.headers.get("If-Range") == tag:
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
            if start >= len(server.content):
                return self.send_error(416)
            self.send_response(206)
            first = server.lie if server.lie is not None else start
            self.send_header("Content-Range", f"bytes {first}-{len(server.content) - 1}/{len(server.content)}")
        else:
            self.send_response(200)
        body = server.content[start:]
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", tag)
        self.end_headers()
        self.wfile.write(body[: server.limit])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    """A local web server; `ranges` lists what was asked, `limit` breaks off, `lie` answers with another range."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.content, server.limit, server.ranges, server.lie = b"", None, [], None
    server.url = f"http://127.0.0.1:{server.server_port}/data.bin"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()
