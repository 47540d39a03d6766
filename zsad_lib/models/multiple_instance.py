r"""Multiple-instance learning of AnomalyCLIP: a label is of a whole video, for which a few segments stand.

Paper: Zanella et al., https://arxiv.org/abs/2310.02835, Sec. 3.3 to 3.5. What model and loss share.

Notebook: 41_select_directions
"""

from typing import NamedTuple

import torch
from torch import Tensor


class TrainOutputs(NamedTuple):
    """What `anomaly_clip_loss` needs. B videos, the abnormal half first; T = N * S frames each; K classes."""

    logits: Tensor  # S, [B*T, K-1]
    scores: Tensor  # p_A, [B*T]
    idx_topk_abn: Tensor  # most abnormal segments of abnormal videos, [B/2, topk] in 0..N-1
    idx_topk_nor: Tensor  # of normal videos, [B/2, topk]
    idx_bottomk_abn: Tensor  # least abnormal segments of abnormal videos, [B/2, bottomk]
    segment_len: int  # S
    normal_id: int  # index of the normal class among K


def choose_segments(
    similarity: Tensor, labels: Tensor, normal_id: int, top: int, bottom: int, dropout: float
) -> tuple[Tensor, Tensor, Tensor]:
    r"""The segments that stand for their videos, by their similarity alone and without gradient.

        r_nk = sum_s S_nsk      over the frames s of segment n
        r_n = r_n,label         of an abnormal video;  sum_k r_nk of a normal one
        V+ = top-K of r_n       V- = bottom-K of r_n

    Args:
        similarity: S of the segments' frames [B, N, S, K-1]; abnormal videos in the first half.
        labels: class ids [B].
        normal_id: index of the normal class among K.
        top: segments in V+; bottom: in V-.
        dropout: share of segments that are left out, of V+ and V- alike, unless the others do not suffice.

    Returns:
        V+ of abnormal videos [B/2, top], V+ of normal videos [B/2, top], V- of abnormal videos [B/2, bottom].
    """
    half = len(labels) // 2
    ranked = similarity.detach().sum(2)  # [B, N, K-1]
    column = labels[:half] - (labels[:half] > normal_id).long()  # of the label among the abnormal classes
    own_class = ranked[torch.arange(half, device=labels.device), :, column]  # [B/2, N]
    any_class = ranked[half:].sum(-1)  # [B/2, N]
    left_out = torch.rand_like(ranked[..., 0]) < dropout  # [B, N]
    penalty = 2 * (1 + ranked.abs().sum(-1).amax()) * left_out  # beyond every r_n, whichever end is asked for
    return (
        (own_class - penalty[:half]).topk(top, dim=1).indices,
        (any_class - penalty[half:]).topk(top, dim=1).indices,
        (-own_class - penalty[:half]).topk(bottom, dim=1).indices,
    )


def joint_probabilities(similarity: Tensor, anomaly: Tensor, normal_id: int) -> Tensor:
    """p(A, k) = p_A softmax_k(S) and p(N) = 1 - p_A: S [..., K-1], p_A [...] -> [..., K] in class order, sum 1."""
    joint = anomaly.unsqueeze(-1) * similarity.softmax(-1)
    normal = 1 - anomaly.unsqueeze(-1)
    return torch.cat([joint[..., :normal_id], normal, joint[..., normal_id:]], dim=-1)
