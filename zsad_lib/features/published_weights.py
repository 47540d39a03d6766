"""Published weights: where they are, under which licence, which hash they have, and what each profile needs.

Files lie in ``cache/weights`` or in a folder of one's own (``WEIGHTS_ROOT``), under their official names. A published
sha256 is always checked. Where there is none, the hash of the first file that proved to hold the right model is kept in
``cache/weights/sha256.json``, beside no matter which folder, and every later file must have it.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zsad_lib.config import PROFILES
from zsad_lib.errors import ZsadError
from zsad_lib.features.load_published import Report, load_into, tensors_of
from zsad_lib.files import paths
from zsad_lib.files.downloads import fetch as download
from zsad_lib.files.downloads import sha256_file, unpack
from zsad_lib.files.foreign_checkpoints import CHECKPOINT, TORCHSCRIPT, ZIP, describe_file
from zsad_lib.models.names import choose

if TYPE_CHECKING:
    from torch import nn


@dataclasses.dataclass(frozen=True)
class Weight:
    """One published file."""

    model: str  # class that it fills
    file: str  # official name
    licence: str
    homepage: str  # where its authors link to it
    urls: tuple[str, ...] = ()  # direct addresses; none: by hand
    sha256: str | None = None  # as published
    archive: str = ""  # the addresses give an archive of this name, somewhere in which `file` lies
    openai: str = ""  # architecture of open_clip, which knows address and hash


def _drive(key: str) -> tuple[str, ...]:
    """Google Drive's address of a file itself; its usual one shows a page."""
    return (f"https://drive.usercontent.google.com/download?id={key}&export=download&confirm=t",)


def _anomaly_clip(folder: str) -> Weight:
    page, urls = "https://github.com/lucazanella/AnomalyCLIP", _drive("1kgifxpoVn6EwZUIbZ0DbA8zI88aaVPV3")
    return Weight("AnomalyCLIP", f"{folder}/last.ckpt", "none stated", page, urls, archive="anomaly_clip.zip")


def _clip(architecture: str) -> Weight:
    return Weight("CLIP", f"{architecture}.pt", "MIT", "https://github.com/openai/CLIP", openai=architecture)


CATALOGUE = {
    "timesformer": Weight(
        "TimeSformer",
        "TimeSformer_divST_8x32_224_K400.pyth",
        "CC BY-NC 4.0: no commercial use",
        "https://github.com/facebookresearch/TimeSformer",
        ("https://www.dropbox.com/s/g5t24we9gl5yk88/TimeSformer_divST_8x32_224_K400.pyth?dl=1",),
    ),
    "dpc": Weight(
        "DPC",
        "k400_224_r34_dpc-rnn_runningStats.pth.tar",
        "MIT (code); none stated for the weights",
        "https://github.com/TengdaHan/DPC",
        _drive("1-WpsKzPNmSWuzoF2_qVfvfLOE1fwWD4x"),
    ),
    "places365": Weight(
        "SceneEncoder",
        "resnet18_places365.pth.tar",
        "CC BY",
        "https://github.com/CSAILVision/places365",
        ("http://places2.csail.mit.edu/models_places365/resnet18_places365.pth.tar",),
    ),
    "clip_vit_b32": _clip("ViT-B-32"),
    "clip_vit_b16": _clip("ViT-B-16"),
    "anomaly_clip_ucf_crime": _anomaly_clip("ucfcrime"),
    "anomaly_clip_shanghaitech": _anomaly_clip("shanghaitech"),
    "anomaly_clip_xd_violence": _anomaly_clip("xdviolence"),
}
STREAMS = ("timesformer", "dpc", "places365", "clip_vit_b32", "clip_vit_b16")
NEEDED = {  # by profile; all others use the stand-ins
    profile: (*STREAMS, f"anomaly_clip_{profile}") for profile in ("ucf_crime", "shanghaitech", "xd_violence")
}
NEEDED["camera"] = ("clip_vit_b16", "places365", "dpc", "timesformer")  # one's own videos; see `camera_streams`


def weight(name: str) -> Weight:
    """The entry of `CATALOGUE`, complete with the address and hash that open_clip knows.

    Raises:
        ZsadError: unknown name; tells the nearest.
    """
    entry = choose("weights", name, CATALOGUE)
    if not entry.openai:
        return entry
    import open_clip

    url = open_clip.get_pretrained_url(entry.openai, "openai")
    return dataclasses.replace(entry, urls=(url,), sha256=url.split("/")[-2])  # OpenAI's folders are named by the hash


def ledger() -> Path:
    """Hashes of files without a published one, by name of `CATALOGUE`."""
    return paths.cache() / "weights" / "sha256.json"


def _read_ledger() -> dict[str, str]:
    return paths.read_json(ledger()) if ledger().exists() else {}


def known_sha256(name: str) -> str | None:
    """The published hash, or the one recorded when the file was first seen, or None."""
    return weight(name).sha256 or _read_ledger().get(name)


