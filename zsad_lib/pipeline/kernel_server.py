"""A script that loads what notebooks import, once, and then forks a kernel for each request of `warm_kernels`.

It imports nothing of the kit, whose code each kernel reads when its notebook imports it, and ends when the process
that started it is gone, or nobody wants a kernel any more. Its kernels end with it.
"""

import builtins
import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import socket
import sys
import time
import types
import warnings

IDLE_S = 30.0  # a started computation needs the memory more


def preload(modules: list[str]) -> None:
    """Imports what is installed of `modules`, in a state like that of a kernel: some look around as they are imported.

    ipykernel asks for the process to end with, matplotlib for the backend, pandas for a terminal's width and encoding.
    """
    os.environ["JPY_PARENT_PID"] = str(os.getpid())
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    sys.stdout.reconfigure(encoding="UTF-8")
    builtins.get_ipython = lambda: types.SimpleNamespace(kernel=None)
    for module in modules:
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    del builtins.get_ipython
    gc.collect()
    gc.freeze()  # a collection in a kernel would write to, and so copy, every page


def serve(channel: socket.socket) -> None:
    """Forks until `channel` ends; returns in each kernel, as far as a fresh ``python -m ipykernel_launcher`` would be.

    A request is one message: the kernel's arguments, environment and folder as JSON, with three descriptors: a socket
    that is told the kernel's process id and later its exit status, and the kernel's stdout and stderr.
    """
    kernels: dict[int, socket.socket] = {}
    used = time.monotonic()
    while True:
        if select.select([channel], [], [], 0.05)[0]:
            message, fds, *_ = socket.recv_fds(channel, 1 << 20, 3)
            if not message:
                os._exit(0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # the one other thread, jemalloc's, is safe to fork
                pid = os.fork()
            if not pid:
                break
            kernels[pid] = socket.socket(fileno=fds[0])
            for fd in fds[1:]:
                os.close(fd)
        for pid in list(kernels):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                with kernels.pop(pid) as asked, contextlib.suppress(OSError):  # who asked may be gone
                    asked.send(str(os.waitstatus_to_exitcode(status)).encode())
        used = time.monotonic() if kernels else used
        if time.monotonic() - used > IDLE_S:
            os._exit(0)
    for opened in (channel, *kernels.values()):
        opened.close()
    _become(json.loads(message), *fds)


def _become(request: dict, asked: int, stdout: int, stderr: int) -> None:
    os.setsid()
    for fd, place in ((stdout, 1), (stderr, 2)):
        os.dup2(fd, place)
        os.close(fd)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"], JPY_PARENT_PID=str(os.getppid()))
    sys.argv[1:] = request["argv"]
    if not sys.flags.safe_path:
        sys.path.insert(0, os.getcwd())
    if "numpy.random" in sys.modules:  # Python's own generator is seeded anew by the fork
        sys.modules["numpy.random"].seed()
    if "torch" in sys.modules:
        sys.modules["torch"].default_generator.seed()
    with socket.socket(fileno=asked) as told:
        told.send(str(os.getpid()).encode())


if __name__ == "__main__":
    sys.path[:] = [path for path in sys.path if path != os.path.dirname(os.path.abspath(__file__))]
    preload(sys.argv[2:])
    serve(socket.socket(fileno=int(sys.argv[1])))
    runpy.run_module("ipykernel_launcher", run_name="__main__", alter_sys=True)
