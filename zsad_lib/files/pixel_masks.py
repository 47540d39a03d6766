"""Pixel truth of a data set that has it: a file of masks per test video, which its data step writes beside the
manifest."""

from pathlib import Path

import numpy as np

from zsad_lib.files.score_files import read_archive, write_archive

FOLDER = "masks"  # below ``runs/<run>/data/``


def write_masks(path: Path, masks: np.ndarray) -> None:
    """Writes bool [T, H, W], True = abnormal, eight pixels to a byte.

    >>> import tempfile
    >>> masks = np.arange(2 * 3 * 5).reshape(2, 3, 5) % 2 == 0
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_masks(Path(folder) / "a.npz", masks)
    ...     bool((read_masks(Path(folder) / "a.npz") == masks).all())
    True
    """
    write_archive(path, {"bits": np.packbits(masks, axis=-1), "width": np.array(masks.shape[-1])})


def read_masks(path: Path) -> np.ndarray:
    """The masks of `write_masks`, bool [T, H, W]; ZsadError where the file is missing or damaged."""
    file = read_archive(path)
    return np.unpackbits(file["bits"], axis=-1, count=int(file["width"])).astype(bool)
