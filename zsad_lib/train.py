r"""Joint training on NORMAL video only: L = alpha * L_align + (1 - alpha) * L_pred (paper: arXiv 2508.18463).

L_align, symmetric InfoNCE of windows and gated captions, sees large batches of cached frozen features; L_pred, the CPC loss, sees the
`live` windows of each batch, whose predictive stream runs with gradient (all windows, where `live` is the batch size). Every step
seeds its own random numbers, so a run that was interrupted goes on from its last checkpoint with equal results.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import os
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from zsad_lib import paths
from zsad_lib.backbones import Backbones, device, outline, processes
from zsad_lib.errors import ZsadError
from zsad_lib.features import (
    BLOCK_LEN,
    NUM_BLOCKS,
    cache_folder,
    encode_long,
    feature_file,
    frozen_streams,
    load_features,
    window_blocks,
    window_count,
)
from zsad_lib.fingerprint import closure, digest
from zsad_lib.losses import (
    cpc_loss,
    gather_with_grad,
    info_nce,
    moving_cells_loss,
    rejection_loss,
    swap_partners,
    swap_similarities,
)
from zsad_lib.manifest import load_manifest
from zsad_lib.models.detector import Detector
from zsad_lib.models.dpc import DPC
from zsad_lib.models.text import encode_captions
from zsad_lib.released import acting_in
from zsad_lib.weights import load_weights, save_weights
from zsad_lib.workers import parallel

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Variant:
    """One way to build and train the detector."""

    gate: str = "relevance"  # kind of context gate
    projection: Literal["mlp", "residual"] = "residual"  # P
    blocks: int = 2  # of a residual P
    streams: tuple[str, ...] = ("timesformer", "dpc")  # what P reads
    anchored: bool = True  # P corrects the frozen video head instead of replacing it
    objective: Literal["plain", "swap", "reject"] = "swap"  # InfoNCE; with context-swap negatives; with a hinge as well
    swaps: int = 8  # context swaps per clip
    max_cosine: float = 0.7  # scenes below this cosine count as dissimilar
    context: Literal["scene", "shuffled", "zero", "global"] = "scene"  # what the gate sees; the others are controls
    context_dim: int = 32  # width of c (128 in the paper, on 512-d scene features)
    cells: Literal["moving", "all"] = "moving"  # L_pred: cosines of moving cells, or the published loss over all cells
    residual_penalty: float = 20.0  # weight of |P|^2 where anchored
    batch: int = 192  # windows per step of L_align
    live: int = 8  # windows per step of L_pred; 0: the predictive stream stays as pretrained, and L = L_align
    alpha: float | None = None  # weight of L_align, 0..1; None: the profile's
    lr: float = 1e-3  # projection, gate, context projection
    lr_dpc: float = 1e-4  # layer4, ConvGRU, prediction head
    weight_decay: float = 1e-4


VARIANTS = {
    "full": Variant(),  # relevance gate, context swaps
    "paper": Variant(
        gate="ln", anchored=False, objective="plain", cells="all"
    ),  # `ln` gate, plain losses, residual projection
}
CHECKPOINT_STEPS = 50
SEGMENT_WINDOWS = 4  # training windows of one caption of a long video, at most
WINDOWS_AT_ONCE = 512  # whose GRU state is computed at a time


class Windows(NamedTuple):
    """W windows of some clips: features and, in training, what they show."""

    timesformer: Tensor  # [W, D]
    dpc: Tensor  # [W, D_dpc] mean over space of the pretrained predictive stream's GRU state
    scene: Tensor  # [W, S]
    context: Tensor  # [W, S'] what the gate sees: the scene, or a control
    place: Tensor  # [W, 2] clip and first block of each window
    text: Tensor  # [W, D_text] unit vectors of the clips' captions, before the gate
    caption: Tensor  # [W] number of the caption
    stem: list[Tensor]  # per clip [N, C', L', h', w'], float16
    cell_motion: list[Tensor]  # per clip [N, h, w]


def load_windows(profile, table, backbones, state: bool = True) -> Windows:
    """Features of the rows of `table`, window by window, with their captions' text vectors.

    Args:
        table: rows of the manifest with a caption each; a column `windows` names the windows of a row, else it is all of them.
        state: False: `dpc` holds zeros, for training in which every window of a batch computes it anew.
    """
    cache, loaded = cache_folder(profile), {}
    for row in table.drop_duplicates("video").itertuples():
        loaded[row.video] = load_features(feature_file(cache, row))
    features = [loaded[video] for video in table.video]
    whole = [np.arange(len(f.timesformer)) for f in features]
    chosen = [torch.from_numpy(np.asarray(part)) for part in (table["windows"] if "windows" in table else whole)]
    place = torch.cat([torch.stack([torch.full_like(part, i), part], 1) for i, part in enumerate(chosen)])
    captions = {caption: number for number, caption in enumerate(dict.fromkeys(table.caption))}
    number = torch.tensor([captions[caption] for caption in table.caption])[place[:, 0]]
    text = encode_captions(backbones.clip, list(captions), backbones.vocabulary).cpu()
    joined = lambda values: torch.cat([values[video][part] for video, part in zip(table.video, chosen)])
    scene, width = joined({video: f.scene for video, f in loaded.items()}), backbones.dpc.backbone.channels
    dpc = torch.zeros(len(scene), width)
    if state:
        dpc = joined({video: dpc_context(backbones.dpc, [f.stem]) for video, f in loaded.items()})
    return Windows(
        timesformer=joined({video: f.timesformer for video, f in loaded.items()}),
        dpc=dpc,
        scene=scene,
        context=scene,
        place=place,
        text=text[number],
        caption=number,
        stem=[f.stem for f in features],
        cell_motion=[f.cell_motion for f in features],
    )


def captioned(table, captions, stride: int):
    """A row per caption of a normal video, with the windows that it speaks of.

    Up to `SEGMENT_WINDOWS` of those that lie inside the caption's time, evenly drawn; of a shorter caption the one around its middle.

    Args:
        table: manifest rows.
        captions: `video`, `start_s`, `end_s`, `caption`; those of other videos are left out.
        stride: frames from one seen frame to the next.

    Returns:
        The rows of `table` with another `caption`, and `windows`, numbers from 0.
    """
    rows = table.drop(columns="caption").merge(captions[["video", "start_s", "end_s", "caption"]], on="video")
    windows = []
    for row in rows.itertuples():
        rate, count = row.fps / (BLOCK_LEN * stride), window_count(-(-row.n_frames // stride))  # blocks per second
        first, last = math.ceil(row.start_s * rate), math.floor(row.end_s * rate) - NUM_BLOCKS
        if last < first:
            first = last = round((row.start_s + row.end_s) / 2 * rate - NUM_BLOCKS / 2)
        ends = np.clip([first, last], 0, count - 1)
        windows.append(np.unique(np.linspace(*ends, min(SEGMENT_WINDOWS, ends[1] - ends[0] + 1)).round().astype(int)))
    return rows.assign(windows=windows)


def gather_blocks(clips: list[Tensor], place: Tensor) -> Tensor:
    """Blocks of chosen windows, [B, NUM_BLOCKS, ...], from blocks per clip: `place` [B, 2] holds clip and window."""
    return torch.stack([window_blocks(clips[clip])[window] for clip, window in place.tolist()])


@torch.no_grad()
def dpc_context(dpc: DPC, stem: list[Tensor]) -> Tensor:
    """GRU state's mean over space of every window, [W, D_dpc]."""
    parts = []
    for blocks in stem:
        windows = window_blocks(encode_long(dpc, blocks[None])[0])  # [W, NUM_BLOCKS, D, h, w]
        parts += [dpc.predict(some).context.mean((-2, -1)).cpu() for some in windows.split(WINDOWS_AT_ONCE)]
    return torch.cat(parts)


