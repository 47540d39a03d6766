"""What the stand-ins' region head learns from: cells of actors, each with the clause that tells what it does.

Notebook: 02_pretrain_backbones
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zsad_lib.losses import info_nce

SINGLE_CELL_SHARE = 0.5  # of an actor's examples; the others are the mean over its cells


class RegionExamples:
    """Which of TimeSformer's tokens show which actor: what the region head learns from.

    Args:
        told: which clause a cell of the T frames that TimeSformer sees belongs to, int8 [N, T, rows, columns]; 0: none.
        clauses: of each of the N clips, from 1 on.
    """

    def __init__(self, told: np.ndarray, clauses: Sequence[Sequence[str]]):
        told = told.reshape(*told.shape[:2], -1)  # [N, T, cells]
        self.frames = told.shape[1]
        told = told.transpose(0, 2, 1).reshape(len(told), -1)
        self.labels = torch.from_numpy(told.copy())  # [N, cells * T], as the tokens lie
        numbers: dict[str, int] = {}
        self.sentence = [[numbers.setdefault(text, len(numbers)) for text in clip] for clip in clauses]
        self.texts = list(numbers)

    def draw(self, clip: int, rng: np.random.Generator) -> list[tuple[np.ndarray, int]]:
        """Of each clause of a clip one example: numbers of the tokens whose mean it is, and the number of its text.

        They show one actor in one frame: a cell of it, or all.
        """
        drawn, labels = [], self.labels[clip].numpy()
        for number, text in enumerate(self.sentence[clip], start=1):
            cells = np.flatnonzero(labels == number)
            if len(cells):
                cells = cells[cells % self.frames == rng.choice(cells) % self.frames]
                drawn.append((rng.choice(cells, 1) if rng.random() < SINGLE_CELL_SHARE else cells, text))
        return drawn


def region_loss(
    embed: Callable[[Tensor], Tensor], encode: Callable[[Tensor], Tensor], tokens: Tensor, drawn: list, others: Tensor
) -> Tensor:
    """InfoNCE of actors' cells and their clauses; cells of the background are further negatives of each clause.

    Args:
        embed: head of the regions, tokens [..., D] -> [..., E].
        encode: number of texts [R] -> their vectors [R, E].
        tokens: of the batch's clips [B, cells * T, D].
        drawn: per clip, of `RegionExamples.draw`.
        others: background tokens [M, D].
    """
    examples = [(clip, cells, text) for clip, some in enumerate(drawn) for cells, text in some]
    means = torch.stack([tokens[clip, cells].mean(0) for clip, cells, _ in examples])
    texts = torch.tensor([text for *_, text in examples])
    v, t, background = (F.normalize(x, dim=-1) for x in (embed(means), encode(texts), embed(others)))
    return info_nce(t, v, same=texts[:, None] == texts[None], extra=t @ background.T)
