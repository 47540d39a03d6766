r"""Joint training on NORMAL video only: L = alpha * L_align + (1 - alpha) * L_pred (paper: arXiv 2508.18463).

L_align, symmetric InfoNCE of windows and gated captions, sees large batches of cached frozen features; L_pred, the CPC
loss, sees the gradient windows of each batch, the first `live` ones, whose predictive stream runs with gradient (all
windows, where `live` is the batch size). Several processes share the gradient windows of each step
(`zsad_lib.methods.context_aware.gradient_windows`): the loss curve is that of one. Steps, checkpoints and resuming are
those of `zsad_lib.methods.training_loop`.

Notebook: 20_train_detector
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from accelerate import Accelerator
from torch import Generator, Tensor, nn

from zsad_lib.config import Profile
from zsad_lib.features.backbones import Backbones, device, outline, processes
from zsad_lib.features.cache import cache_folder
from zsad_lib.features.extraction import frozen_streams
from zsad_lib.files.weights import load_weights
from zsad_lib.losses import cpc_loss, info_nce, moving_cells_loss, rejection_loss, swap_partners, swap_similarities
from zsad_lib.methods.context_aware import gradient_windows, memory_plan
from zsad_lib.methods.context_aware.training_windows import Windows, gather_blocks, load_windows, training_rows
from zsad_lib.methods.training_loop import descend, is_trained, run_steps, save_trained, training_key
from zsad_lib.models.detector import Detector
from zsad_lib.models.dpc import DPCOutput
from zsad_lib.processes import is_first, parallel, together
from zsad_lib.released_defects import acting_in


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
    "paper": Variant("ln", anchored=False, objective="plain", cells="all"),  # plain losses, residual projection
}
CHECKPOINT_STEPS = 50


def build_detector(variant: Variant, backbones: Backbones) -> Detector:
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


def variants_of(profile: Profile) -> dict[str, Variant]:
    """What a run trains. On streams without a head into CLIP's space, as the published ones, nothing is anchored, and c
    is 128 wide."""
    if outline(profile.backbones).video_head is not None:
        return VARIANTS
    return {name: dataclasses.replace(v, anchored=False, context_dim=128) for name, v in VARIANTS.items()}


def parameter_groups(detector: Detector, variant: Variant) -> list[dict]:
    """Optimiser groups: new parts, and the tuned parts of the predictive stream, where there are any, at a lower
    rate."""
    tuned = [p for p in detector.dpc.tuned_parameters() if p.requires_grad]
    tuned_ids = {id(p) for p in tuned}
    new = [p for p in detector.parameters() if p.requires_grad and id(p) not in tuned_ids]
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
    batch: Tensor,
    variant: Variant,
    alpha: float,
    released: tuple[str, ...],
    generator: Generator,
    chunk: int = 0,
) -> dict[str, Tensor]:
    r"""L = alpha * L_align + (1 - alpha) * L_pred of one batch, the same in every process.

    Where the variant is anchored, L_align has a penalty beside it: residual_penalty * mean |P|^2.

    Args:
        batch: numbers of the windows [B]; of the first `variant.live`, the predictive stream is computed anew, with
            gradient.
        alpha: weight of L_align, 0..1, unless the variant has one.
        released: switches of `DEFECTS` that act in training.
        generator: random numbers, on the CPU.
        chunk: gradient windows per pass with graph, see `gradient_windows.predict_with_gradient`.

    Returns:
        `loss`, `align`, `pred` and `residual`, scalars.
    """
    with_gradient = windows.clip_and_block[batch[: variant.live]]
    state, out = windows.dpc[batch], None
    if len(with_gradient):
        out = gradient_windows.predict_with_gradient(detector, windows.stem, with_gradient, chunk)
        state = torch.cat([out.context.mean((-2, -1)), state[len(with_gradient) :]])
    residual = detector.residual(windows.timesformer[batch], state)
    v = detector.embed(windows.timesformer[batch], state, residual)
    c = project_context(detector, windows.context[batch], released)
    align = alignment_loss(detector, windows, batch, v, c, variant, generator)
    penalty = torch.zeros(())
    if variant.anchored:
        penalty = variant.residual_penalty * residual.float().square().sum(-1).mean()
    if out is None:
        return {"loss": align + penalty, "align": align, "pred": torch.zeros(()), "residual": penalty}
    pred = prediction_loss(out, windows, with_gradient, variant, released, generator)
    alpha = alpha if variant.alpha is None else variant.alpha
    return {"loss": alpha * (align + penalty) + (1 - alpha) * pred, "align": align, "pred": pred, "residual": penalty}


def alignment_loss(
    detector: Detector, windows: Windows, batch: Tensor, v: Tensor, c: Tensor, variant: Variant, generator: Generator
) -> Tensor:
    """L_align: symmetric InfoNCE of the windows v [B, D] and their captions under the gate, t' = gate(t, c).

    Windows of one clip or of equal captions are no negatives of each other. The objectives `swap` and `reject` add each
    caption under the contexts of dissimilar scenes as negatives, `reject` a hinge on them as well.
    """
    text, caption, clip = windows.text[batch], windows.caption[batch], windows.clip_and_block[batch, 0]
    same = (caption[:, None] == caption[None]) | (clip[:, None] == clip[None])  # [B, B]
    gated, swapped = detector.gate.paired(text, c), None
    if variant.objective != "plain":
        partners, valid = swap_partners(windows.scene[batch], variant.swaps, variant.max_cosine, generator)
        swapped = swap_similarities(detector.gate, v, text, c, partners, valid)
    align = info_nce(v, gated, same=same, extra=swapped)
    return align + rejection_loss((v * gated).sum(-1), swapped) if variant.objective == "reject" else align


def prediction_loss(
    out: DPCOutput, windows: Windows, indices: Tensor, variant: Variant, released: tuple[str, ...], generator: Generator
) -> Tensor:
    """L_pred: CPC loss of the gradient windows at `indices` [B, 2], on cosines of moving cells or, as published, on all
    cells."""
    if variant.cells == "moving":
        pred_steps = out.predicted.shape[1]
        motion = gather_blocks(windows.cell_motion, indices)[:, -pred_steps:].to(indices.device)
        return moving_cells_loss(out.predicted, out.actual, motion, generator)
    return cpc_loss(out.predicted, out.actual, 0.07 if "cpc_temperature" in released else 1.0)


def project_context(detector: Detector, context: Tensor, released: tuple[str, ...]) -> Tensor:
    """c [B, context_dim]; under the released defect `context_projection` its projection stays random, as no gradient
    reaches it."""
    c = detector.context(context)
    return c.detach() if "context_projection" in released else c


def forget_context_projection(detector: Detector, released: tuple[str, ...]) -> None:
    """The other half of the released defect `context_projection`: it is never saved, and the next process draws another
    one."""
    if "context_projection" in released:
        nn.Linear.reset_parameters(detector.context_projection)


def train_detector(
    profile: Profile, variant: Variant, seed: int, windows: Windows, folder: Path, backbones: Backbones | None = None
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
    settings = [profile.alpha, profile.train_steps, profile.mixed_precision, released, cache_folder(profile).name]
    meta = {"variant": dataclasses.asdict(variant), "backbones": profile.backbones, "seed": seed}
    key = training_key(__name__, meta, settings, len(windows.text))
    target = folder / "detector.safetensors"
    if is_trained(target, key):
        return target
    accelerator = start_accelerator(profile)
    torch.manual_seed(seed)  # before the streams: building them draws numbers too
    detector = start_detector(variant, backbones or frozen_streams(profile), windows.context)
    optimiser = torch.optim.AdamW(parameter_groups(detector, variant), weight_decay=variant.weight_decay, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, profile.train_steps)
    detector.to(accelerator.device)
    optimiser = accelerator.prepare(optimiser)
    trained = [p for p in detector.parameters() if p.requires_grad]
    windows = standardise_scenes(windows).to(accelerator.device)
    gradient_windows.tune_pass(accelerator, detector, windows, variant.live, profile)

    def take_step(step: int) -> list[float]:
        torch.manual_seed(hash((seed, step)) % 2**32)  # dropout, swaps and cells
        batch = torch.from_numpy(batch_numbers(len(windows.text), variant.batch, step, seed))
        generator = torch.default_generator
        with accelerator.autocast():
            losses = joint_loss(detector, windows, batch, variant, profile.alpha, released, generator, profile.chunk)
        backward = lambda loss: gradient_windows.fill_gradients(accelerator, loss, trained)
        descend(losses["loss"], optimiser, schedule, trained, 1.0, backward)
        return [losses[name].item() for name in ("loss", "align", "pred", "residual")]

    stateful = [detector, optimiser, schedule, *filter(None, [accelerator.scaler])]
    history = run_steps(take_step, profile.train_steps, folder, key, stateful, CHECKPOINT_STEPS)
    if accelerator.is_main_process:
        forget_context_projection(detector, released)
        save_trained(target, detector.state_dict(), {**meta, "key": key, "history": history})
    accelerator.wait_for_everyone()  # the others read what the first has written
    return target


def start_accelerator(profile: Profile) -> Accelerator:
    """Device, precision and processes of a training: on a GPU where there is one, mixed precision as the profile
    says."""
    return Accelerator(cpu=not torch.cuda.is_available(), mixed_precision=profile.mixed_precision)


def start_detector(variant: Variant, backbones: Backbones, context: Tensor) -> Detector:
    """The detector before its first step, in training mode; `context` [W, S'] of all windows gives its scene
    statistics."""
    detector = build_detector(variant, backbones)
    detector.fit_scene_statistics(context)
    detector.train()
    detector.dpc.eval()  # its norm statistics stay those of pretraining, in training as in scoring
    return detector


def standardise_scenes(windows: Windows) -> Windows:
    """The windows with scenes of mean 0 and standard deviation 1 per dimension: their cosine tells scenes apart."""
    scene = (windows.scene - windows.scene.mean(0)) / windows.scene.std(0).clamp_min(1e-6)
    return windows._replace(scene=scene)


def detector_from(tensors: dict[str, Tensor], meta: dict, prefix: str = "") -> Detector:
    """A detector in eval mode from the tensors under `prefix` and the header's `variant` and `backbones`."""
    detector = build_detector(Variant(**meta["variant"]), outline(meta.get("backbones") or "stand_in"))
    weights = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    detector.load_state_dict(weights)
    return detector.eval().requires_grad_(False)


def load_detector(path: Path) -> Detector:
    """A trained detector in eval mode, from `train_detector`'s file."""
    return detector_from(*load_weights(path))


def fit(profile: Profile, folder: Path) -> dict:
    """Pipeline step: every variant and seed, in parallel; under a launcher one after the other, all processes on each.

    Finished ones are kept.
    """
    table = training_rows(folder.parent, profile.stride)
    windows = load_windows(profile, table, frozen_streams(profile).to(device()))
    if together() > 1:
        start_accelerator(profile).wait_for_everyone()  # the first has emptied the folder
    trainings = [(name, seed) for seed in profile.seeds for name in VARIANTS]
    jobs = min(processes(profile.jobs), len(trainings))
    planned = {name: plan_memory(profile, name, windows, jobs) for name in VARIANTS}
    tasks = [(planned[name], name, seed, windows, folder / name / str(seed)) for name, seed in trainings]
    artefacts = {}
    files = parallel(_train, tasks, jobs) if together() == 1 else (_train(*task) for task in tasks)
    for (name, seed), file in zip(trainings, files):
        history = load_weights(file)[1]["history"]
        if is_first():
            print(f"  {name}, seed {seed}: loss {history[0][0]:.3f} -> {np.mean(history[-20:], 0)[0]:.3f}", flush=True)
        artefacts[f"{name}/{seed}"] = str(file)
    return {"metrics": {"windows": len(windows.text), "clips": len(table)}, "artefacts": artefacts}


def plan_memory(profile: Profile, name: str, windows: Windows, jobs: int) -> Profile:
    """The profile with a chunk that fits `jobs` trainings of the variant `name` at a time; see
    `memory_plan.plan_chunk`."""
    variant, accelerator = variants_of(profile)[name], start_accelerator(profile)
    detector = build_detector(variant, frozen_streams(profile)).to(accelerator.device)
    detector.dpc.eval()
    if together() > 1:
        jobs = 1 if torch.cuda.is_available() else int(os.environ.get("LOCAL_WORLD_SIZE", together()))
    windows = windows.to(accelerator.device)
    tensors = {id(x): x for field in windows for x in (field if isinstance(field, list) else [field])}
    features = [x for x in tensors.values() if x.device.type == accelerator.device.type]
    batch = torch.from_numpy(batch_numbers(len(windows.text), variant.batch, 0, 0))

    def align() -> Tensor:
        frozen = dataclasses.replace(variant, live=0)
        with accelerator.autocast():
            return joint_loss(detector, windows, batch, frozen, 1.0, (), Generator())["loss"]

    predict = lambda: gradient_windows.predict_to_scalar(accelerator, detector, windows, 1)
    share = len(gradient_windows.select_share(batch[: variant.live]))
    planned = memory_plan.plan_chunk(profile, name, detector, features, align, predict, len(batch), share, jobs)
    torch.cuda.empty_cache()  # of the GPU, if any: the memory belongs to the processes that train
    return planned


def _train(profile: Profile, name: str, seed: int, windows: Windows, folder: Path) -> Path:
    if device() == "cpu":
        torch.set_num_threads(1)
    os.environ.setdefault("ACCELERATE_USE_CPU", "true" if device() == "cpu" else "")
    return train_detector(profile, variants_of(profile)[name], seed, windows, folder)
