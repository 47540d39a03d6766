r"""Joint training on NORMAL video only: L = alpha * L_align + (1 - alpha) * L_pred (paper: arXiv 2508.18463).

L_align, symmetric InfoNCE of windows and gated captions, sees large batches of cached frozen features; L_pred, the CPC loss, sees the
`live` windows of each batch, whose predictive stream runs with gradient (all windows, where `live` is the batch size). Every step
seeds its own random numbers, so a run that was interrupted goes on from its last checkpoint with equal results. Several processes share
the live windows of each step (`zsad_lib.methods.context_aware.gradient_windows`): the loss curve is that of one.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from zsad_lib.config import Profile
from zsad_lib.errors import ZsadError
from zsad_lib.features.backbones import Backbones, device, outline, processes
from zsad_lib.features.cache import cache_folder
from zsad_lib.features.extraction import frozen_streams
from zsad_lib.files import paths
from zsad_lib.files.weights import load_weights, save_weights
from zsad_lib.losses import cpc_loss, info_nce, moving_cells_loss, rejection_loss, swap_partners, swap_similarities
from zsad_lib.methods.context_aware import memory_plan
from zsad_lib.methods.context_aware.gradient_windows import live_pass, own_share, tune_speed
from zsad_lib.methods.context_aware.training_windows import Windows, gather_blocks, load_windows, training_rows
from zsad_lib.models.detector import Detector
from zsad_lib.pipeline.fingerprints import closure, digest
from zsad_lib.pipeline.processes import is_first, parallel, together
from zsad_lib.released_defects import acting_in

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
    """What a run trains. On streams without a head into CLIP's space, as the published ones, nothing is anchored, and c is 128 wide."""
    if outline(profile.backbones).video_head is not None:
        return VARIANTS
    return {name: dataclasses.replace(v, anchored=False, context_dim=128) for name, v in VARIANTS.items()}


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
    chunk: int = 0,
) -> dict[str, Tensor]:
    """The losses of one batch, the same in every process.

    Args:
        chosen: windows of this batch [B]; of the first `variant.live`, the predictive stream is computed anew, with gradient.
        generator: random numbers, on the CPU.
        chunk: live windows per pass with graph, see `live_pass`.

    Returns:
        `loss`, `align`, `pred` and `residual`, scalars.
    """
    live = windows.place[chosen[: variant.live]]
    state, out = windows.dpc[chosen], None
    if len(live):
        out = live_pass(detector, windows.stem, live, chunk)
        state = torch.cat([out.context.mean((-2, -1)), state[len(live) :]])
    residual = detector.residual(windows.timesformer[chosen], state)
    v = detector.embed(windows.timesformer[chosen], state, residual)
    c = detector.context(windows.context[chosen])
    if "context_projection" in released:
        c = c.detach()
    text, caption, clip = windows.text[chosen], windows.caption[chosen], windows.place[chosen, 0]
    same = (caption[:, None] == caption[None]) | (clip[:, None] == clip[None])
    gated, swapped = detector.gate.paired(text, c), None
    if variant.objective != "plain":
        partners, valid = swap_partners(windows.scene[chosen], variant.swaps, variant.max_cosine, generator)
        swapped = swap_similarities(detector.gate, v, text, c, partners, valid)
    align = info_nce(v, gated, same=same, extra=swapped)
    if variant.objective == "reject":
        align = align + rejection_loss((v * gated).sum(-1), swapped)
    penalty = (
        variant.residual_penalty * residual.float().square().sum(-1).mean() if variant.anchored else torch.zeros(())
    )
    if out is None:
        return {"loss": align + penalty, "align": align, "pred": torch.zeros(()), "residual": penalty}
    if variant.cells == "moving":
        motion = gather_blocks(windows.cell_motion, live)[:, -detector.dpc.pred_steps :].to(live.device)
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
    accelerator = _accelerator(profile)
    torch.manual_seed(seed)
    detector = build_detector(variant, backbones or frozen_streams(profile))
    detector.fit_scene_statistics(windows.context)
    detector.train()
    detector.dpc.eval()  # its norm statistics stay those of pretraining, in training as in scoring
    optimiser = torch.optim.AdamW(parameter_groups(detector, variant), weight_decay=variant.weight_decay, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, profile.train_steps)
    history: list[list[float]] = []
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True, map_location="cpu")
        if state["key"] == key:
            detector.load_state_dict(state["model"])
            optimiser.load_state_dict(state["optimiser"])
            schedule.load_state_dict(state["schedule"])
            if accelerator.scaler:
                accelerator.scaler.load_state_dict(state["scaler"])
            history = state["history"]
    detector.to(accelerator.device)
    optimiser = accelerator.prepare(optimiser)
    trained = [p for p in detector.parameters() if p.requires_grad]
    standardised = (windows.scene - windows.scene.mean(0)) / windows.scene.std(0).clamp_min(1e-6)  # tells scenes apart
    windows = windows._replace(scene=standardised)
    windows = windows.to(accelerator.device)
    if variant.live:
        share = len(own_share(windows.place[: variant.live]))
        size = min(profile.chunk or share, share)
        tune_speed(detector.dpc, profile, lambda: _pass(accelerator, detector, windows, size))
    for step in range(len(history), profile.train_steps):
        torch.manual_seed(hash((seed, step)) % 2**32)
        chosen = torch.from_numpy(batch_numbers(len(windows.text), variant.batch, step, seed))
        with accelerator.autocast():
            losses = joint_loss(
                detector, windows, chosen, variant, profile.alpha, released, torch.default_generator, profile.chunk
            )
        if not torch.isfinite(losses["loss"]):
            raise ZsadError(
                f"{folder}: the loss is not finite at step {step}; lower lr (now {variant.lr}) or look at the data"
            )
        optimiser.zero_grad()
        accelerator.backward(losses["loss"])
        if accelerator.num_processes > 1:  # see `gather_with_grad`; in one message
            grads = [p.grad for p in trained if p.grad is not None]
            vector_to_parameters(accelerator.reduce(parameters_to_vector(grads), reduction="mean"), grads)
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
                        scaler=accelerator.scaler.state_dict() if accelerator.scaler else {},
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
    accelerator.wait_for_everyone()  # the others read what the first has written
    return target


