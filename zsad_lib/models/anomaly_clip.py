r"""AnomalyCLIP: detection and recognition of anomalies per frame, learned from video-level class labels.

Paper: Zanella et al., "Delving into CLIP latent space for Video Anomaly Recognition", CVIU 249, 2024,
https://arxiv.org/abs/2310.02835. Weakly supervised and not causal, unlike the context-aware method. Frozen CLIP image
features x of all frames enter; with m the mean feature of normal training frames and E_T(k) the text feature of class
k:

    d_k    = (E_T(k) - m) / |E_T(k) - m|                 direction of abnormal class k, seen from normality
    S(x)_k = BatchNorm((x - m) . d_k)                    similarity
    p_A    = sigmoid(head(temporal(x - m)))              abnormal at all? over the whole video
    p(A,k) = p_A softmax_k(S),   p(N) = 1 - p_A          joint probabilities

Notebooks: 40_center_clip_space, 41_select_directions, 43_train_from_labels
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zsad_lib.errors import ZsadError
from zsad_lib.models.axial import AxialTransformer
from zsad_lib.models.checkpoints import load_strict, official_tensors
from zsad_lib.models.multiple_instance import TrainOutputs, choose_segments, joint_probabilities
from zsad_lib.models.prompt_text import PromptText
from zsad_lib.models.text import Vocabulary, untokenize

SHOWN_TOKENS = 12  # of a foreign checkpoint's class name
WINDOWS_AT_ONCE = 16  # grids of one forward pass when scoring, which bounds its memory


class Scored(NamedTuple):
    """Frame scores of one video."""

    similarity: Tensor  # S, [T, K-1]
    anomaly: Tensor  # p_A in 0..1, [T]
    class_probs: Tensor  # joint probabilities in class order, [T, K], sum 1


class Selector(nn.Module):
    """Similarity of frames to the directions of the abnormal classes, standardised per class over the batch."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(classes, affine=False)

    def forward(self, centred: Tensor, directions: Tensor) -> Tensor:
        """x - m [M, D], d [K-1, D] -> S [M, K-1]."""
        return self.norm(centred @ directions.T)


class TemporalModel(nn.Module):
    """p_A of every frame from all frames: projection, axial transformer, LayerNorm, one number."""

    def __init__(self, width: int, dim: int, depth: int, heads: int, segments: int, frames: int) -> None:
        super().__init__()
        self.projection = nn.Linear(width, dim)
        self.axial = AxialTransformer(dim, depth, heads, segments, frames)
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, 1)

    def forward(self, x: Tensor, segments: Tensor | None = None) -> Tensor:
        """[B, N, S, width] -> p_A [B, N, S], or [B, K, S] of `segments` [B, K] alone."""
        x = self.axial(self.projection(x).movedim(-1, 1), segments).movedim(1, -1)
        return self.head(self.norm(x)).squeeze(-1).sigmoid()