def build_detector(variant: Variant, backbones) -> Detector:
    """An untrained detector on the widths of some streams."""
    options = {"blocks": variant.blocks} if variant.projection == "residual" else {}
    width = backbones.video_dim if variant.context == "global" else backbones.scene_dim
    detector = Detector(
        backbones.dpc, backbones.video_dim, width, backbones.text_dim, variant.context_dim, variant.gate,
        variant.projection, backbones.video_head if variant.anchored else None, tuple(variant.streams), **options,
    )  # fmt: skip
    if not variant.live:
        detector.dpc.requires_grad_(False)
    return detector


def variants_of(profile) -> dict[str, Variant]:
    """What a run trains. On published streams nothing is anchored, since they come without a head into CLIP's space, and c is 128 wide."""
    if profile.backbones == "stand_in":
        return VARIANTS
    return {name: dataclasses.replace(v, anchored=False, context_dim=128) for name, v in VARIANTS.items()}


def with_context(windows: Windows, source: str, seed: int) -> Windows:
    """The windows with what a control shows to the gate instead of the scene.

    Args:
        source: `scene`; `shuffled`: the scene of another clip, drawn anew for every window; `zero`: nothing; `global`: the
            video feature.
        seed: of the draw.
    """
    if source == "global":
        return windows._replace(context=windows.timesformer)
    if source == "zero":
        return windows._replace(context=torch.zeros_like(windows.scene))
    if source == "shuffled":
        order = torch.randperm(len(windows.scene), generator=torch.Generator().manual_seed(seed))
        return windows._replace(context=windows.scene[order])
    return windows


