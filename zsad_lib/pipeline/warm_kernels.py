"""Notebook kernels that start with the libraries loaded: each is forked from a process that has imported them once.

A kernel is still a process of its own that shares nothing with another; only reading the libraries anew, most of what
a short notebook takes, is saved. On Linux alone: elsewhere a process with native libraries is not safe to fork.
"""

import contextlib
import functools
import importlib.metadata
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from zsad_lib.errors import optional
from zsad_lib.pipeline import kernel_server

with optional("notebooks"):
    from jupyter_client.provisioning import KernelProvisionerFactory, LocalProvisioner

# Of one kernel alone, and read after its start; all else in the environment is that of the process it is forked from.
OWN = {"ZSAD_NOTEBOOK", "PYTEST_CURRENT_TEST", "JPY_SESSION_NAME", "JPY_PARENT_PID"}
# Not pyplot and seaborn: the first import of pyplot asks IPython how to draw.
PRELOAD = (
    "ipykernel.kernelapp", "ipywidgets", "pandas", "pyarrow.parquet", "scipy.stats", "scipy.ndimage", "sklearn.metrics",
    "matplotlib.figure", "matplotlib.backends.backend_agg", "torch", "torchvision", "timm", "open_clip", "accelerate",
    "safetensors.torch", "joblib", "av",
)  # fmt: skip


def keep_kernels_warm(wanted: bool = True) -> None:
    """Whether Python kernels that this process starts from now on are forked; another provisioner asked for stays."""
    factory = KernelProvisionerFactory.instance()
    usual, ours = "local-provisioner", importlib.metadata.EntryPoint("warm", f"{__name__}:WarmProvisioner", "")
    if sys.platform == "linux" and factory.default_provisioner_name in (usual, ours.name):
        factory.provisioners[ours.name] = ours
        factory.default_provisioner_name = ours.name if wanted else usual


def pytest_configure() -> None:
    """With ``pytest -p zsad_lib.pipeline.warm_kernels``, nbval's kernels are forked."""
    keep_kernels_warm()


class WarmProvisioner(LocalProvisioner):
    """Forks ``python -m ipykernel_launcher``; starts anything else, and what cannot be forked, as usual."""

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> dict:
        try:
            self.process = ForkedKernel(cmd, **kwargs)
        except (OSError, ValueError):
            return await super().launch_kernel(cmd, **kwargs)
        self.pid = self.pgid = self.process.pid
        self.cwd = kwargs.get("cwd") or Path.cwd()
        return self.connection_info


class ForkedKernel:
    """What jupyter_client uses of a `subprocess.Popen`, for a kernel that is a child of the server.

    Raises:
        OSError: no server, or no kernel of it.
        ValueError: another command, or streams, than a forked kernel can have.
    """

    stdin = stdout = stderr = None

    def __init__(self, cmd: list[str], env: dict[str, str], cwd: str | None = None, **kwargs: Any):
        at = cmd.index("-m")
        if cmd[at + 1] != "ipykernel_launcher" or kwargs.get("independent"):
            raise ValueError(f"not to be forked: {cmd}")
        streams = [_descriptor(kwargs.get(name), default) for name, default in (("stdout", 1), ("stderr", 2))]
        request = json.dumps({"argv": cmd[at + 2 :], "env": dict(env), "cwd": cwd or os.getcwd()}).encode()
        shared = frozenset((name, value) for name, value in env.items() if name not in OWN)
        for _ in range(2):  # a server may have ended since it was used last
            self._told, asked = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with asked, contextlib.suppress(BrokenPipeError, ConnectionResetError):
                socket.send_fds(_server(tuple(cmd[:at]), shared), [request], [asked.fileno(), *streams])
            if pid := self._told.recv(32):
                break
            _server.cache_clear()
        else:
            raise OSError("the server of kernels ended")
        self.pid, self.returncode = int(pid), None

    def poll(self) -> int | None:
        if self.returncode is None:
            with contextlib.suppress(BlockingIOError):  # no word yet
                # without a word the server is gone, and its kernels with it
                self.returncode = int(self._told.recv(32, socket.MSG_DONTWAIT) or -signal.SIGKILL)
        return self.returncode

    def wait(self) -> int:
        while self.poll() is None:
            time.sleep(0.05)
        return self.returncode

    def send_signal(self, signum: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, signum)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


@functools.lru_cache(maxsize=1)
def _server(python: tuple[str, ...], shared: frozenset[tuple[str, str]]) -> socket.socket:
    """The channel to a process of this environment that has the libraries loaded; closing it ends that process."""
    channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        subprocess.Popen(
            [*python, kernel_server.__file__, str(theirs.fileno()), *PRELOAD],
            env=dict(shared),
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for whoever started it
        )
    return channel


def _descriptor(stream: Any, default: int) -> int:
    fd = default if stream is None else stream if isinstance(stream, int) else stream.fileno()
    if fd < 0:
        raise ValueError("a pipe")
    return fd