def _accelerator(profile) -> Accelerator:
    return Accelerator(cpu=not torch.cuda.is_available(), mixed_precision=profile.mixed_precision)


def _pass(accelerator: Accelerator, detector: Detector, windows: Windows, count: int) -> Tensor:
    """Predictive stream of the first windows, as a scalar: what `memory` measures and `tune_speed` tries."""
    with accelerator.autocast():
        out = detector.predict(gather_blocks(windows.stem, windows.place[:count]).to(windows.place.device))
    return sum(x.float().sum() for x in out)


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


def fit(profile, folder: Path) -> dict:
    """Pipeline step: every variant and seed, in parallel; under a launcher one after the other, all processes on each.

    Finished ones are kept.
    """
    table = training_rows(folder.parent, profile.stride)
    windows = load_windows(profile, table, frozen_streams(profile).to(device()))
    if together() > 1:
        _accelerator(profile).wait_for_everyone()  # the first has emptied the folder
    names = [(name, seed) for seed in profile.seeds for name in VARIANTS]
    jobs = min(processes(profile.jobs), len(names))
    planned = {name: plan_memory(profile, name, windows, jobs) for name in VARIANTS}
    tasks = [(planned[name], name, seed, windows, folder / name / str(seed)) for name, seed in names]
    artefacts, history = {}, {}
    runs = parallel(_train, tasks, jobs) if together() == 1 else (_train(*task) for task in tasks)
    for (name, seed), path in zip(names, runs):
        history = load_weights(path)[1]["history"]
        if is_first():
            print(f"  {name}, seed {seed}: loss {history[0][0]:.3f} -> {np.mean(history[-20:], 0)[0]:.3f}", flush=True)
        artefacts[f"{name}/{seed}"] = str(path)
    return {"metrics": {"windows": len(windows.text), "clips": len(table)}, "artefacts": artefacts}


def plan_memory(profile, name: str, windows: Windows, jobs: int) -> Profile:
    """The profile with a chunk that fits `jobs` trainings of the variant `name` at a time; see `memory.plan`."""
    variant, accelerator = variants_of(profile)[name], _accelerator(profile)
    detector = build_detector(variant, frozen_streams(profile)).to(accelerator.device)
    detector.dpc.eval()
    if together() > 1:
        jobs = 1 if torch.cuda.is_available() else int(os.environ.get("LOCAL_WORLD_SIZE", together()))
    windows = windows.to(accelerator.device)
    parts = {id(part): part for parts in windows for part in (parts if isinstance(parts, list) else [parts])}
    features = [part for part in parts.values() if part.device.type == accelerator.device.type]
    chosen = torch.from_numpy(batch_numbers(len(windows.text), variant.batch, 0, 0))

    def rest() -> Tensor:
        frozen = dataclasses.replace(variant, live=0)
        with accelerator.autocast():
            return joint_loss(detector, windows, chosen, frozen, 1.0, (), torch.Generator())["loss"]

    one = lambda: _pass(accelerator, detector, windows, 1)
    live = len(own_share(chosen[: variant.live]))
    planned = memory_plan.plan(profile, name, detector, features, rest, one, len(chosen), live, jobs)
    torch.cuda.empty_cache()  # of the GPU, if any: the memory belongs to the processes that train
    return planned


def _train(profile, name: str, seed: int, windows: Windows, folder: Path) -> Path:
    if device() == "cpu":
        torch.set_num_threads(1)
    os.environ.setdefault("ACCELERATE_USE_CPU", "true" if device() == "cpu" else "")
    return train_detector(profile, variants_of(profile)[name], seed, windows, folder)
