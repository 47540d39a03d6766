"""Folders of frames: which of their files are frames, in which order, and each as an array.

Order and number are told by the names alone. What leaves a doubt is refused, or told once on standard error.
"""

import os
import re
import statistics
import warnings
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import numpy as np

from zsad_lib.errors import ZsadError, tell_once
from zsad_lib.files.own_results import is_pictures

IMAGE_SUFFIXES = (".tif", ".tiff", ".jpg", ".jpeg", ".png", ".bmp")
OTHER_SUFFIXES = (  # pictures and videos that people keep beside frames: left out, and told
    ".gif", ".webp", ".heic", ".heif", ".avif", ".jp2", ".ppm", ".pgm", ".jfif", ".mp4", ".avi", ".mkv", ".mov",
)  # fmt: skip
STACKS = ("TIFF", "GIF", "WEBP", "PNG")  # formats whose files may hold a film
FORMATS = (*STACKS, "JPEG", "BMP")  # all that is opened, whatever its ending; a telephone's MPO is a JPEG to Pillow
_DECIMAL = re.compile(r"(?<![\d.])\d+\.(\d+)(?![\d.])")


def list_frames(folder: str | Path) -> list[Path]:
    """The images of a frame folder in natural order (2 before 10, and t0.25 before t0.5), without hidden files like
    macOS' ``._001.tif``.

    Tells once what may not be meant: numbers that are missing, names without a number, pictures of other kinds.

    Raises:
        ZsadError: no frame; one number twice, as 1.jpg and 1.png, or 1.jpg and 01.jpg; the kit's own pictures.
    """
    folder = Path(folder)
    try:
        with os.scandir(folder) as entries:
            names = sorted(one.name for one in entries if not one.name.startswith(".") and not one.is_dir())
    except OSError as error:
        raise ZsadError(f"{folder}: cannot be read ({error.strerror}); give a readable folder of frames") from error
    images = [name for name in names if name.lower().endswith(IMAGE_SUFFIXES)]
    if not images:
        raise ZsadError(f"{folder}: no frames in this folder; expected {', '.join(IMAGE_SUFFIXES)} files")
    if is_pictures(folder):
        raise ZsadError(f"{folder}: pictures that this kit has drawn, no frames; give the video itself")
    decimals = _are_decimals(images)
    keys = dict(zip(images, _order(images, decimals)))
    images.sort(key=lambda name: (keys[name], name))
    for one, other in zip(images, images[1:]):
        if keys[one] == keys[other]:
            raise ZsadError(f"{folder}: one frame twice, {one} and {other}; keep one of them")
    if decimals and images != sorted(images, key=dict(zip(images, _order(images))).get):
        tell_once(f"{folder}: numbers with a point in them are decimals here, from {images[0]} to {images[-1]}")
    for line in _doubts(images, [keys[name] for name in images]):
        tell_once(f"{folder}: {line}")
    if others := [name for name in names if name.lower().endswith(OTHER_SUFFIXES)]:
        tell_once(
            f"{folder}: left out, as no frames: {len(others)} ({others[0]}); expected {', '.join(IMAGE_SUFFIXES)}"
        )
    return [folder / name for name in images]


def read_image(path: Path) -> np.ndarray:
    """A picture as uint8 [H, W, 3], RGB, upright; ZsadError where it is none, or deeper than 8 bits, or a stack."""
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged EXIF, which is no part of the picture
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                if image.mode.startswith(("I", "F")):
                    raise ZsadError(f"{path}: more than 8 bits per channel; convert the frames to 8 bits")
                if image.format in STACKS and (count := getattr(image, "n_frames", 1)) > 1:
                    raise ZsadError(f"{path}: {count} pictures in one file; write each into a file of its own")
                if image.has_transparency_data and image.convert("RGBA").getextrema()[3][0] < 255:
                    tell_once(f"{path.parent}: transparency is left out, the colours below it are seen")
                return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except ZsadError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ZsadError(f"{path}: claims too many pixels to be a frame ({error}); fetch it again") from None
    except Exception as error:  # over a damaged picture its decoders raise whatever they come upon
        reason = error or type(error).__name__
        raise ZsadError(f"{path}: not a readable image ({reason}); fetch it again") from error


def _are_decimals(names: Sequence[str]) -> bool:
    """Whether ``0.25`` in these names is a number below 0.5: their fractions differ in length, and no longer one ends
    in a zero, as 10 does among the counters 1.8, 1.9, 1.10."""
    fractions = [fraction for name in names for fraction in _DECIMAL.findall(name.rpartition(".")[0])]
    counters = any(len(fraction) > 1 and fraction.endswith("0") for fraction in fractions)
    return len(set(map(len, fractions))) > 1 and not counters


def _order(names: Sequence[str], decimals: bool = False) -> list[tuple]:
    """What each name is sorted by: its words and numbers in turn, without its ending."""
    number = r"((?<![\d.])\d+\.\d+(?![\d.])|\d+)" if decimals else r"(\d+)"
    parts = [re.split(number, name.lower().rpartition(".")[0]) for name in names]
    return [tuple(Decimal(part) if i % 2 else part for i, part in enumerate(one)) for one in parts]


def _doubts(names: list[str], keys: list[tuple]) -> list[str]:
    """What may not be meant, of frames in order with their `_order`, in words."""
    doubts = []
    bare = [name for name, key in zip(names, keys) if len(key) == 1]
    if bare and len(names) > 1:
        what = "no frame's name holds a number" if len(bare) == len(names) else f"names without a number: {len(bare)}"
        doubts.append(f"{what}, as {bare[0]}; they count as frames in the order of their letters")
    numbered = [(name, key) for name, key in zip(names, keys) if len(key) > 1]
    kinds = dict.fromkeys((key[::2] for _, key in numbered))
    if len(kinds) > 1:
        doubts.append(f"names of {len(kinds)} kinds, the first {numbered[0][0]}, the last {numbered[-1][0]}; all count")
    elif numbered:
        columns = [column for column in zip(*(key[1::2] for _, key in numbered)) if len(set(column)) > 1]
        if len(columns) == 1:  # only one number counts
            steps = [b - a for a, b in zip(columns[0], columns[0][1:])]
            usual = statistics.median(steps)
            gaps = [index for index, step in enumerate(steps) if 2 * step > 3 * usual]
            if gaps:
                place = f"the first between {numbered[gaps[0]][0]} and {numbered[gaps[0] + 1][0]}"
                doubts.append(f"gaps in the numbers of the frames: {len(gaps)}, {place}; time goes on without them")
    return doubts
