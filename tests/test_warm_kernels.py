"""Kernels forked from a process with the libraries loaded: fast to start, and in all else like any other kernel."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from jupyter_client.manager import start_new_kernel
from jupyter_client.provisioning import KernelProvisionerFactory

from zsad_lib.config import get_profile
from zsad_lib.errors import ZsadError
from zsad_lib.pipeline import run_notebooks, warm_kernels
from zsad_lib.pipeline.kernel_server import preload
from zsad_lib.pipeline.warm_kernels import PRELOAD

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kernels are forked on Linux alone")
LOOK = """import json, os, sys
print(json.dumps({
    "pid": os.getpid(), "server": os.getppid(), "group": os.getpgid(0), "name": os.environ["ZSAD_NOTEBOOK"],
    "cwd": os.getcwd(), "argv": sys.argv[0], "loaded": "mailbox" in sys.modules, "main": sorted(vars(sys.modules["__main__"])),
    "marked": hasattr(sys.modules.get("mailbox"), "mark") or "MARK" in os.environ,
    "drawn": __import__("numpy").random.rand(), "backend": os.environ["MPLBACKEND"],
}))"""  # fmt: skip # noqa: E501
MARK = (
    "import mailbox, os\nmailbox.mark = mark = 1\nos.environ['MARK'] = '1'\nos.chdir('/')\nimport sys; sys.argv[0] = ''"
)


@pytest.fixture
def run(run_home: Path, monkeypatch: pytest.MonkeyPatch):
    """(name, cells) -> what the last cell printed, as JSON; the server has two modules more than an ordinary kernel."""
    monkeypatch.setattr(warm_kernels, "PRELOAD", ("ipykernel.kernelapp", "mailbox", "numpy.random"))
    factory = KernelProvisionerFactory.instance()
    monkeypatch.setattr(factory, "default_provisioner_name", "local-provisioner")
    warm_kernels._server.cache_clear()
    warm_kernels.keep_kernels_warm()
    profile = get_profile("smoke")

    def execute(name: str, *cells: str) -> dict:
        book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        nbformat.write(book, run_home / f"{name}.ipynb")
        run_notebooks._folder(Path(name), profile).mkdir(parents=True, exist_ok=True)
        run_notebooks._papermill(run_home / f"{name}.ipynb", run_home / f"{name}.out.ipynb", profile)
        return json.loads(nbformat.read(run_home / f"{name}.out.ipynb", 4).cells[-1].outputs[-1].text)

    yield execute
    warm_kernels._server.cache_clear()


def test_two_notebooks_share_the_libraries_and_nothing_else(run):
    first, second = run("00_first", MARK, LOOK), run("01_second", LOOK)
    assert first["loaded"] and second["loaded"] and first["server"] == second["server"] != os.getpid()
    assert first["pid"] == first["group"] != second["pid"] and first["drawn"] != second["drawn"]
    assert first["marked"] and not second["marked"]
    assert "mark" in first["main"] and "mark" not in second["main"]
    assert second["argv"].endswith("ipykernel_launcher.py") and second["cwd"] != "/" and second["name"] == "01_second"
    assert second["backend"] == "module://matplotlib_inline.backend_inline"


def test_a_server_that_ended_is_started_again(run):
    first = run("00_first", LOOK)
    os.kill(first["server"], signal.SIGKILL)
    assert run("01_second", LOOK)["server"] != first["server"]


def test_without_a_server_kernels_start_as_usual(run, monkeypatch, tmp_path):
    monkeypatch.setattr(warm_kernels.kernel_server, "__file__", str(tmp_path / "absent.py"))
    seen = run("00_first", LOOK)
    assert seen["server"] == os.getpid() and not seen["loaded"]


def test_what_goes_wrong_is_told_as_ever(run, run_home):
    with pytest.raises(ZsadError, match="00_first: its kernel died, most often because memory ran out"):
        run("00_first", "import os\nos.write(2, b'last words')\nos._exit(9)")
    log = run_notebooks._folder(Path("00_first"), get_profile("smoke")) / "kernel.log"
    assert "last words" in log.read_text(encoding="utf-8")
    with pytest.raises(ZsadError, match="ValueError: mine .01_second, cell 1; see"):
        run("01_second", "raise ValueError('mine')")


def test_a_kernel_ends_with_a_signal_or_with_who_asked_for_it(run, process_ended):
    manager, client = start_new_kernel(env={**os.environ, "ZSAD_NOTEBOOK": ""})
    sleeping = client.execute("print('begun', flush=True)\nimport time\ntime.sleep(60)")
    while client.get_iopub_msg(timeout=20)["msg_type"] != "stream":
        pass
    manager.interrupt_kernel()
    reply = client.get_shell_msg(timeout=20)
    assert reply["parent_header"]["msg_id"] == sleeping and reply["content"]["ename"] == "KeyboardInterrupt"
    process = manager.provisioner.process
    assert process.poll() is None
    client.stop_channels()
    manager.shutdown_kernel(now=True)
    assert process_ended(process.pid) and process.wait() == -signal.SIGKILL
    code = "\n".join([
        "from jupyter_client.manager import start_new_kernel",
        "from zsad_lib.pipeline import warm_kernels as w; import os; w.PRELOAD = ('ipykernel.kernelapp',)",
        "w.keep_kernels_warm(); manager, client = start_new_kernel(); pid = manager.provisioner.process.pid",
        "stat = open(f'/proc/{pid}/stat').read(); print(pid, stat.rpartition(')')[2].split()[1], flush=True)",
        "os.abort()",
    ])  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGABRT, done.stderr
    assert all(process_ended(int(pid)) for pid in done.stdout.split())


def test_only_a_process_with_several_notebooks_ahead_loads_for_all(run, run_home, monkeypatch):
    asked = []
    provisioner = KernelProvisionerFactory.instance()
    monkeypatch.setattr(run_notebooks, "_run", lambda *_: asked.append(provisioner.default_provisioner_name))
    monkeypatch.setattr(run_notebooks, "is_current", lambda *_: False)
    monkeypatch.setattr(run_notebooks.run_step, "import_function", lambda name: lambda folder: None)
    for number in range(2):
        (run_home / f"{number}.ipynb").write_text('{"cells": []}')
    for count in (1, 2, 1):
        run_notebooks.execute([run_home / f"{n}.ipynb" for n in range(count)], get_profile("smoke", jobs=1))
    assert asked == ["local-provisioner", "warm", "warm", "local-provisioner"]


def test_other_commands_systems_and_provisioners_stay_as_they_are(run, monkeypatch):
    for cmd, more in ((["julia", "-m", "x"], {}), (["python", "kernel.py"], {}),
                      (["python", "-m", "ipykernel_launcher"], {"stderr": subprocess.PIPE})):  # fmt: skip
        with pytest.raises(ValueError):
            warm_kernels.ForkedKernel(cmd, env={}, **more)
    factory = KernelProvisionerFactory.instance()
    factory.default_provisioner_name = "local-provisioner"
    monkeypatch.setattr(sys, "platform", "darwin")
    warm_kernels.keep_kernels_warm()
    assert factory.default_provisioner_name == "local-provisioner"
    monkeypatch.setattr(sys, "platform", "linux")
    factory.default_provisioner_name = "mine"
    warm_kernels.keep_kernels_warm()
    assert factory.default_provisioner_name == "mine"


@pytest.mark.parametrize(
    "modules",
    [("ipykernel.kernelapp", "pandas", "matplotlib.figure"), pytest.param(PRELOAD, marks=pytest.mark.thorough)],
    ids=["some", "all"],
)
def test_loading_the_libraries_leaves_a_fork_like_a_kernel(modules):
    """Pandas takes no terminal for granted, and nobody has asked for a GPU, which a fork could not use then."""
    code = f"""
