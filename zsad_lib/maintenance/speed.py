"""Speed as ratios of two ways to do the same, both timed in one run, turn by turn: ``make bench``.

A ratio travels between machines better than seconds do; the seconds stand beside it with the device's name. Each
function takes its sizes as arguments and checks that both ways give the same result before it times them.
"""

import functools
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from zsad_lib.evaluate import weighted_auc
from zsad_lib.features.backbones import EMBED_DIM, STAND_IN_SIZE, stand_ins
from zsad_lib.features.devices import device_name
from zsad_lib.features.extraction import Extractor
from zsad_lib.features.window_plan import window_count
from zsad_lib.files import paths
from zsad_lib.losses import anomaly_clip_loss
from zsad_lib.maintenance.baselines import anomaly_clip_in_loops, metrics_by_copying
from zsad_lib.maintenance.machine import as_table, describe_machine, short
from zsad_lib.maintenance.matrix_limit import limit_of
from zsad_lib.maintenance.speed_of_a_camera import next_window, published_camera, regions, shipped_camera, stream
from zsad_lib.maintenance.speed_of_networks import fused_attention, half_precision
from zsad_lib.maintenance.speed_of_videos import clip_features, one_decode, own_video
from zsad_lib.maintenance.timing import Row, compare, one_thread
from zsad_lib.methods.context_aware.train import Variant, batch_numbers, build_detector, joint_loss, parameter_groups
from zsad_lib.methods.context_aware.training_windows import Windows, dpc_context
from zsad_lib.models import AnomalyCLIP, build_clip
from zsad_lib.models.anomaly_clip_recipes import PUBLISHED
from zsad_lib.models.detector import Detector

UCF_CRIME = PUBLISHED["ucf_crime"]
STILL_TO_GAIN = (
    "Seconds are medians of calls in turns. The ratio says how many times faster the kit's way is, with equal results:"
    " each row asserts that first. The limit is what the row's matrix products and convolutions alone would take at the"
    " rate of one large matrix product in the same precision on this device; `-` where most of the work is none."
)


