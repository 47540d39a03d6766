r"""Joint training on NORMAL video only: L = alpha * L_align + (1 - alpha) * L_pred (paper: arXiv 2508.18463).

L_align, symmetric InfoNCE of windows and gated captions, sees large batches of cached frozen features; L_pred, the CPC loss, sees the
`live` windows of each batch, whose predictive stream runs with gradient (all windows, where `live` is the batch size). Every step
seeds its own random numbers, so a run that was interrupted goes on from its last checkpoint with equal results.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from joblib import Parallel, delayed
from torch import Tensor, nn

from zsad_lib import paths
from zsad_lib.backbones import EMBED_DIM, SCENE, TIMESFORMER, stand_ins
from zsad_lib.errors import ZsadError
from zsad_lib.features import cache_folder, feature_file, load_features, window_blocks
from zsad_lib.fingerprint import closure, digest
from zsad_lib.losses import (
    cpc_loss,
    gather_with_grad,
    info_nce,
    moving_cells_loss,
    swap_partners,
    swap_similarities,
)
from zsad_lib.manifest import load_manifest
from zsad_lib.models.detector import Detector
from zsad_lib.models.text import encode_captions
from zsad_lib.released import acting_in
from zsad_lib.weights import load_weights, save_weights

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Variant:
    """One way to build and train the detector."""

    gate: str = "relevance"  # kind of context gate
    projection: Literal["mlp", "residual"] = "residual"  # P
    anchored: bool = True  # P corrects the frozen video head instead of replacing it
    swaps: int = 8  # context-swap negatives per clip; 0 = plain InfoNCE
    max_cosine: float = 0.7  # scenes below this cosine count as dissimilar
    context_dim: int = 32  # width of c (128 in the paper, on 512-d scene features)
    cells: Literal["moving", "all"] = "moving"  # L_pred: cosines of moving cells, or the published loss over all cells
    residual_penalty: float = 20.0  # weight of |P|^2 where anchored
    batch: int = 192  # windows per step of L_align
    live: int = 8  # windows per step of L_pred
    lr: float = 1e-3  # projection, gate, context projection
    lr_dpc: float = 1e-4  # layer4, ConvGRU, prediction head
    weight_decay: float = 1e-4


VARIANTS = {
    "full": Variant(),  # relevance gate, context swaps
    "paper": Variant(gate="ln", anchored=False, swaps=0, cells="all"),  # `ln` gate, plain losses, residual projection
}
CHECKPOINT_STEPS = 50


class Windows(NamedTuple):
    """Training windows: features and what they show. W windows of all training clips."""

    timesformer: Tensor  # [W, D]
    scene: Tensor  # [W, S]
    stem: list[Tensor]  # per clip [N, C', L', h', w'], float16
    cell_motion: list[Tensor]  # per clip [N, h, w]
    place: Tensor  # [W, 2] clip and first block of each window
    text: Tensor  # [W, D_text] unit vectors of the clips' captions, before the gate
    caption: Tensor  # [W] number of the caption


def load_windows(profile, table, backbones) -> Windows:
    """Features of the rows of `table`, window by window, with their captions' text vectors."""
    cache = cache_folder(profile)
    features = [load_features(feature_file(cache, row)) for row in table.itertuples()]
    counts = [len(f.timesformer) for f in features]
    place = torch.cat([torch.stack([torch.full((n,), i), torch.arange(n)], 1) for i, n in enumerate(counts)])
    captions = list(dict.fromkeys(table.caption))
    number = torch.tensor([captions.index(caption) for caption in table.caption])[place[:, 0]]
    text = encode_captions(backbones.clip, captions, backbones.vocabulary)
    return Windows(
        torch.cat([f.timesformer for f in features]),
        torch.cat([f.scene for f in features]),
        [f.stem for f in features],
        [f.cell_motion for f in features],
        place,
        text[number],
        number,
    )


def gather_blocks(clips: list[Tensor], place: Tensor) -> Tensor:
    """Blocks of chosen windows, [B, NUM_BLOCKS, ...], from blocks per clip: `place` [B, 2] holds clip and window."""
    return torch.stack([window_blocks(clips[clip])[window] for clip, window in place.tolist()])


@torch.no_grad()
def dpc_context(detector: Detector, stem: list[Tensor]) -> Tensor:
    """GRU state's mean over space of every window, [W, D_dpc]."""
    parts = []
    for blocks in stem:
        features = detector.dpc.encode_from_stem(blocks[None].float())[0]  # [N, D, h, w]
        windows = window_blocks(features)  # [W, NUM_BLOCKS, D, h, w]
        parts.append(detector.dpc.predict(windows).context.mean((-2, -1)))
    return torch.cat(parts)


def build_detector(variant: Variant, backbones) -> Detector:
    """An untrained detector on the stand-ins' sizes."""
    return Detector(
        backbones.dpc, TIMESFORMER["embed_dim"], SCENE["channels"][-1], EMBED_DIM, variant.context_dim, variant.gate,
        variant.projection, backbones.video_head if variant.anchored else None,
    )  # fmt: skip


def parameter_groups(detector: Detector, variant: Variant) -> list[dict]:
    """Optimiser groups: new parts, and the tuned parts of the predictive stream at a tenth of the rate."""
    tuned = {id(p) for p in detector.dpc.tuned_parameters()}
    new = [p for p in detector.parameters() if p.requires_grad and id(p) not in tuned]
    return [dict(params=new, lr=variant.lr), dict(params=detector.dpc.tuned_parameters(), lr=variant.lr_dpc)]