import os, sys
from zsad_lib.pipeline.kernel_server import preload
preload({modules})
if os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
import pandas, tqdm.auto, tqdm.notebook, matplotlib
assert pandas.get_option("display.max_columns") == 20 and pandas.get_option("display.encoding") == "UTF-8"
assert matplotlib.rcParams["backend"] == "module://matplotlib_inline.backend_inline"
assert issubclass(tqdm.auto.tqdm, tqdm.notebook.tqdm)
if "torch" in {modules}:
    import torch
    assert not torch.cuda._is_in_bad_fork() and not torch.cuda.is_initialized()
assert not {{"zsad_lib.config", "matplotlib.pyplot", "seaborn", "data_prep"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_nobody_who_wants_a_kernel_any_more_gives_the_memory_back():
    code = "import socket; from zsad_lib.pipeline import kernel_server as k; k.IDLE_S = 0.2; a, b = socket.socketpair()"
    code += "; k.serve(a); print('a fork')"
    assert subprocess.run([sys.executable, "-c", code], timeout=20, check=False).returncode == 0


def test_what_is_not_installed_is_left_out(monkeypatch):
    monkeypatch.setattr("sys.stdout", open(os.devnull, "w", encoding="utf-8"))
    monkeypatch.setenv("JPY_PARENT_PID", "")
    monkeypatch.setenv("MPLBACKEND", "agg")
    preload(["no_such_module", "mailbox"])
    assert "mailbox" in sys.modules and os.environ["MPLBACKEND"] == "agg"
