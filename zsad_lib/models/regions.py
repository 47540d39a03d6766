r"""Regions: the places of a window where somebody or something is, each with a vector in the space of the captions.

    present(p) = o . z_p + b_o > 0        v_p = (R z_p + b_R) / |R z_p + b_R|

z_p are TimeSformer's patch tokens, o and R linear heads that were learned beside the text tower and are frozen
(`zsad_lib.methods.pretraining`). A window's one feature says what happens on the whole; a rule, as "cycling is not
normal here", is about one actor of several. The kit's own: the paper (arXiv 2508.18463) reads the class token alone.

What comes after asks for vectors and places and not where they are from. With published weights z_p are dense CLIP
features (`zsad_lib.models.dense_clip`), R is the identity, and words say where something is:

    present(p) = max_a v_p . t_a - max_b v_p . t_b > 0        t_a: things, as "a person"; t_b: places, as "the floor"

Notebook: 23_find_in_stream
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

TOP = 3  # regions that speak for a picture
MOST = 16  # regions of a picture in dense features, at most: they are kept on disk and compared with a memory


class Regions(NamedTuple):
    """R regions of some windows, by window and token frame."""

    vector: Tensor  # [R, E] unit vectors
    at: Tensor  # [R, 4] int64: window, token frame, row and column of the patch


def find_regions(tokens: Tensor, grid: tuple[int, int], head: nn.Linear, objectness: nn.Linear) -> Regions:
    """The regions among the patch tokens of W windows.

    Args:
        tokens: [W, 1 + rows * columns * T, D] of `TimeSformer.tokens`: class token first, then frame fastest.
        grid: rows and columns of patches.
        head: R, to the captions' space.
        objectness: o.

    >>> import torch
    >>> always = nn.Linear(1, 1)
    >>> _ = nn.init.zeros_(always.weight), nn.init.ones_(always.bias)
    >>> find_regions(torch.zeros(1, 5, 1), (1, 2), nn.Linear(1, 4), always).at.tolist()  # two patches, two pictures
    [[0, 0, 0, 0], [0, 0, 0, 1], [0, 1, 0, 0], [0, 1, 0, 1]]
    """
    patches = tokens[:, 1:].unflatten(1, (*grid, -1))  # [W, rows, columns, T, D]
    at = (objectness(patches).squeeze(-1) > 0).permute(0, 3, 1, 2).nonzero()  # by window, frame, row, column
    window, frame, row, column = at.unbind(1)
    return Regions(F.normalize(head(patches[window, row, column, frame]), dim=-1), at)


class NamedThings(nn.Module):
    """Whether a patch shows a thing rather than a place, by words.

    Args:
        things: unit vectors [A, E] of sentences on what may be there.
        places: unit vectors [B, E] of sentences on what is there anyway.

    Shapes:
        unit vectors [..., E] -> [...]: above 0 where a thing fits better.
    """

    def __init__(self, things: Tensor, places: Tensor):
        super().__init__()
        self.register_buffer("things", things)
        self.register_buffer("places", places)

    def forward(self, v: Tensor) -> Tensor:
        return (v @ self.things.T).amax(-1) - (v @ self.places.T).amax(-1)


def choose_patches(patches: Tensor, present: nn.Module, most: int = MOST) -> Regions:
    """The regions among dense features of W windows.

    Args:
        patches: unit vectors [W, T, rows, columns, E].
        present: `NamedThings`.
        most: regions of a picture, those where a thing fits best.

    >>> things = NamedThings(torch.eye(2)[:1], torch.eye(2)[1:])
    >>> choose_patches(torch.eye(2)[[0, 1, 0]].view(1, 1, 1, 3, 2), things, most=1).at.tolist()
    [[0, 0, 0, 0]]
    """
    fits = present(patches).flatten(2)  # [W, T, patches]
    best = fits.topk(min(most, fits.shape[-1]), dim=-1)
    chosen = torch.zeros_like(fits, dtype=torch.bool).scatter(-1, best.indices, best.values > 0)
    at = chosen.unflatten(2, patches.shape[2:4]).nonzero()
    return Regions(patches[tuple(at.T)], at)


def strongest(scores: np.ndarray, at: np.ndarray, windows: int, frames: int = 8, top: int = TOP) -> np.ndarray:
    """Mean score of the `top` regions that score highest, for each picture that a window looks at.

    Args:
        scores: [R].
        at: [R, 4] of `Regions`.
        windows: W.
        frames: T, pictures of a window.
        top: regions that count; of fewer, all.

    Returns:
        [W, T]; NaN where there is no region.

    >>> strongest(np.array([1.0, 5.0, 3.0]), np.array([[0, 0, 0, 0], [0, 0, 0, 1], [0, 1, 2, 2]]), 1, 2, top=1)
    array([[5., 3.]])
    """
    picture = at[:, 0].astype(np.int64) * frames + at[:, 1]
    order = np.lexsort((-scores, picture))
    picture, scores = picture[order], np.asarray(scores, np.float64)[order]
    rank = np.arange(len(picture)) - np.searchsorted(picture, picture)
    best, count = picture[rank < top], windows * frames
    total, number = np.bincount(best, scores[rank < top], count), np.bincount(best, minlength=count)
    return np.divide(total, number, out=np.full(count, np.nan), where=number > 0).reshape(windows, frames)
