"""The other ways to do the same that `zsad_lib.maintenance.speed` compares with.

Another library's network, or a loop as one would write it first.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import nn

from zsad_lib.errors import optional
from zsad_lib.features.window_plan import CLIP_FRAMES
from zsad_lib.methods.context_aware.local_readout import SCENE_WEIGHT
from zsad_lib.methods.context_aware.scorer import Scorer
from zsad_lib.methods.context_aware.scores import NEIGHBOURS
from zsad_lib.models import AnomalyCLIP
from zsad_lib.models.regions import TOP
from zsad_lib.models.timesformer import TimeSformer


def transformers_twin(model: TimeSformer) -> nn.Module:
    """The transformers library's TimesformerModel with the size and weights of `model`, in eval mode.

    It takes frames before channels, [B, T, 3, H, W]; the tokens of its ``last_hidden_state`` have our order.

    Raises:
        ZsadError: transformers is not installed (it is a development dependency).
    """
    with optional("dev"):
        from transformers import TimesformerConfig, TimesformerModel

    width, depth = model.cls_token.shape[-1], len(model.blocks)
    config = TimesformerConfig(
        image_size=model.patch_embed.img_size[0], patch_size=model.patch_embed.patch_size[0],
        num_frames=model.time_embed.shape[1], hidden_size=width, num_hidden_layers=depth,
        num_attention_heads=model.blocks[0].attn.num_heads, intermediate_size=4 * width, layer_norm_eps=1e-6,
        qkv_bias=True, hidden_dropout_prob=0, attention_probs_dropout_prob=0,
    )  # fmt: skip
    names = {
        "patch_embed.proj": "embeddings.patch_embeddings.projection", "cls_token": "embeddings.cls_token",
        "pos_embed": "embeddings.position_embeddings", "time_embed": "embeddings.time_embeddings", "norm": "layernorm",
    }  # fmt: skip
    layer = {
        "temporal_norm1": "temporal_layernorm", "temporal_attn.qkv": "temporal_attention.attention.qkv",
        "temporal_attn.proj": "temporal_attention.output.dense", "temporal_fc": "temporal_dense",
        "norm1": "layernorm_before", "attn.qkv": "attention.attention.qkv", "attn.proj": "attention.output.dense",
        "norm2": "layernorm_after", "mlp.fc1": "intermediate.dense", "mlp.fc2": "output.dense",
    }  # fmt: skip
    names |= {f"blocks.{i}.{a}": f"encoder.layer.{i}.{b}" for i in range(depth) for a, b in layer.items()}
    state = {}
    for key, value in model.state_dict().items():
        stem, _, leaf = key.rpartition(".")
        state[f"{names[stem]}.{leaf}" if leaf in ("weight", "bias") else names[key]] = value
    twin = TimesformerModel(config)
    twin.load_state_dict(state)
    return twin.eval()


def anomaly_clip_in_loops(model: AnomalyCLIP, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The total of `anomaly_clip_loss`, one video, segment and class at a time: [B, T, D], [B] -> scalar."""
    half, length = len(labels) // 2, model.segment_len
    keep = torch.rand(len(labels), model.num_segments) >= model.segment_dropout
    similarities = model.selector((features - model.normal_prototype).flatten(0, 1), model.directions())
    abnormal = [number for number in range(len(model.class_names)) if number != model.normal_id]  # of each column

    def frames_of(segments: Sequence[int]) -> list[int]:
        return [segment * length + frame for segment in segments for frame in range(length)]

    named, highest, tops, bottoms, normals, smooth, sparse = ([] for _ in range(7))
    for video, label in enumerate(labels.tolist()):
        x = features[video] - model.normal_prototype  # [T, D]
        s = similarities.view(*features.shape[:2], -1)[video]  # [T, K-1]
        p = model.temporal(x.view(1, model.num_segments, length, -1)).flatten()
        columns = [abnormal.index(label)] if video < half else range(s.shape[1])
        sums = [segment[:, columns].sum().item() for segment in s.split(length)]
        ranked = [(bool(keep[video, n]), value, n) for n, value in enumerate(sums)]
        top = [n for *_, n in sorted(ranked, reverse=True)[: model.topk]]  # segments left out come last
        bottom = [n for *_, n in sorted((not kept, value, n) for kept, value, n in ranked)[: model.bottomk]]
        if video < half:
            for frame in frames_of(top):
                named.append(s[frame, columns[0]])
                tops.append((p[frame] * s[frame].softmax(0)[columns[0]]).clamp_min(1e-8).log())
            bottoms += [(1 - p[frame]).clamp_min(1e-8).log() for frame in frames_of(bottom)]
            smooth.append(p.diff().square().sum())
            sparse.append(p.mean())
        else:
            highest.append(s.amax(1).mean())
            normals += [(1 - p[frame]).clamp_min(1e-8).log() for frame in frames_of(top)]
    named, highest, tops, bottoms, normals, sparse = (
        torch.stack(values).mean() for values in (named, highest, tops, bottoms, normals, sparse)
    )
    return -named + highest - tops - bottoms - normals + 8e-4 * torch.stack(smooth).sum() + 8e-3 * sparse


def read_out_in_loops(scorer: Scorer, vectors: torch.Tensor, at: np.ndarray, scene: torch.Tensor) -> list[np.ndarray]:
    """s_sem and s_mem of the pictures of W windows, [W, T] each, one region at a time: vectors [R, E], `at` [R, 4] of
    `Regions`, scenes [W, S]."""
    d, found = scorer.detector, np.full((2, len(scene), len(CLIP_FRAMES)), np.nan)
    for number in range(len(scene)):
        clauses = d.gate(scorer.bank, d.context(scene[number : number + 1]))[0]  # [K, E]
        place = SCENE_WEIGHT * F.normalize(d.standardised(scene[number]), dim=-1)
        for picture in range(len(CLIP_FRAMES)):
            scores = []
            for region in np.flatnonzero((at[:, 0] == number) & (at[:, 1] == picture)):
                v = vectors[region]
                near = (scorer.region_memory @ F.normalize(torch.cat([v, place]), dim=-1)).topk(NEIGHBOURS).values
                scores.append((1 - (clauses @ v).max().item(), 1 - near.mean().item()))
            for term, values in enumerate(zip(*scores)):
                found[term, number, picture] = np.mean(sorted(values)[-TOP:])
    return list(found)


def metrics_by_copying(
    scores: Sequence[np.ndarray], labels: Sequence[np.ndarray], counts: np.ndarray
) -> Iterator[tuple[float, float]]:
    """Micro AUC and AP of every draw, from frames that are joined and sorted anew: `counts` [R, V] of each video."""
    for row in counts.astype(int):
        videos = np.repeat(np.arange(len(row)), row)
        truth, values = (np.concatenate([series[v] for v in videos]) for series in (labels, scores))
        yield roc_auc_score(truth, values), average_precision_score(truth, values)
