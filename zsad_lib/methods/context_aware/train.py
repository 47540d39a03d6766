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
import functools
import os
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Generator, Tensor, nn

from zsad_lib.config import Profile
from zsad_lib.errors import ZsadError
from zsad_lib.features.backbones import Backbones, device, outline, processes
from zsad_lib.features.cache import cache_folder
from zsad_lib.features.extraction import frozen_streams
from zsad_lib.files.weights import load_weights
from zsad_lib.methods.context_aware import gradient_windows, memory_plan
from zsad_lib.methods.context_aware.joint_loss import joint_loss
from zsad_lib.methods.context_aware.local_readout import MOVING_QUANTILE
from zsad_lib.methods.context_aware.training_windows import Windows, load_windows, training_rows
from zsad_lib.methods.context_aware.variants import VARIANTS, Variant, build_detector, parameter_groups, variants_of
from zsad_lib.methods.training_loop import descend, is_trained, run_steps, save_trained, training_key
from zsad_lib.models.detector import Detector
from zsad_lib.processes import is_first, parallel, together
from zsad_lib.released_defects import acting_in

CHECKPOINT_STEPS = 50


def batch_numbers(count: int, size: int, step: int, seed: int) -> np.ndarray:
    """Windows of step `step`: consecutive pieces of one shuffle per epoch, the same for every resume."""
    size = min(size, count)
    epoch, piece = divmod(step, count // size)
    return _shuffle(count, seed, epoch)[piece * size : (piece + 1) * size]


@functools.lru_cache(maxsize=2)
def _shuffle(count: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(count)


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
    count, steps = example_count(windows, variant), profile.train_steps * variant.passes
    key = training_key(__name__, meta, settings, count)
    target = folder / "detector.safetensors"
    if is_trained(target, key):
        return target
    accelerator = start_accelerator(profile)
    torch.manual_seed(seed)  # before the streams: building them draws numbers too
    detector = start_detector(variant, backbones or frozen_streams(profile), windows)
    optimiser = torch.optim.AdamW(parameter_groups(detector, variant), weight_decay=variant.weight_decay, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    detector.to(accelerator.device)
    optimiser = accelerator.prepare(optimiser)
    trained = [p for p in detector.parameters() if p.requires_grad]
    windows = standardise_scenes(windows).to(accelerator.device)
    gradient_windows.tune_pass(accelerator, detector, windows, variant.live, profile)

    def take_step(step: int) -> list[float]:
        torch.manual_seed(hash((seed, step)) % 2**32)  # dropout, swaps and cells
        batch = torch.from_numpy(batch_numbers(count, variant.batch, step, seed))
        generator = torch.default_generator
        with accelerator.autocast():
            losses = joint_loss(detector, windows, batch, variant, profile.alpha, released, generator, profile.chunk)
        backward = lambda loss: gradient_windows.fill_gradients(accelerator, loss, trained)
        descend(losses["loss"], optimiser, schedule, trained, 1.0, backward)
        return [losses[name].item() for name in ("loss", "align", "pred", "residual")]

    stateful = [detector, optimiser, schedule, *filter(None, [accelerator.scaler])]
    history = run_steps(take_step, steps, folder, key, stateful, CHECKPOINT_STEPS)
    if accelerator.is_main_process:
        forget_context_projection(detector, released)
        save_trained(target, detector.state_dict(), {**meta, "key": key, "history": history})
    accelerator.wait_for_everyone()  # the others read what the first has written
    return target


def start_accelerator(profile: Profile) -> Accelerator:
    """Device, precision and processes of a training: on a GPU where there is one, mixed precision as the profile
    says."""
    return Accelerator(cpu=not torch.cuda.is_available(), mixed_precision=profile.mixed_precision)


def example_count(windows: Windows, variant: Variant) -> int:
    """How many windows, or regions of them, L_align draws from; ZsadError where a local read-out finds no regions."""
    if variant.readout == "local" and windows.pairs is None:
        raise ZsadError("windows without regions, which a local read-out learns from; train with readout='global'")
    return len(windows.text) if variant.readout == "global" else len(windows.pairs.vector)


def start_detector(variant: Variant, backbones: Backbones, windows: Windows) -> Detector:
    """The detector before its first step, in training mode; `windows` give its scene statistics, and what moves."""
    detector = build_detector(variant, backbones)
    detector.fit_scene_statistics(windows.context)
    if windows.cell_motion:
        motion = torch.cat([clip.flatten() for clip in windows.cell_motion])
        detector.moving_from.fill_(float(np.quantile(motion.numpy(), MOVING_QUANTILE)))
    detector.train()
    detector.dpc.eval()  # its norm statistics stay those of pretraining, in training as in scoring
    return detector


def standardise_scenes(windows: Windows) -> Windows:
    """The windows with scenes of mean 0 and standard deviation 1 per dimension: their cosine tells scenes apart."""
    mean, std = windows.scene.mean(0), windows.scene.std(0).clamp_min(1e-6)
    pairs = windows.pairs and windows.pairs._replace(scene=(windows.pairs.scene - mean) / std)
    return windows._replace(scene=(windows.scene - mean) / std, pairs=pairs)


def detector_from(
    tensors: dict[str, Tensor], meta: dict, prefix: str = "", backbones: Backbones | None = None
) -> Detector:
    """A detector in eval mode from the tensors under `prefix` and the header's `variant` and `backbones`.

    With `backbones`, the predictive stream among them is the detector's and takes its weights too.
    """
    kind = meta.get("backbones") or "stand_in"
    detector = build_detector(Variant(**meta["variant"]), backbones or outline(kind))
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
    windows = load_windows(profile, table, frozen_streams(profile).to(device()), regions=True)
    if together() > 1:
        start_accelerator(profile).wait_for_everyone()  # the first has emptied the folder
    trainings = [(name, seed) for name in VARIANTS for seed in profile.seeds]  # the longest first: all end together
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
    fields = [*windows, *(windows.pairs or ())]
    tensors = {id(x): x for field in fields for x in (field if isinstance(field, list) else [field])}
    features = [x for x in tensors.values() if isinstance(x, Tensor) and x.device.type == accelerator.device.type]
    batch = torch.from_numpy(batch_numbers(example_count(windows, variant), variant.batch, 0, 0))

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
    if name == "paper" and windows.paper_text is not None:
        windows = windows._replace(text=windows.paper_text)
    return train_detector(profile, variants_of(profile)[name], seed, windows, folder)