def fetch(name: str, root: str | Path | None = None, mirror: str = "", offline: bool = False) -> Path:
    """The verified file of `name`; downloads it where it is missing.

    Args:
        name: of `CATALOGUE`.
        root: see `weights_root`; what lies there or up to two folders below is never changed.
        mirror: address of a folder with the same files, asked first.
        offline: a missing file is an error.

    Returns:
        The file.

    Raises:
        ZsadError: no file and no way to get it, another model than expected, or another hash than the known one.
    """
    entry, folder = weight(name), weights_root(root)
    expected = known_sha256(name)
    if not (path := _find(entry, folder)):
        if offline:
            raise ZsadError(
                f"{folder / entry.file}: missing; `make weights` fetches it, or get it from {entry.homepage}"
            )
        path = _download(entry, folder, expected, mirror)
    try:
        sha256 = sha256_file(path)
    except OSError as error:
        raise ZsadError(f"{path}: cannot read ({error.strerror}); make it readable or fetch it again") from error
    if expected and sha256 != expected:
        remedy = "" if entry.sha256 else f"; if its authors replaced it, take {name!r} out of {ledger()}"
        raise ZsadError(f"{path}: sha256 is {sha256}, expected {expected}; move it away and fetch it again{remedy}")
    if not expected:
        _recognise(entry, path)
        paths.write_json(ledger(), {**_read_ledger(), name: sha256})
    return path


def weights_root(root: str | Path | None = None) -> Path:
    """Folder of the weights: the one given, ``WEIGHTS_ROOT`` of the environment, or ``cache/weights``."""
    given = root or os.environ.get("WEIGHTS_ROOT")
    return Path(given) if given else paths.cache() / "weights"


def is_there(name: str) -> bool:
    """Whether the folder of weights holds a file of `name`."""
    return _find(weight(name), weights_root()) is not None


def _find(entry: Weight, folder: Path) -> Path | None:
    return next((path for depth in ("", "*/", "*/*/") for path in sorted(folder.glob(depth + entry.file))), None)


def _download(entry: Weight, folder: Path, sha256: str | None, mirror: str) -> Path:
    file = entry.archive or entry.file
    urls = [f"{mirror.rstrip('/')}/{file}"] * bool(mirror) + list(entry.urls)
    by_hand = f"download it by hand from {entry.homepage} to {folder / entry.file}"
    if not urls:
        raise ZsadError(f"{entry.file}: has no direct address; {by_hand}")
    if not entry.archive:
        return download(urls, folder / file, sha256, lambda part: _recognise(entry, part, by_hand))
    archive = download(urls, folder / file, check=lambda part: _recognise(entry, part, by_hand, ZIP))
    unpacked = unpack(archive, archive.with_suffix(""))
    if not (path := _find(entry, unpacked)):
        raise ZsadError(f"{unpacked}: {file} held no {entry.file}; {by_hand}")
    archive.unlink()
    return path


def _recognise(entry: Weight, path: Path, remedy: str = "fetch it again", expected: str = "") -> None:
    """Raises ZsadError unless the file looks like the model of `entry`, or like `expected`."""
    expected = expected or (TORCHSCRIPT if entry.openai else CHECKPOINT)
    if not (description := describe_file(path)).startswith(expected):
        raise ZsadError(f"{path}: this is {description}, expected {expected} of {entry.model}; {remedy}")
    if expected == CHECKPOINT:
        tensors_of(entry.model, path)


def build_model(name: str) -> nn.Module:
    """The model that `name` of `CATALOGUE` fills, in the published size, with random weights."""
    from zsad_lib import models

    entry = weight(name)
    if entry.model == "CLIP":
        return models.build_clip(entry.openai)
    if entry.model == "AnomalyCLIP":
        from zsad_lib.models import anomaly_clip_recipes as recipes

        dataset = name.removeprefix("anomaly_clip_")
        names = recipes.PUBLISHED_CLASSES[dataset]
        normal = next(name for name in names if name.lower() == "normal")
        return recipes.build(models.build_clip("ViT-B-16"), None, list(names), normal, recipes.PUBLISHED[dataset])
    return getattr(models, entry.model)()


def load_published(name: str, path: str | Path, **arguments: Any) -> tuple[nn.Module, Report]:
    """The model of `name` with the weights in `path`, in eval mode, and the report; `arguments` as in `load_into`."""
    model = build_model(name)
    return model.eval(), load_into(model, path, known_sha256(name), **arguments)


def load_fetched(name: str) -> nn.Module:
    """The model of `name` from a file that is there already, in eval mode.

    Raises:
        ZsadError: it is not there; `make weights` fetches it.
    """
    return load_published(name, fetch(name, offline=True))[0]


def main(profile: str | None = None, root: str | None = None, check: bool = False, mirror: str = "") -> int:
    """Fetches, verifies and loads what a profile needs, one line each; without a profile, lists all."""
    if profile is None:
        for name, entry in CATALOGUE.items():
            users = ", ".join(user for user, needed in NEEDED.items() if name in needed)
            print(f"{name}: {entry.file}, licence {entry.licence}, {entry.homepage} (for {users})")
        return 0
    if profile not in NEEDED:
        choose("profile", profile, PROFILES | NEEDED)
        print(f"{profile}: uses the stand-ins shipped with the kit; nothing to fetch")
        return 0
    for name in NEEDED[profile]:
        entry = CATALOGUE[name]
        print(f"{name}: {entry.file}, licence {entry.licence}, from {entry.homepage}", flush=True)
        path = fetch(name, root, mirror, offline=check)
        print(f"  {path}\n  {load_published(name, path)[1]}", flush=True)
    return 0
