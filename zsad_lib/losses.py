r"""Training losses: the context-aware method's, L = alpha * L_align + (1 - alpha) * L_pred, and AnomalyCLIP's.

Paper: "Context-Aware Zero-Shot Anomaly Detection in Surveillance Using Contrastive and Predictive Spatiotemporal
Modeling", https://arxiv.org/abs/2508.18463. L_align is `info_nce`, L_pred is `cpc_loss`; `anomaly_clip_loss` is the
other method's.

Notebooks: 11_predict_future, 12_align_prompts, 13_gate_context, 20_train_detector, 30_ablate_gate, 43_train_from_labels
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from zsad_lib.errors import ZsadError
from zsad_lib.models.gates import ContextGate
from zsad_lib.models.multiple_instance import TrainOutputs, joint_probabilities

MOVING_SHARE = 0.15  # share of a batch's, or a window's, cells that counts as moving


def info_nce(
    v: Tensor, t: Tensor, temperature: float = 0.07, same: Tensor | None = None, extra: Tensor | None = None
) -> Tensor:
    """Symmetric InfoNCE over a batch of video-text pairs.

        s_ik = v_i . t_k / tau
        L = 1/2 mean_i [-log softmax_k(s_ik)_i] + 1/2 mean_i [-log softmax_k(s_ki)_i]

    Rows are used as they are: give unit vectors, except where a gate's length carries meaning (``relevance``).

    Args:
        v: Video embeddings [B, D].
        t: Text embeddings [B, D], row i belongs to video i; gated with their own context.
        temperature: tau > 0.
        same: [B, B] bool, True where video i and text k are no negatives, because clip or caption repeat; the diagonal
            is always the positive.
        extra: [B, M] similarities of further negatives of each video (before tau), -inf where there is none; see
            `swap_similarities`. They enter the video-to-text direction only.

    Returns:
        Scalar.
    """
    logits = v @ t.T / temperature  # [B, B]
    if same is not None:
        diagonal = torch.eye(len(v), dtype=torch.bool, device=v.device)
        logits = logits.masked_fill(same & ~diagonal, -torch.inf)
    target = torch.arange(len(v), device=v.device)
    rows = logits if extra is None else torch.cat([logits, extra / temperature], dim=1)  # [B, B+M]
    return (F.cross_entropy(rows, target) + F.cross_entropy(logits.T, target)) / 2


def swap_partners(
    context: Tensor, count: int = 8, max_cosine: float = 0.7, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Draw for each clip other clips of the batch from dissimilar scenes, without repetition.

    Args:
        context: Context vectors [B, C].
        count: Partners M per clip.
        max_cosine: A scene is dissimilar when the cosine of the two contexts is below this.
        generator: Random numbers, on the CPU, so that every device draws the same.

    Returns:
        Indices [B, M] into the batch, and a mask [B, M], False (index 0) where a clip has fewer than M such others.
    """
    unit = F.normalize(context.detach(), dim=-1)
    dissimilar = unit @ unit.T < max_cosine  # [B, B]
    order = torch.rand(dissimilar.shape, generator=generator).to(context.device)
    score, index = order.masked_fill(~dissimilar, -1).topk(min(count, len(context)), dim=1)
    missing = (0, count - index.shape[1])
    valid = F.pad(score >= 0, missing)
    return F.pad(index, missing) * valid, valid


def swap_similarities(
    gate: ContextGate, v: Tensor, text: Tensor, context: Tensor, partners: Tensor, valid: Tensor
) -> Tensor:
    """Context-swap negatives v_i . gate(t_i, c_j): a clip's own caption under the scenes of its partners j.

    This kit's own: only negatives that show a caption under a wrong scene teach a gate what belongs where.

    Args:
        gate: Context gate.
        v: Video embeddings [B, D].
        text: Captions before the gate [B, D].
        context: Contexts [B, C].
        partners: Indices [B, M] of `swap_partners`.
        valid: Its mask [B, M].

    Returns:
        [B, M] similarities, -inf where not valid: `info_nce`'s ``extra``.
    """
    gated = gate.paired(text.unsqueeze(1), context[partners])  # [B, M, D]
    return torch.einsum("bd,bmd->bm", v, gated).masked_fill(~valid, -torch.inf)


def rejection_loss(own: Tensor, swapped: Tensor, margin: float = 0.3, temperature: float = 0.07) -> Tensor:
    """Hinge on context swaps: a caption under a wrong scene must fit its own video clearly worse than under the right
    one.

        L = mean_ij max(0, margin - (v_i . gate(t_i, c_i) - v_i . gate(t_i, c_j))) / tau

    This kit's own. As a negative of `info_nce` a swap competes with all other captions and weighs little once those are
    far; here it counts until it is `margin` away. Division by tau puts both losses on one scale.

    Args:
        own: v_i . gate(t_i, c_i), [B].
        swapped: [B, M] of `swap_similarities`, -inf where there is no partner.
        margin: wanted gap of the similarities, 0..2; fixed beforehand.
        temperature: tau > 0.

    Returns:
        Scalar; 0 where no clip has a partner.
    """
    valid = swapped.isfinite()
    short = (margin - own[:, None] + swapped).clamp_min(0) / temperature
    return short.sum() / valid.sum().clamp_min(1)