class FrameModel(nn.Module):
    """p_A of every frame from that frame alone: what is left without the temporal model (for ablations)."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, dim), nn.LeakyReLU(), nn.LayerNorm(dim), nn.Linear(dim, 1))

    def forward(self, x: Tensor, segments: Tensor | None = None) -> Tensor:
        """[B, N, S, width] -> p_A [B, N, S], or [B, K, S] of `segments` [B, K] alone."""
        if segments is not None:
            x = x[torch.arange(len(x), device=x.device)[:, None], segments]
        return self.layers(x).squeeze(-1).sigmoid()


class AnomalyCLIP(nn.Module):
    """AnomalyCLIP (module docstring: paper, equations).

    Args:
        clip: model of `build_clip`; its text tower is copied, the image tower is not needed.
        class_names: K names in the order of the label file's ids, the normal class among them.
        normal_class: its name, or its id.
        num_context_tokens: learned vectors before every class name.
        num_segments: N segments of a training video, rows of the temporal model's grid.
        segment_len: S frames of a segment.
        embed_dim: channels of the temporal model.
        depth: its layers.
        heads: its attention heads.
        concat_similarity: the temporal model reads [S ; x - m] instead of x - m.
        topk: segments taken for abnormal; bottomk: for normal.
        segment_dropout: share of segments that one training step leaves out of this choice.
        vocabulary: the one that the text tower was built with, if its token table is cut.
        temporal: False: p_A from single frames (`FrameModel`).
        directions_from_normal: False: d_k = E_T(k) / |E_T(k)|, as seen from the origin (for ablations).

    The checkpoint (``state_dict``) holds the normal prototype m and the ordered class list; loading another list is an
    error.

    Raises:
        ZsadError: the normal class is not among the names, or names repeat.
    """

    def __init__(
        self,
        clip: nn.Module,
        class_names: Sequence[str],
        normal_class: str | int,
        num_context_tokens: int = 8,
        num_segments: int = 32,
        segment_len: int = 16,
        embed_dim: int = 256,
        depth: int = 1,
        heads: int = 8,
        concat_similarity: bool = False,
        topk: int = 3,
        bottomk: int = 3,
        segment_dropout: float = 0.7,
        vocabulary: Vocabulary | None = None,
        temporal: bool = True,
        directions_from_normal: bool = True,
    ) -> None:
        super().__init__()
        self.class_names = list(class_names)
        if len(set(self.class_names)) < len(self.class_names):
            raise ZsadError(f"class names repeat: {', '.join(self.class_names)}")
        names = dict(enumerate(self.class_names)) | {name: name for name in self.class_names}
        if normal_class not in names:
            raise ZsadError(f"normal class {normal_class!r} is none of {', '.join(self.class_names)}")
        self.normal_id = self.class_names.index(names[normal_class])
        self.num_segments, self.segment_len = num_segments, segment_len
        if not 1 <= max(topk, bottomk) <= num_segments:
            raise ZsadError(
                f"topk {topk} and bottomk {bottomk}: choose from 1 to {num_segments}, the segments of a video"
            )
        self.topk, self.bottomk, self.segment_dropout = topk, bottomk, segment_dropout
        self.directions_from_normal = directions_from_normal
        self.concat_similarity = concat_similarity
        self.text = PromptText(clip, self.class_names, num_context_tokens, vocabulary)
        dim = self.text.text_projection.shape[1]
        abnormal = len(self.class_names) - 1
        self.selector = Selector(abnormal)
        width = dim + abnormal * concat_similarity
        sizes = (embed_dim, depth, heads, num_segments, segment_len)
        self.temporal = TemporalModel(width, *sizes) if temporal else FrameModel(width, embed_dim)
        self.register_buffer("normal_prototype", torch.zeros(dim))

    # --- checkpoint ---------------------------------------------------------------------------------------------------

    def get_extra_state(self) -> Tensor:
        """The ordered class list as bytes of JSON in a tensor, so that every container of tensors can hold it."""
        text = json.dumps({"class_names": self.class_names, "normal_id": self.normal_id})
        return torch.tensor(list(text.encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Compares the checkpoint's class list with this model's.

        Raises:
            ZsadError: they differ; shows both.
        """
        stored = json.loads(bytes(state.tolist()).decode())
        if (stored["class_names"], stored["normal_id"]) != (self.class_names, self.normal_id):
            raise ZsadError(
                f"the checkpoint's classes are {', '.join(stored['class_names'])} (normal: {stored['normal_id']}), "
                f"this model's {', '.join(self.class_names)} (normal: {self.normal_id}); order counts"
            )

    def load_official(self, state_dict: Mapping, normal_prototype: Tensor) -> "AnomalyCLIP":
        """Loads a checkpoint of the published code, with or without the prefix ``net.``.

        Its image tower is ignored, since features come in. Its prompts name the classes: where they do not fit this
        model's class list, the order is wrong.

        Args:
            state_dict: Lightning's checkpoint or its state dict.
            normal_prototype: m [D], which the published checkpoint lacks: mean feature of all frames of normal training
                videos.

        Raises:
            ZsadError: keys missing, unexpected or of another shape, or classes that do not fit.
        """
        tensors, prefix = official_tensors(state_dict, ("net.",))
        taken = {name: value for name, value in tensors.items() if not name.startswith("image_encoder.")}
        first, rest = (taken.pop(f"prompt_learner.token_{end}", None) for end in ("prefix", "suffix"))
        if "token_embedding.weight" in taken:  # without it the report of missing keys says more
            self._check_prompts(first, rest, taken["token_embedding.weight"])
        taken.pop("selector_model.logit_scale", None)  # stored and never used
        names = {published_name(name): name for name in self.state_dict()}
        renamed = {names.get(name, name): value for name, value in taken.items()}
        renamed["normal_prototype"] = torch.as_tensor(normal_prototype, dtype=torch.float32).reshape(-1)
        renamed["_extra_state"] = self.get_extra_state()
        load_strict(self, renamed, prefix, published_name)
        return self

    def _check_prompts(self, first: Tensor | None, rest: Tensor | None, table: Tensor) -> None:
        """Published prompts are stored as word vectors, start [K, 1, W] and the rest [K, L, W]: are they those of this
        model's names?"""
        if first is None or rest is None:
            raise ZsadError(
                "the checkpoint holds no prompts (prompt_learner.token_prefix, token_suffix): its classes are unknown"
            )
        stored = torch.cat([first, rest], dim=1)[
            :, : self.text.tokens.shape[1]
        ]  # this model's end with the longest name
        expected = F.embedding(self.text.tokens, table) if len(table) > self.text.tokens.max() else stored[:0]
        if stored.shape != expected.shape or not torch.allclose(stored, expected, atol=1e-3):
            nearest = torch.cdist(rest[:, :SHOWN_TOKENS].flatten(0, 1), table).argmin(1).unflatten(0, (len(rest), -1))
            raise ZsadError(
                f"the checkpoint's classes are {', '.join(map(untokenize, nearest))}, this model's"
                f" {', '.join(self.class_names)}; give its own class list, in its order"
            )

    # --- the method ---------------------------------------------------------------------------------------------------

    def text_features(self) -> Tensor:
        """E_T of all classes, [K, D]."""
        return self.text()

    def directions(self) -> Tensor:
        """d_k of the abnormal classes, unit vectors [K-1, D]."""
        ends = self.text_features() - self.normal_prototype * self.directions_from_normal
        abnormal = torch.cat([ends[: self.normal_id], ends[self.normal_id + 1 :]])
        return F.normalize(abnormal, dim=-1)

    def _similarity(self, features: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Frames [..., D] -> S [..., K-1] and what the temporal model reads, [..., D or K-1+D]."""
        if features.shape[-1] != len(self.normal_prototype):
            raise ZsadError(
                f"features have {features.shape[-1]} numbers per frame, this model's CLIP {len(self.normal_prototype)}"
            )
        centred = features - self.normal_prototype
        similarity = self.selector(centred.flatten(0, -2), directions).unflatten(0, centred.shape[:-1])
        return similarity, torch.cat([similarity, centred], dim=-1) if self.concat_similarity else centred

    def train_outputs(self, features: Tensor, labels: Tensor, whole: bool = True) -> TrainOutputs:
        """One step of multiple-instance learning.

        The loss reads p_A on all frames of abnormal videos, but of normal ones only on their top segments, which S
        alone chooses.

        Args:
            features: [B, T, D] with T = num_segments * segment_len; abnormal videos in the first half.
            labels: class ids [B].
            whole: False: p_A is computed only where the loss reads it, and 0.5 elsewhere; same loss, same gradients,
                less time.

        Raises:
            ZsadError: a batch that is not abnormal videos first, normal ones second, half each; or another number of
                frames.
        """
        half, normal = len(labels) // 2, labels == self.normal_id
        if len(labels) % 2 or normal[:half].any() or not normal[half:].all():
            raise ZsadError("a batch holds abnormal videos first and as many normal ones after them")
        if features.shape[1] != self.num_segments * self.segment_len:
            raise ZsadError(f"{features.shape[1]} frames per video, expected {self.num_segments} x {self.segment_len}")
        grid = features.unflatten(1, (self.num_segments, self.segment_len))
        similarity, x = self._similarity(grid, self.directions())
        idx_topk_abn, idx_topk_nor, idx_bottomk_abn = choose_segments(
            similarity, labels, self.normal_id, self.topk, self.bottomk, self.segment_dropout
        )
        if whole:
            anomaly = self.temporal(x)  # [B, N, S]
        else:
            index = idx_topk_nor[..., None].expand(-1, -1, self.segment_len)
            tops = self.temporal(x[half:], idx_topk_nor)  # [B/2, topk, S]
            anomaly = torch.cat(
                [self.temporal(x[:half]), x.new_full((half, *x.shape[1:3]), 0.5).scatter(1, index, tops.to(x))]
            )
        return TrainOutputs(
            similarity.flatten(0, 2), anomaly.flatten(), idx_topk_abn, idx_topk_nor, idx_bottomk_abn,
            self.segment_len, self.normal_id,
        )  # fmt: skip

    def score(self, features: Tensor, causal: bool = False, directions: Tensor | None = None) -> Scored:
        """Scores a whole video of any length.

        As published, the frames are repeated up to J * N * S and cut into N segments of J * S; pass j reads the j-th
        run of S frames of every segment, so that each of the J passes spans the whole video, its end included.

        Args:
            features: [T, D], raw CLIP features of all frames, T >= 1.
            causal: p_A of a frame from the N * S frames before a window's end instead; windows end at every S-th frame,
                and a frame has the latest one that has ended by then. A shorter beginning is repeated.
            directions: `directions()`, which need the text tower: give them where many videos are scored.
        """
        length, segments, frames = len(features), self.num_segments, self.segment_len
        if not length:
            raise ZsadError("a video without frames has no score")
        similarity, x = self._similarity(features, self.directions() if directions is None else directions)
        if causal:
            ends = torch.arange(0, length, frames, device=x.device)
            anomaly = torch.cat([self._last_of_window(x, batch) for batch in ends.split(WINDOWS_AT_ONCE)])
            anomaly = anomaly.repeat_interleave(frames)[:length]
        else:
            passes = -(-length // (segments * frames))
            repeated = torch.arange(passes * segments * frames, device=x.device) % length
            grids = x[repeated].view(segments, passes, frames, -1).transpose(0, 1)  # [J, N, S, ...]
            anomaly = torch.cat([self.temporal(batch) for batch in grids.split(WINDOWS_AT_ONCE)])  # [J, N, S]
            anomaly = anomaly.transpose(0, 1).flatten()[:length]  # back in the order of frames
        return Scored(similarity, anomaly, joint_probabilities(similarity, anomaly, self.normal_id))

    def _last_of_window(self, x: Tensor, ends: Tensor) -> Tensor:
        """p_A of the last frame of the windows that end at some frames: [T, width], [W] -> [W]."""
        grid = torch.arange(1 - self.num_segments * self.segment_len, 1, device=x.device)
        frames = (ends[:, None] + grid) % (ends[:, None] + 1)  # round and round in what there is, the newest last
        windows = x[frames].unflatten(1, (self.num_segments, self.segment_len))
        return self.temporal(windows, torch.full_like(ends, self.num_segments - 1)[:, None])[:, 0, -1]


_PUBLISHED = (  # names here -> in the published code
    (r"^text\.context", "prompt_learner.ctx"),
    (r"^text\.token_embedding", "token_embedding"),
    (r"^text\.", "text_encoder."),
    (r"^selector\.norm", "selector_model.bn_layer"),
    (r"^temporal\.norm", "temporal_model.classifier.layer_norm"),
    (r"^temporal\.head", "temporal_model.classifier.linear"),
    (r"^temporal\.axial\.segment_positions", "temporal_model.axial_attn.pos_emb.param_0"),
    (r"^temporal\.axial\.frame_positions", "temporal_model.axial_attn.pos_emb.param_1"),
    (r"^temporal\.axial\.blocks", "temporal_model.axial_attn.layers.blocks"),
    (r"^temporal\.", "temporal_model."),
    (r"\.([fg])\.to_", r".\1.net.fn.fn.to_"),
    (r"\.([fg])\.norm", r".\1.net.fn.norm"),
    (r"\.([fg])\.(\d)", r".\1.net.\2"),
)


def published_name(name: str) -> str:
    """The published code's name of a tensor of `AnomalyCLIP`, without the prefix ``net.``.

    >>> published_name("temporal.axial.blocks.0.f.to_q.weight")
    'temporal_model.axial_attn.layers.blocks.0.f.net.fn.fn.to_q.weight'
    """
    for pattern, published in _PUBLISHED:
        name = re.sub(pattern, published, name)
    return name
