"""Reading foreign weight files safely: whatever a file claims to be, none of its code runs.

Pickles are programs. ``torch.load(weights_only=True)`` runs only what rebuilds tensors and plain containers, and
refuses a file that names any other class, as Lightning's checkpoints do in their hyper-parameters. Here such names
become inert stand-ins instead. TorchScript holds code by design: it is opened only when the file's hash is known.
"""

import _compat_pickle  # old names of modules, as pickle itself translates them
import io
import pickletools
import tarfile
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zsad_lib.errors import ZsadError
from zsad_lib.files.downloads import sha256_file

CHECKPOINT, TORCHSCRIPT, ZIP = "a PyTorch checkpoint", "a TorchScript archive", "a zip archive"  # of `describe_file`
LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # first bytes of a checkpoint before PyTorch 1.6
LEGACY_PICKLES = 4  # of which it consists before its tensors: magic number, version, system, content
ADVICE = ("Weights only", "Please file", "Check the")  # how torch's lines begin that tell to load it without protection
FIRST_BYTES = (
    (b"<!doctype html", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"version https://git-lfs", "a git-lfs pointer"),
    (b"pk\x03\x04", "an incomplete zip archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x80", "a pickle that PyTorch did not write"),
)


class Foreign(list):
    """Inert stand-in for an object of a class that only the file's author has: takes everything, keeps and does
    nothing."""

    def __init__(self, *_: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        pass

    __hash__ = object.__hash__  # it may be a key


class ForeignDict:
    """The same for subclasses of dict, which torch's unpickler fills only where they are its own."""

    def __new__(cls, *_: Any) -> OrderedDict:
        return OrderedDict()


def describe_file(path: str | Path) -> str:
    """What a file looks like, in words for a message: `CHECKPOINT`, `TORCHSCRIPT`, or what was taken for one.

    Raises:
        ZsadError: no such file, or one that cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        raise ZsadError(f"{path}: no such weights file; `make weights` fetches the official ones")
    try:
        with open(path, "rb") as file:
            head = file.read(512)
    except OSError as error:
        raise ZsadError(f"{path}: cannot read ({error.strerror}); make it readable or fetch it again") from error
    if zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as file:
                names = [name.rpartition("/")[2] for name in file.namelist() if not name.endswith("/")]
        except zipfile.BadZipFile:
            return "a damaged zip archive"
        if "data.pkl" in names:
            return TORCHSCRIPT if "constants.pkl" in names else CHECKPOINT
        return f"{ZIP} of {', '.join(names[:3]) or 'nothing'}{', ...' * (len(names) > 3)}"
    if head.startswith(LEGACY):
        return CHECKPOINT
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
        return "a safetensors file"
    for start, words in FIRST_BYTES:
        if head.lstrip().lower().startswith(start):
            return words
    if not head or tarfile.is_tarfile(path):
        return "a tar archive" if head else "an empty file"
    return f"an unknown file that begins with {head[:8]!r}"


def read_checkpoint(path: str | Path, sha256: str | None = None) -> Mapping[str, Any]:
    """The content of ``.pyth``, ``.pth``, ``.pth.tar``, ``.pt`` and ``.ckpt`` files, on the CPU.

    Args:
        path: a checkpoint of any PyTorch version, or a TorchScript archive, of which the state dict is taken.
        sha256: the file's known hash; without it a TorchScript archive stays closed.

    Returns:
        What was saved; objects of foreign classes are inert.

    Raises:
        ZsadError: another kind of file, a damaged one, one that cannot be read without running its code, or another
            hash.
    """
    import torch

    description = describe_file(path)
    if sha256 and (actual := sha256_file(path)) != sha256:
        raise ZsadError(f"{path}: sha256 is {actual}, expected {sha256}; move it away and run `make weights` again")
    if description == TORCHSCRIPT and not sha256:
        raise ZsadError(
            f"{path}: {TORCHSCRIPT} holds code and its sha256 is not known; `make weights` fetches verified ones"
        )
    if description not in (CHECKPOINT, TORCHSCRIPT):
        raise ZsadError(f"{path}: this is {description}, expected {CHECKPOINT}; move it away and fetch it again")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch.jit, deprecated, and of `encoding`, which does have its effect
            if description == TORCHSCRIPT:
                return torch.jit.load(path, map_location="cpu").state_dict()
            stubs = [(ForeignDict if name.lower().endswith("dict") else Foreign, name) for name in _names(path)]
            with torch.serialization.safe_globals(stubs):  # torch's own names come before these
                content = torch.load(path, map_location="cpu", weights_only=True, encoding="latin1")  # Python 2's texts
    except Exception as error:  # a damaged or hostile pickle fails in every way there is
        lines = [line for line in str(error).split("\n") if line.strip() and not line.startswith(ADVICE)]
        reason = lines[0] if lines else type(error).__name__
        raise ZsadError(
            f"{path}: damaged, or not readable without running its code ({reason}); fetch it again"
        ) from error
    if not isinstance(content, Mapping):
        raise ZsadError(
            f"{path}: holds {type(content).__name__}, expected a dictionary of tensors; fetch the official file"
        )
    return content


def _names(path: str | Path) -> set[str]:
    """All classes and functions that a checkpoint's pickle names, by Python 3's names; the pickle is read, not run."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as file:
            pickles = [io.BytesIO(file.read(name)) for name in file.namelist() if name.endswith("data.pkl")]
            arguments = [argument for pickle in pickles for argument in _globals(pickle)]
    else:
        with open(path, "rb") as file:
            arguments = [argument for _ in range(LEGACY_PICKLES) for argument in _globals(file)]
    names = set()
    for argument in arguments:
        module, _, name = argument.partition(" ")
        old = (_compat_pickle.IMPORT_MAPPING.get(module, module), name)
        names.add(".".join(_compat_pickle.NAME_MAPPING.get((module, name), old)))
    return names


def _globals(pickle: io.BufferedIOBase) -> list[str]:
    """Arguments "module name" of one pickle, up to its end."""
    return [argument for opcode, argument, _ in pickletools.genops(pickle) if opcode.name == "GLOBAL"]