def cpc_loss(predicted: Tensor, actual: Tensor, temperature: float = 1.0) -> Tensor:
    """Contrastive predictive coding: every predicted cell must pick its own actual cell out of the whole batch.

        L = mean_i [-log softmax_j(z_i . a_j / tau)_i],  i, j over all cells (clip, step, place)

    Paper: Han, Xie, Zisserman, "Video Representation Learning by Dense Predictive Coding", 2019,
    https://arxiv.org/abs/1909.04656, Eq. (5). Official DPC takes raw dot products, tau = 1; the released code of the
    context-aware method divides them by 0.07.

    Args:
        predicted: Predicted cells z [B, P, D, h, w].
        actual: Actual cells a [B, P, D, h, w].
        temperature: tau > 0.

    Returns:
        Scalar, the cross-entropy of official DPC's ``score`` with its ``mask``.

    Raises:
        ZsadError: the shapes differ or are not five-dimensional.
    """
    if predicted.dim() != 5 or predicted.shape != actual.shape:
        raise ZsadError(f"cpc_loss needs two [B, P, D, h, w], got {list(predicted.shape)} and {list(actual.shape)}")
    z, a = (x.movedim(2, -1).flatten(0, 3) for x in (predicted, actual))  # [B*P*h*w, D]
    return F.cross_entropy(z @ a.T / temperature, torch.arange(len(z), device=z.device))


def moving_cells_loss(
    predicted: Tensor,
    actual: Tensor,
    motion: Tensor,
    generator: torch.Generator,
    cells: int = 1024,
    temperature: float = 0.1,
) -> Tensor:
    """CPC on cosines of sampled cells, three quarters of them among the `MOVING_SHARE` that move most.

    Under a fixed camera most cells stand still and are predicted by standing still; a uniform draw, and with it
    `cpc_loss` over all cells, spends itself on them. The score compares cosines, so training does too.

    Args:
        predicted: Predicted cells [B, P, D, h, w].
        actual: Actual cells [B, P, D, h, w].
        motion: Mean absolute frame difference per cell [B, P, h, w].
        generator: Random numbers for the draw, on the CPU, so that every device draws the same.
        cells: Cells drawn, at most.
        temperature: tau > 0.

    Returns:
        Scalar.
    """
    motion = motion.flatten()
    moving = motion.topk(max(1, int(MOVING_SHARE * len(motion)))).indices
    drawn = torch.randperm(len(moving), generator=generator)[: cells * 3 // 4]
    others = torch.randint(len(motion), (cells // 4,), generator=generator)
    index = torch.cat([moving[drawn.to(moving.device)], others.to(moving.device)]).unique()
    z, a = (F.normalize(x.movedim(2, -1).flatten(0, 3)[index], dim=-1) for x in (predicted, actual))  # [n, D]
    return cpc_loss(z[:, None, :, None, None], a[:, None, :, None, None], temperature)


class AnomalyCLIPLoss(NamedTuple):
    """The published terms of AnomalyCLIP, scalars; `total` is their sum."""

    total: Tensor
    dir_abn: Tensor  # similarity of abnormal videos' top frames to their own class, negated
    dir_nor: Tensor  # largest similarity of normal frames to any class
    topk_abn: Tensor  # -log p(A, own class), top segments of abnormal videos
    bottomk_abn: Tensor  # -log p(N), bottom segments of abnormal videos
    topk_nor: Tensor  # -log p(N), top segments of normal videos
    smooth: Tensor  # neighbouring frames alike
    sparse: Tensor  # few abnormal frames


def anomaly_clip_loss(
    outputs: TrainOutputs,
    labels: Tensor,
    parity: bool = False,
    sparse_weight: float = 8e-3,
    smooth_weight: float = 8e-4,
    across_videos: bool | None = None,
    unclamped: bool | None = None,
) -> AnomalyCLIPLoss:
    """Loss of AnomalyCLIP's multiple-instance learning; all terms have weight 1.

    Paper: Zanella et al., https://arxiv.org/abs/2310.02835, Sec. 3.5.

    Args:
        outputs: of `AnomalyCLIP.train_outputs`.
        labels: class ids [B], abnormal videos in the first half.
        parity: as the published code computes it, which is both switches below.
        sparse_weight: of the mean of p_A on abnormal videos.
        smooth_weight: of the SUM of squared differences, which grows with the batch.
        across_videos: smoothness also between the last frame of a video and the first of the next one of the batch;
            else it stays within videos. None: as `parity`.
        unclamped: logarithms of probabilities as they are, which may be -inf; else of probabilities of at least 1e-8.
            None: as `parity`.
    """
    across_videos = parity if across_videos is None else across_videos
    unclamped = parity if unclamped is None else unclamped
    half, normal_id = len(labels) // 2, outputs.normal_id
    frames = len(outputs.scores) // len(labels)
    grid = (len(labels), frames // outputs.segment_len, outputs.segment_len)
    similarity = outputs.logits.unflatten(0, grid)  # [B, N, S, K-1]
    joint = joint_probabilities(outputs.logits, outputs.scores, normal_id).unflatten(0, grid)  # [B, N, S, K]
    log_joint = joint.log() if unclamped else joint.clamp_min(1e-8).log()
    p = outputs.scores.view(len(labels), frames)[:half]  # p_A of abnormal videos
    video = torch.arange(half, device=labels.device)[:, None]
    column = (labels[:half] - (labels[:half] > normal_id).long())[:, None]  # among the abnormal classes
    steps = p.flatten().diff() if across_videos else p.diff(dim=1)
    terms = (
        -similarity[video, outputs.idx_topk_abn, :, column].mean(),
        similarity[half:].amax(-1).mean(),
        -log_joint[video, outputs.idx_topk_abn, :, labels[:half, None]].mean(),
        -log_joint[video, outputs.idx_bottomk_abn, :, normal_id].mean(),
        -log_joint[half + video, outputs.idx_topk_nor, :, normal_id].mean(),
        smooth_weight * steps.square().sum(),
        sparse_weight * p.mean(),
    )
    return AnomalyCLIPLoss(sum(terms), *terms)