def batch_numbers(count: int, size: int, step: int, seed: int) -> np.ndarray:
    """Windows of step `step`: consecutive pieces of one shuffle per epoch, the same for every resume."""
    size = min(size, count)
    epoch, piece = divmod(step, count // size)
    return np.random.default_rng([seed, epoch]).permutation(count)[piece * size : (piece + 1) * size]


def joint_loss(
    detector: Detector,
    windows: Windows,
    context: Tensor,
    chosen: Tensor,
    variant: Variant,
    alpha: float,
    released: tuple[str, ...],
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """The losses of one batch.

    Args:
        context: predictive context of all windows [W, D_dpc], frozen; the live windows' is computed anew, with gradient.
        chosen: windows of this batch [B]; the first `variant.live` are live.

    Returns:
        `loss`, `align`, `pred` and `residual`, scalars.
    """
    live = chosen[: variant.live]
    out = detector.predict(gather_blocks(windows.stem, windows.place[live]).to(context.device))
    state = torch.cat([out.context.mean((-2, -1)), context[chosen[variant.live :]]])
    residual = detector.residual(windows.timesformer[chosen], state)
    v = gather_with_grad(detector.embed(windows.timesformer[chosen], state))
    scene = windows.scene[chosen]
    c = detector.context(scene)
    if "context_projection" in released:
        c = c.detach()
    text, caption, clip = windows.text[chosen], windows.caption[chosen], windows.place[chosen, 0]
    c, text, scene = gather_with_grad(c), gather_with_grad(text), gather_with_grad(scene)
    caption, clip = gather_with_grad(caption), gather_with_grad(clip)
    same = (caption[:, None] == caption[None]) | (clip[:, None] == clip[None])
    extra = None
    if variant.swaps:
        partners, valid = swap_partners(detector.standardised(scene), variant.swaps, variant.max_cosine, generator)
        extra = swap_similarities(detector.gate, v, text, c, partners, valid)
    align = info_nce(v, detector.gate.paired(text, c), same=same, extra=extra)
    if variant.cells == "moving":
        motion = gather_blocks(windows.cell_motion, windows.place[live])[:, -detector.dpc.pred_steps :].to(
            context.device
        )
        pred = moving_cells_loss(out.predicted, out.actual, motion, generator)
    else:
        pred = cpc_loss(out.predicted, out.actual, 0.07 if "cpc_temperature" in released else 1.0)
    penalty = variant.residual_penalty * residual.square().sum(-1).mean() if variant.anchored else torch.zeros(())
    return {"loss": alpha * (align + penalty) + (1 - alpha) * pred, "align": align, "pred": pred, "residual": penalty}


def train_detector(profile, variant: Variant, seed: int, windows: Windows, folder: Path) -> Path:
    """Train one detector, or go on from its checkpoint.

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
    detector = build_detector(variant, stand_ins())
    detector.fit_scene_statistics(windows.scene)
    detector.train()
    detector.dpc.eval()  # its norm statistics stay those of pretraining, in training as in scoring
    optimiser = torch.optim.AdamW(parameter_groups(detector, variant), weight_decay=variant.weight_decay)
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
    windows = windows._replace(
        **{
            name: getattr(windows, name).to(accelerator.device)
            for name in ("timesformer", "scene", "text", "caption", "place")
        }
    )
    context = dpc_context(build_detector(variant, stand_ins()).eval(), windows.stem).to(accelerator.device)
    for step in range(len(history), profile.train_steps):
        torch.manual_seed(hash((seed, step)) % 2**32)
        chosen = torch.from_numpy(batch_numbers(len(windows.text), variant.batch, step, seed))
        chosen = chosen[
            accelerator.process_index :: accelerator.num_processes
        ]  # each process its share of the global batch
        with accelerator.autocast():
            losses = joint_loss(
                detector, windows, context, chosen, variant, profile.alpha, released, torch.default_generator
            )
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
            dict(key=key, variant=dataclasses.asdict(variant), seed=seed, history=history),
        )
        checkpoint.unlink(missing_ok=True)
    return target


def detector_from(tensors: dict[str, Tensor], variant: dict, prefix: str = "") -> Detector:
    """A detector in eval mode from the tensors under `prefix` and the settings of its variant."""
    detector = build_detector(Variant(**variant), stand_ins())
    detector.load_state_dict(
        {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    )
    return detector.eval().requires_grad_(False)


def load_detector(path: Path) -> Detector:
    """A trained detector in eval mode, from `train_detector`'s file."""
    tensors, meta = load_weights(path)
    return detector_from(tensors, meta["variant"])


def fit(profile, folder: Path) -> dict:
    """Pipeline step: every variant and seed, in parallel; finished ones are kept."""
    table = load_manifest(folder.parent / "data")
    table = table[(table.split == "train")]
    if (table.spans != "").any():
        raise ZsadError(
            f"{folder.parent / 'data'}: the training list holds abnormal frames; this method trains on normal video only"
        )
    windows = load_windows(profile, table, stand_ins())
    tasks = [(name, seed) for seed in profile.seeds for name in VARIANTS]
    artefacts, history = {}, {}
    runs = Parallel(profile.jobs, return_as="generator")(
        delayed(_train)(profile, name, seed, windows, folder / name / str(seed)) for name, seed in tasks
    )
    for (name, seed), path in zip(tasks, runs):
        history = load_weights(path)[1]["history"]
        print(f"  {name}, seed {seed}: loss {history[0][0]:.3f} -> {np.mean(history[-20:], 0)[0]:.3f}", flush=True)
        artefacts[f"{name}/{seed}"] = str(path)
    return {"metrics": {"windows": len(windows.text), "clips": len(table)}, "artefacts": artefacts}


def _train(profile, name: str, seed: int, windows: Windows, folder: Path) -> Path:
    torch.set_num_threads(1)
    os.environ.setdefault("ACCELERATE_USE_CPU", "" if torch.cuda.is_available() else "true")
    return train_detector(profile, VARIANTS[name], seed, windows, folder)
