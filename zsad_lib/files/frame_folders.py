"""Folders of frames: which of their files are frames, in which order, and each as an array."""

import re
from pathlib import Path

import numpy as np

from zsad_lib.errors import ZsadError

IMAGE_SUFFIXES = (".tif", ".tiff", ".jpg", ".jpeg", ".png", ".bmp")


def list_frames(folder: str | Path) -> list[Path]:
    """The images of a frame folder in natural order (2 before 10), without hidden files like macOS' ``._001.tif``."""
    images = [p for p in Path(folder).iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")]
    if not images:
        raise ZsadError(f"{folder}: no frames in this folder; expected {', '.join(IMAGE_SUFFIXES)} files")
    return sorted(images, key=lambda p: [int(s) if s.isdigit() else s for s in re.split(r"(\d+)", p.name.lower())])


def read_image(path: Path) -> np.ndarray:
    """A picture as uint8 [H, W, 3], RGB; ZsadError where it is none, or deeper than 8 bits."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):
                raise ZsadError(f"{path}: more than 8 bits per channel; convert the frames to 8 bits")
            return np.asarray(image.convert("RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ZsadError(f"{path}: not a readable image ({error}); fetch it again") from error
