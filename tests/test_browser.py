"""A reader before JupyterLab: the notebook runs, a control is moved, the picture changes. Run by `make
test-browser`."""

import json
import os
import sys
from pathlib import Path
from typing import NamedTuple

import nbformat
import pytest
from browser import Page, browser, find_browser, started, wait_for

pytestmark = pytest.mark.browser

FRAME = ("PROFILE = 'smoke'", "import zsad_lib as z\nrun = z.begin(globals())")
PICTURE = "document.querySelector('.jp-OutputArea-output img')?.src"
FAILED = """[...document.querySelectorAll(
    '[data-mime-type="application/vnd.jupyter.error"], [data-mime-type="application/vnd.jupyter.stderr"]'
)].map(output => output.textContent)"""


class Lab(NamedTuple):
    """A JupyterLab that is running."""

    url: str
    token: str
    folder: Path  # its notebooks


@pytest.fixture(scope="module")
def program() -> str:
    if (found := find_browser()) is None:
        pytest.skip("no Chromium or Chrome is installed (Debian, Ubuntu: apt install chromium)")
    return found


@pytest.fixture(scope="module")
def lab(program: str, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """One JupyterLab for the tests of this file, with settings, kernels' home and notebooks in a temporary folder."""
    home = tmp_path_factory.mktemp("lab")
    for name in ("config/labconfig", "runtime", "notebooks"):
        (home / name).mkdir(parents=True)
    server = {
        "root_dir": str(home / "notebooks"),
        "open_browser": False,
        "allow_root": True,
        "ip": "127.0.0.1",
        "port": 0,
    }
    app = {"expose_app_in_browser": True, "extension_manager": "readonly"}
    offline = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False}}
    (home / "config" / "jupyter_lab_config.json").write_text(json.dumps({"ServerApp": server, "LabApp": app}))
    (home / "config" / "labconfig" / "default_setting_overrides.json").write_text(json.dumps(offline))
    # what pytest sets would tell the kernel that nobody sits before the notebook
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    places = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_RUNTIME_DIR": "runtime", "JUPYTER_DATA_DIR": "data"}
    places |= {"JUPYTERLAB_WORKSPACES_DIR": "workspaces", "IPYTHONDIR": "ipython", "ZSAD_HOME": "kit"}
    environment |= {name: str(home / folder) for name, folder in places.items()}
    environment["PYTHONPATH"] = str(Path(__file__).resolve().parents[1])
    log = home / "lab.log"
    with started([sys.executable, "-m", "jupyterlab"], log, **environment) as process:

        def announced() -> dict | None:
            assert process.poll() is None, f"JupyterLab ended: {log.read_text()[-500:]}"
            files = list((home / "runtime").glob("jpserver-*.json"))
            return json.loads(files[0].read_text() or "null") if files else None

        info = wait_for(announced, "JupyterLab", 120)
        yield Lab(info["url"], info["token"], home / "notebooks")


@pytest.fixture
def page(program: str, tmp_path: Path, request: pytest.FixtureRequest) -> Page:
    """A page of a new browser; what it shows in the end goes to the folder ZSAD_SCREENSHOTS, where that is set."""
    with browser(program, tmp_path) as page:
        yield page
        if folder := os.environ.get("ZSAD_SCREENSHOTS"):
            page.screenshot(Path(folder) / f"{request.node.name}.png")


def run_notebook(page: Page, lab: Lab, name: str, *cells: str) -> None:
    """Writes a notebook, opens it and runs all of its cells, as a click on Run, Run All Cells does."""
    book = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    book.cells = [nbformat.v4.new_code_cell(cell) for cell in (*FRAME, *cells)]
    nbformat.write(book, lab.folder / f"{name}.ipynb")
    page.call("Page.navigate", url=f"{lab.url}lab/tree/{name}.ipynb?reset&token={lab.token}")
    notebook = "[...window.jupyterapp?.shell.widgets('main') ?? []].find(widget => widget.sessionContext)"
    kernel = f"{notebook}?.sessionContext.session?.kernel?.status === 'idle'"
    page.wait_for(kernel, "the notebook's kernel", 120)
    page.evaluate("jupyterapp.commands.execute('notebook:run-all-cells')")


def changed(picture: str) -> str:
    """Expression: there is a picture, and it is another one."""
    return f"(src => src && src !== {json.dumps(picture)})({PICTURE})"


def assert_nothing_failed(page: Page) -> None:
    """Neither in the kernel nor in the browser."""
    assert page.evaluate(FAILED) == []
    assert page.exceptions == []


def test_a_moved_slider_draws_again(page, lab):
    cell = """
def line(ax, slope):
    ax.plot([0, 1], [0, slope])
    ax.set(ylim=(0, 2), xlabel="x", ylabel="slope · x")

z.explore(line, slope=[0.5, 1.0, 2.0])"""
    run_notebook(page, lab, "slider", cell.strip())
    before = page.wait_for(f"{PICTURE} ?? {FAILED}[0]", "the first picture", 120)
    assert_nothing_failed(page)
    readout = "document.querySelector('.widget-slider .widget-readout').textContent"
    assert page.evaluate(readout) == "0.5"
    page.evaluate("document.querySelector('.widget-slider .noUi-handle').focus()")
    page.press("ArrowRight")
    page.wait_for(changed(before), "a picture that differs from the first")
    assert page.evaluate(readout) == "1"
    assert_nothing_failed(page)


def test_a_typed_sentence_draws_again(page, lab):
    cell = """
def written(on, prompt):
    on.subplots().set_title(prompt)

z.explore(written, (3.4, 2.0), panels=True, prompt=z.Text(["a man walks"]))"""
    run_notebook(page, lab, "text", cell.strip())
    before = page.wait_for(f"{PICTURE} ?? {FAILED}[0]", "the first picture", 120)
    assert_nothing_failed(page)
    page.evaluate("document.querySelector('.widget-text input').select()")
    page.call("Input.insertText", text="a fire burns")
    page.press("Enter")
    page.wait_for(changed(before), "a picture of the typed sentence")
    assert_nothing_failed(page)