def cached_features(repeats: int = 3, clips: int = 24, n_frames: int = 65, batch: int = 192) -> Row:
    """One epoch of joint training from cached frozen features against one that computes them from decoded frames first.

    Both train the same windows from the same weights, by one vector each, as on the published streams, and their losses
    are compared before anything is timed. Windows of a clip share their blocks in both. One thread, as each of the
    kit's trainings has.

    Args:
        repeats: timed epochs of each.
        clips: of the epoch.
        n_frames: of a clip.
        batch: windows per step.
    """
    generator = torch.Generator().manual_seed(0)
    pieces = torch.randint(256, (clips, 1 + n_frames, *STAND_IN_SIZE, 3), generator=generator, dtype=torch.uint8)
    clip_of = torch.arange(clips).repeat_interleave(window_count(n_frames))  # [W] clip of each window
    first = torch.arange(window_count(n_frames)).repeat(clips)
    text = nn.functional.normalize(torch.randn(clips, EMBED_DIM, generator=generator), dim=-1)[clip_of]
    variant, backbones = Variant(batch=min(batch, len(clip_of))), stand_ins()
    extractor = Extractor(backbones)

    def extract() -> Windows:
        timesformer, scene, stem, motion, *_ = map(list, zip(*map(extractor.windows, pieces)))
        dpc, scene = dpc_context(backbones.dpc, stem), torch.cat(scene)
        return Windows(
            timesformer=torch.cat(timesformer), dpc=dpc, scene=scene, context=scene, text=text, caption=clip_of,
            clip_and_block=torch.stack([clip_of, first], 1), stem=stem, cell_motion=motion,
        )  # fmt: skip

    def untrained() -> tuple[Detector, torch.optim.Optimizer]:
        torch.manual_seed(0)
        detector = build_detector(variant, stand_ins())
        detector.fit_scene_statistics(cached.context)
        detector.dpc.eval()
        return detector, torch.optim.AdamW(parameter_groups(detector, variant))

    def epoch(windows: Windows, detector: Detector, optimiser: torch.optim.Optimizer) -> list[float]:
        torch.manual_seed(0)  # dropout and draws
        losses = []
        for step in range(len(clip_of) // variant.batch):
            numbers = torch.from_numpy(batch_numbers(len(clip_of), variant.batch, step, seed=0))
            loss = joint_loss(detector, windows, numbers, variant, 0.5, (), torch.default_generator)["loss"]
            _step(optimiser, loss)
            losses.append(loss.item())
        return losses

    measure = f"epoch of {len(clip_of)} windows in steps of {variant.batch}, cached features"
    note = "stand-in sizes; decoding not counted; one thread"
    with one_thread():
        cached = extract()
        torch.testing.assert_close(epoch(cached, *untrained()), epoch(extract(), *untrained()), rtol=1e-5, atol=1e-5)
        trained = untrained()
        ours, theirs = (lambda: epoch(cached, *trained)), (lambda: epoch(extract(), *trained))
        return compare(measure, ours, "features from frames", theirs, repeats, note)


def _step(optimiser: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def weak_step(
    repeats: int = 3,
    videos: int = 2 * UCF_CRIME.half_batch,
    segments: int = UCF_CRIME.num_segments,
    width: int = UCF_CRIME.embed_dim,
) -> Row:
    """One step of AnomalyCLIP's training from cached features, UCF-Crime's sizes, against the same in loops over
    videos.

    Args:
        repeats: timed steps of each.
        videos: per step, half of them abnormal.
        segments: per video, 16 frames each.
        width: channels of the temporal model.
    """
    torch.manual_seed(0)
    names = [f"class {number}" for number in range(13)] + ["normal"]
    clip = build_clip("ViT-B-16", vision_layers=1, text_layers=12 if width == UCF_CRIME.embed_dim else 1)
    model = AnomalyCLIP(clip, names, "normal", num_segments=segments, embed_dim=width).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=0.0, fused=True)
    features = torch.randn(videos, segments * model.segment_len, 512)
    labels = torch.cat([torch.arange(videos // 2) % 13, torch.full((videos // 2,), 13)])

    def step(loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> list:
        torch.manual_seed(0)  # the same segments left out
        value = loss(x, y)
        _step(optimiser, value)
        return [value.detach(), *(p.grad for p in trained)]

    def ours(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return anomaly_clip_loss(model.train_outputs(x, y, whole=False), y).total

    def loops(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return anomaly_clip_in_loops(model, x, y)

    few = features[:: videos // 4], labels[:: videos // 4]  # loss and gradients of four videos, before all are timed
    torch.testing.assert_close(step(ours, *few), step(loops, *few), rtol=1e-4, atol=1e-4)
    measure = f"AnomalyCLIP training step, {videos} videos of {features.shape[1]} frames"
    note = "loops keep activations too; the published code computes them twice"
    batch = features, labels
    whole, limit = (lambda: step(ours, *batch)), limit_of(lambda: step(ours, *batch))
    return compare(measure, whole, "loops over videos", lambda: step(loops, *batch), repeats, note, limit)


def bootstrap(n_videos: int = 290, n_frames: int = 1_111_808, draws: int = 2000, naive_draws: int = 2) -> Row:
    """Micro AUC and AP with bootstrap over videos, against joining the drawn videos and sorting them in each draw.

    Args:
        n_videos: V; half of them hold one abnormal span. The defaults have the size of UCF-Crime's test set.
        n_frames: about, of all videos together.
        draws: resampled sets.
        naive_draws: draws that the loop is timed on; its seconds are extrapolated to `draws`.
    """
    rng = np.random.default_rng(0)
    lengths = np.maximum(2, rng.dirichlet(np.ones(n_videos)) * n_frames).astype(int)
    labels = [np.zeros(length, bool) for length in lengths]
    for label in labels[::2]:
        label[len(label) // 2 : len(label) // 2 + max(1, len(label) * 15 // 100)] = True
    scores = [rng.normal(size=len(label)) + label for label in labels]
    starts = np.append(0, np.cumsum(lengths)[:-1])

    start = time.perf_counter()
    ranking = weighted_auc.rank(np.concatenate(scores), np.concatenate(labels), starts)
    weights = weighted_auc.bootstrap_weights(n_videos, draws)
    pairs = weighted_auc.pair_counts(ranking)
    aucs = weighted_auc.auc(pairs, ranking.positives, ranking.negatives, weights)
    ours = np.array([aucs, weighted_auc.average_precision(ranking, weights)])  # [2, R]
    fast, start = time.perf_counter() - start, time.perf_counter()
    naive = np.array(list(metrics_by_copying(scores, labels, weights[:naive_draws]))).T
    slow = (time.perf_counter() - start) * draws / naive_draws
    np.testing.assert_allclose(ours[:, :naive_draws], naive, rtol=1e-9)
    measure = f"AUC and AP, {draws:,} draws, {sum(lengths):,} frames of {n_videos} videos"
    note = f"loop timed on {naive_draws} draws, extrapolated"
    return Row(measure, fast, "scikit-learn in a loop", slow, slow / fast, note)


def run(folder: Path, rows: Iterator[Row]) -> pd.DataFrame:
    """Prints each comparison when it is done, and writes all of them to ``bench.csv`` in `folder`."""
    name, compared = device_name(), []
    print(f"{name}\n{'ours (s)':>9} {'other (s)':>9} {'ratio':>7}", flush=True)
    for row in rows:
        compared.append(row)
        limit = f"; limit {row.limit_s:.3f} s" if row.limit_s > 0 else ""
        print(f"{row.ours_s:9.3f} {row.baseline_s:9.3f} {row.ratio:7.1f}  {in_words(row)}{limit}", flush=True)
    table = pd.DataFrame(compared).assign(device=name, torch=torch.__version__)
    paths.write_table(folder / "bench.csv", table, "%.6g")
    return table


def in_words(row: Row) -> str:
    """What a row compares, on screen and on the page."""
    return f"{row.measure}; {row.baseline}" + (f" ({row.note})" if row.note else "")


def speed_page(table: pd.DataFrame, facts: dict[str, str]) -> str:
    """The page of `run`'s rows, with the `facts` of `describe_machine` above them."""
    lines = ["# Speed", "", "<!-- Written by `make bench`; nobody edits it. -->", "", as_table(facts), ""]
    lines += [STILL_TO_GAIN, "", "| Compared | Kit, s | Other way, s | Ratio | Limit, s |", "|---|---:|---:|---:|---:|"]
    for row in table.itertuples():
        cells = " | ".join(map(short, (row.ours_s, row.baseline_s, row.ratio, row.limit_s)))
        lines.append(f"| {in_words(row).replace('|', '/')} | {cells} |")
    return "\n".join([*lines, ""])


def compare_all() -> None:
    """Everything at full size, into ``runs/bench/`` and the page docs/results/speed.md."""
    comparisons = [bootstrap, own_video, one_decode, cached_features, weak_step, fused_attention, half_precision]
    comparisons += [functools.partial(stream, name) for name in ("clip_vit_b16", "places365", "dpc")]
    comparisons += [clip_features, regions, functools.partial(next_window, "the shipped detector", shipped_camera)]
    comparisons.append(functools.partial(next_window, "the published streams", published_camera, repeats=5))
    facts = describe_machine()
    table = run(paths.runs() / "bench", (work() for work in comparisons))
    page = paths.root() / "docs" / "results" / "speed.md"
    print(paths.write_text(page, speed_page(table, facts)))