def parameter_groups(detector: Detector, variant: Variant) -> list[dict]:
    """Optimiser groups: new parts, and the tuned parts of the predictive stream, where there are any, at a lower rate."""
    tuned = [p for p in detector.dpc.tuned_parameters() if p.requires_grad]
    others = {id(p) for p in tuned}
    new = [p for p in detector.parameters() if p.requires_grad and id(p) not in others]
    groups = [dict(params=new, lr=variant.lr), dict(params=tuned, lr=variant.lr_dpc)]
    return [group for group in groups if group["params"]]


def batch_numbers(count: int, size: int, step: int, seed: int) -> np.ndarray:
    """Windows of step `step`: consecutive pieces of one shuffle per epoch, the same for every resume."""
    size = min(size, count)
    epoch, piece = divmod(step, count // size)
    return np.random.default_rng([seed, epoch]).permutation(count)[piece * size : (piece + 1) * size]


def joint_loss(
    detector: Detector,
    windows: Windows,
    chosen: Tensor,
    variant: Variant,
    alpha: float,
    released: tuple[str, ...],
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """The losses of one batch.

    Args:
        chosen: windows of this batch [B]; of the first `variant.live`, the predictive stream is computed anew, with gradient.

    Returns:
        `loss`, `align`, `pred` and `residual`, scalars.
    """
    live, device = chosen[: variant.live], windows.timesformer.device
    state, out = windows.dpc[chosen], None
    if len(live):
        out = detector.predict(gather_blocks(windows.stem, windows.place[live]).to(device))
        state = torch.cat([out.context.mean((-2, -1)), state[len(live) :]])
    residual = detector.residual(windows.timesformer[chosen], state)
    v = gather_with_grad(detector.embed(windows.timesformer[chosen], state, residual))
    c = detector.context(windows.context[chosen])
    if "context_projection" in released:
        c = c.detach()
    text, caption, clip = windows.text[chosen], windows.caption[chosen], windows.place[chosen, 0]
    c, text = gather_with_grad(c), gather_with_grad(text)
    caption, clip = gather_with_grad(caption), gather_with_grad(clip)
    same = (caption[:, None] == caption[None]) | (clip[:, None] == clip[None])
    gated, swapped = detector.gate.paired(text, c), None
    if variant.objective != "plain":
        scene = gather_with_grad(windows.scene[chosen])
        partners, valid = swap_partners(scene, variant.swaps, variant.max_cosine, generator)
        swapped = swap_similarities(detector.gate, v, text, c, partners, valid)
    align = info_nce(v, gated, same=same, extra=swapped)
    if variant.objective == "reject":
        align = align + rejection_loss((v * gated).sum(-1), swapped)
    penalty = variant.residual_penalty * residual.square().sum(-1).mean() if variant.anchored else torch.zeros(())
    if out is None:
        return {"loss": align + penalty, "align": align, "pred": torch.zeros(()), "residual": penalty}
    if variant.cells == "moving":
        motion = gather_blocks(windows.cell_motion, windows.place[live])[:, -detector.dpc.pred_steps :].to(device)
        pred = moving_cells_loss(out.predicted, out.actual, motion, generator)
    else:
        pred = cpc_loss(out.predicted, out.actual, 0.07 if "cpc_temperature" in released else 1.0)
    alpha = alpha if variant.alpha is None else variant.alpha
    return {"loss": alpha * (align + penalty) + (1 - alpha) * pred, "align": align, "pred": pred, "residual": penalty}


def train_detector(
    profile, variant: Variant, seed: int, windows: Windows, folder: Path, backbones: Backbones | None = None
) -> Path:
    """Train one detector, or go on from its checkpoint.

    Args:
        profile: for its steps, precision, alpha and defect switches.
        windows: of normal training video.
        folder: of this training.
        backbones: frozen streams that `windows` came from; None: the profile's.

    Returns:
        `folder`/detector.safetensors with the training curve and the settings in its header.

    Raises:
        ZsadError: the loss is not finite.
    """
    released = acting_in(profile.released, "train")
    key = digest(
        [
            dataclasses.asdict(variant),
            seed,
            profile.alpha,
            profile.train_steps,
            profile.mixed_precision,
            released,
            cache_folder(profile).name,
            closure([__name__]),
            len(windows.text),
        ]
    )
    target, checkpoint = folder / "detector.safetensors", folder / "checkpoint.pt"
    if target.exists() and load_weights(target)[1].get("key") == key:
        return target
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision=profile.mixed_precision)
    torch.manual_seed(seed)
    detector = build_detector(variant, backbones or frozen_streams(profile))
    detector.fit_scene_statistics(windows.context)
    detector.train()
    detector.dpc.eval()  # its norm statistics stay those of pretraining, in training as in scoring
    optimiser = torch.optim.AdamW(parameter_groups(detector, variant), weight_decay=variant.weight_decay, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, profile.train_steps)
    history: list[list[float]] = []
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        if state["key"] == key:
            detector.load_state_dict(state["model"])
            optimiser.load_state_dict(state["optimiser"])
            schedule.load_state_dict(state["schedule"])
            history = state["history"]
    detector.to(accelerator.device)
    optimiser = accelerator.prepare(optimiser)
    trained = [p for p in detector.parameters() if p.requires_grad]
    standardised = (windows.scene - windows.scene.mean(0)) / windows.scene.std(0).clamp_min(1e-6)  # tells scenes apart
    windows = windows._replace(scene=standardised)
    windows = Windows(*(part if isinstance(part, list) else part.to(accelerator.device) for part in windows))
    for step in range(len(history), profile.train_steps):
        torch.manual_seed(hash((seed, step)) % 2**32)
        chosen = torch.from_numpy(batch_numbers(len(windows.text), variant.batch, step, seed))
        chosen = chosen[
            accelerator.process_index :: accelerator.num_processes
        ]  # each process its share of the global batch
        with accelerator.autocast():
            losses = joint_loss(detector, windows, chosen, variant, profile.alpha, released, torch.default_generator)
        if not torch.isfinite(losses["loss"]):
            raise ZsadError(
                f"{folder}: the loss is not finite at step {step}; lower lr (now {variant.lr}) or look at the data"
            )
        optimiser.zero_grad()
        accelerator.backward(losses["loss"])
        for parameter in trained if accelerator.num_processes > 1 else ():
            parameter.grad = accelerator.reduce(parameter.grad, reduction="mean")
        accelerator.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        schedule.step()
        history.append([losses[name].item() for name in ("loss", "align", "pred", "residual")])
        if (step + 1) % CHECKPOINT_STEPS == 0 and step + 1 < profile.train_steps and accelerator.is_main_process:
            with paths.atomic(checkpoint, mode=None) as temporary:
                torch.save(
                    dict(
                        key=key,
                        model=detector.state_dict(),
                        optimiser=optimiser.state_dict(),
                        schedule=schedule.state_dict(),
                        history=history,
                    ),
                    temporary,
                )
    if accelerator.is_main_process:
        if "context_projection" in released:  # never saved: the next process draws another one
            nn.Linear.reset_parameters(detector.context_projection)
        save_weights(
            target,
            detector.state_dict(),
            dict(key=key, variant=dataclasses.asdict(variant), backbones=profile.backbones, seed=seed, history=history),
        )
        checkpoint.unlink(missing_ok=True)
    return target


def detector_from(tensors: dict[str, Tensor], meta: dict, prefix: str = "") -> Detector:
    """A detector in eval mode from the tensors under `prefix` and the header's `variant` and `backbones`."""
    detector = build_detector(Variant(**meta["variant"]), outline(meta.get("backbones") or "stand_in"))
    detector.load_state_dict(
        {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    )
    return detector.eval().requires_grad_(False)


def load_detector(path: Path) -> Detector:
    """A trained detector in eval mode, from `train_detector`'s file."""
    return detector_from(*load_weights(path))


def training_rows(run: Path, stride: int):
    """The captioned normal training videos of a run's manifest.

    Raises:
        ZsadError: abnormal frames among them, or a data set without captions.
    """
    table = load_manifest(run / "data")
    table = table[(table.split == "train") & (table.family == "normal")]
    if (table.spans != "").any():
        raise ZsadError(
            f"{run / 'data'}: the training list holds abnormal frames; this method trains on normal video only"
        )
    if (listed := run / "data" / "captions.csv").exists():
        table = captioned(table, pd.read_csv(listed), stride)
    if (table.caption == "").any() or table.empty:
        raise ZsadError(f"{run / 'data'}: no captions of normal training video; this method learns from captions")
    return table


def fit(profile, folder: Path) -> dict:
    """Pipeline step: every variant and seed, in parallel; finished ones are kept."""
    table = training_rows(folder.parent, profile.stride)
    windows = load_windows(profile, table, frozen_streams(profile).to(device()))
    tasks = [(name, seed) for seed in profile.seeds for name in VARIANTS]
    artefacts, history = {}, {}
    runs = parallel(
        _train,
        [(profile, name, seed, windows, folder / name / str(seed)) for name, seed in tasks],
        processes(profile.jobs),
    )
    for (name, seed), path in zip(tasks, runs):
        history = load_weights(path)[1]["history"]
        print(f"  {name}, seed {seed}: loss {history[0][0]:.3f} -> {np.mean(history[-20:], 0)[0]:.3f}", flush=True)
        artefacts[f"{name}/{seed}"] = str(path)
    return {"metrics": {"windows": len(windows.text), "clips": len(table)}, "artefacts": artefacts}


def _train(profile, name: str, seed: int, windows: Windows, folder: Path) -> Path:
    if device() == "cpu":
        torch.set_num_threads(1)
    os.environ.setdefault("ACCELERATE_USE_CPU", "true" if device() == "cpu" else "")
    return train_detector(profile, variants_of(profile)[name], seed, windows, folder)
