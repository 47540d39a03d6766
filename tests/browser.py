"""A real browser for tests: Chromium without a window, led through its DevTools protocol.

Protocol: https://chromedevtools.github.io/devtools-protocol/. Only what a reader of a notebook does: look, focus, press
a key.
"""

import base64
import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

# DOM name -> code of the key, what it types
KEYS = {"ArrowRight": (39, ""), "ArrowLeft": (37, ""), "Enter": (13, "\r")}


def find_browser() -> str | None:
    """Path of an installed Chromium or Chrome, or None."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    return next(filter(None, map(shutil.which, names)), None)


def wait_for(probe: Callable[[], Any], what: str, seconds: float) -> Any:
    """The first true answer of `probe`; an AssertionError that names `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (answer := probe()):
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain for {what}"
        time.sleep(0.1)
    return answer


@contextlib.contextmanager
def started(command: Sequence[str], log: Path, **environment: str) -> Iterator[subprocess.Popen]:
    """A process with all it starts, in a group of its own that is ended with the block; its output goes to `log`."""
    with open(log, "wb") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield process
    finally:
        process.terminate()  # JupyterLab ends its kernels, which have groups of their own
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class Page:
    """One page of a browser.

    Attributes:
        exceptions: what JavaScript threw and nobody caught, so far.
    """

    def __init__(self, address: str):
        import websocket

        self._socket = websocket.create_connection(address, timeout=60, suppress_origin=True)
        self._number, self.exceptions = 0, []
        self.call("Page.enable")
        self.call("Runtime.enable")
        self.call("Emulation.setFocusEmulationEnabled", enabled=True)  # else no window without a screen has the focus

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol and its answer; the events that come before it are looked through."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("method") == "Runtime.exceptionThrown":
                details = message["params"]["exceptionDetails"]
                self.exceptions.append(details.get("exception", {}).get("description", details["text"]))
            if message.get("id") == self._number:
                assert "error" not in message, f"{method}: {message['error']['message']}"
                return message["result"]

    def evaluate(self, expression: str) -> Any:
        """Value of a JavaScript expression, with the value of a promise waited for."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, f"{expression}: {answer['exceptionDetails']}"
        return answer["result"].get("value")

    def wait_for(self, expression: str, what: str, seconds: float = 30) -> Any:
        """The first true value of `expression`."""
        return wait_for(lambda: self.evaluate(expression), what, seconds)

    def press(self, key: str) -> None:
        """A key pressed and released, where the focus is, as the keyboard would do."""
        code, typed = KEYS[key]
        for kind, text in (("keyDown", typed), ("keyUp", "")):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, text=text)

    def screenshot(self, path: Path) -> None:
        """Writes what the page shows as PNG."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))


@contextlib.contextmanager
def browser(program: str, folder: Path) -> Iterator[Page]:
    """An empty page of a new browser, whose profile and log lie in `folder`; it reaches this machine alone."""
    # Chromium refuses its sandbox to root, and shares little memory in a container.
    options = f"""--headless=new --no-sandbox --disable-dev-shm-usage --disable-gpu --no-first-run
        --disable-background-networking --window-size=1280,1150 --remote-debugging-port=0 --user-data-dir={folder}"""
    offline = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    command = [program, *options.split(), offline, "about:blank"]
    port_file, log = folder / "DevToolsActivePort", folder / "browser.log"
    with started(command, log, **os.environ) as process:

        def port() -> str | None:
            assert process.poll() is None, f"{program} ended: {log.read_text()[-500:]}"
            return port_file.read_text().partition("\n")[0] if port_file.is_file() else None

        pages = f"http://127.0.0.1:{wait_for(port, 'the browser', 60)}/json/list"

        def first() -> str | None:
            with urllib.request.urlopen(pages, timeout=10) as answer:
                found = [page["webSocketDebuggerUrl"] for page in json.load(answer) if page["type"] == "page"]
            return found[0] if found else None

        yield Page(wait_for(first, "an empty page", 30))
