"""Speed as ratios of two ways to do the same, both timed in one run, turn by turn: ``make bench``.

A ratio travels between machines better than seconds do; the seconds stand beside it with the device's name. Each
function takes its sizes as arguments and checks that both ways give the same result before it times them.
"""

import contextlib
import functools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from zsad_lib.errors import ZsadError
from zsad_lib.evaluate import weighted_auc
from zsad_lib.features.backbones import EMBED_DIM, STAND_IN_SIZE, device, stand_ins
from zsad_lib.features.devices import device_name, has_bfloat16_units
from zsad_lib.features.extraction import Extractor, chunks
from zsad_lib.features.window_plan import window_count
from zsad_lib.files import paths
from zsad_lib.files.video import iter_frames, write_video
from zsad_lib.losses import anomaly_clip_loss
from zsad_lib.maintenance.baselines import anomaly_clip_in_loops, metrics_by_copying, transformers_twin
from zsad_lib.maintenance.speed_of_a_camera import stream
from zsad_lib.maintenance.timing import Row, compare, timed
from zsad_lib.methods.context_aware.train import Variant, batch_numbers, build_detector, joint_loss, parameter_groups
from zsad_lib.methods.context_aware.training_windows import Windows, dpc_context
from zsad_lib.models import AnomalyCLIP, build_clip
from zsad_lib.models.anomaly_clip_recipes import PUBLISHED
from zsad_lib.models.detector import Detector
from zsad_lib.models.timesformer import TimeSformer
from zsad_lib.own_video.scoring import score_video

UCF_CRIME = PUBLISHED["ucf_crime"]
STREAMS = 3  # of the video itself: TimeSformer, predictive coding, scene
Size = tuple[int, int]


@torch.no_grad()
def fused_attention(repeats: int = 3, batch: int = 1, **sizes: int) -> Row:
    """TimeSformer's forward pass, folded for extraction, against the transformers library's on the same weights.

    Args:
        repeats: timed calls of each.
        batch: clips.
        sizes: arguments of `TimeSformer`; by default the published model, 8 frames of 224 x 224.
    """
    model, video, size = _timesformer(batch, sizes)
    measure, baseline = f"TimeSformer, {size}", "transformers' TimesformerModel"
    try:
        twin = transformers_twin(model).to(device())
    except ZsadError as error:
        model.to(device()).fold()(video)
        seconds = statistics.median(timed(lambda: model(video)) for _ in range(repeats))
        return Row(measure, seconds, baseline, np.nan, np.nan, f"not compared: {error}")
    model.to(device()).fold()
    turned = video.transpose(1, 2)
    torch.testing.assert_close(model.tokens(video), twin(turned).last_hidden_state, rtol=1e-3, atol=1e-3)
    return compare(measure, lambda: model.tokens(video), baseline, lambda: twin(turned), repeats)


@torch.no_grad()
def half_precision(repeats: int = 3, batch: int = 1, **sizes: int) -> Row:
    """TimeSformer's forward pass in bfloat16 against the transformers library's in float32, on the same weights.

    The features must point the same way (cosine at least 0.999). Skipped where the device would only emulate bfloat16.

    Args:
        repeats, batch, sizes: as of `fused_attention`.
    """
    model, video, size = _timesformer(batch, sizes)
    measure, baseline = f"TimeSformer in bfloat16, {size}", "transformers' TimesformerModel in float32"
    if not has_bfloat16_units():
        return Row(measure, np.nan, baseline, np.nan, np.nan, "skipped: this device has no bfloat16 units")
    try:
        twin = transformers_twin(model).to(device())
    except ZsadError as error:
        return Row(measure, np.nan, baseline, np.nan, np.nan, f"not compared: {error}")
    model.fold().to(device(), torch.bfloat16)
    turned, halved = video.transpose(1, 2), video.bfloat16()
    expected = twin(turned).last_hidden_state[:, 0]
    cosine = nn.functional.cosine_similarity(model.features(halved).float(), expected).min().item()
    if not cosine >= 0.999:
        raise AssertionError(f"bfloat16 features are not close: cosine {cosine:.4f}, at least 0.999 is needed")
    return compare(measure, lambda: model.tokens(halved), baseline, lambda: twin(turned), repeats)


def _timesformer(batch: int, sizes: dict[str, int]) -> tuple[TimeSformer, torch.Tensor, str]:
    """A model with random weights on the CPU, clips [B, 3, T, H, W] on the timed device, and their size in words."""
    torch.manual_seed(0)
    model = TimeSformer(**sizes).eval()
    size = (model.time_embed.shape[1], *model.patch_embed.img_size)
    return model, torch.randn(batch, 3, *size, device=device()), f"{' x '.join(map(str, size))}, batch {batch}"


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
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        cached = extract()
        torch.testing.assert_close(epoch(cached, *untrained()), epoch(extract(), *untrained()), rtol=1e-5, atol=1e-5)
        trained = untrained()
        ours, theirs = (lambda: epoch(cached, *trained)), (lambda: epoch(extract(), *trained))
        return compare(measure, ours, "features from frames", theirs, repeats, note)
    finally:
        torch.set_num_threads(threads)


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
    return compare(measure, lambda: step(ours, *batch), "loops over videos", lambda: step(loops, *batch), repeats, note)


def one_decode(repeats: int = 3, n_frames: int = 300, size: Size = (240, 320)) -> Row:
    """Features of one video with one decode for all streams against one decode per stream, networks included.

    Args:
        repeats: timed passes of each.
        n_frames: length of the video.
        size: height and width in pixels.
    """
    extractor = Extractor(stand_ins())
    with _rendered(n_frames, size, 25.0) as path:

        def extract(decodes: int) -> None:
            for _ in range(decodes - 1):
                for _ in chunks(iter_frames(path, size=STAND_IN_SIZE)):
                    pass
            for piece, _ in chunks(iter_frames(path, size=STAND_IN_SIZE)):
                extractor.windows(torch.from_numpy(piece))

        measure = f"features of {n_frames} frames {size[0]} x {size[1]}, one decode"
        baseline, note = f"{STREAMS} decodes, one per stream", "stand-in networks included"
        return compare(measure, lambda: extract(1), baseline, lambda: extract(STREAMS), repeats, note)


def own_video(repeats: int = 3, n_frames: int = 5400, size: Size = (240, 320), fps: float = 30.0) -> Row:
    """Scores of one video of one's own, from file to table, against the time that it takes to watch it.

    Args:
        repeats: timed passes.
        n_frames: length of the video.
        size: height and width in pixels.
        fps: frames per second.
    """
    with _rendered(n_frames, size, fps) as path:
        table = score_video(path)
        if not (len(table) == n_frames and np.isfinite(table["score"]).all()):
            raise AssertionError(f"{len(table)} scores of {n_frames} frames, or some not finite")
        seconds = statistics.median(timed(lambda: score_video(path)) for _ in range(repeats))
    measure, playing = f"scores of {n_frames:,} frames {size[0]} x {size[1]} at {fps:g} per second", n_frames / fps
    note = "times real time; without start and film"
    return Row(measure, seconds, "watching the video", playing, playing / seconds, note)


@contextlib.contextmanager
def _rendered(n_frames: int, size: Size, fps: float) -> Iterator[Path]:
    """A video of noise that moves, while the block lasts."""
    rng = np.random.default_rng(0)
    scene = rng.integers(0, 200, (*size, 3), dtype=np.uint8)
    noise = rng.integers(0, 12, (8, *scene.shape), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        write_video(path, (np.roll(scene, i, axis=1) + noise[i % 8] for i in range(n_frames)), fps)
        yield path


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
        words = f"{row.measure}; {row.baseline}" + (f" ({row.note})" if row.note else "")
        print(f"{row.ours_s:9.3f} {row.baseline_s:9.3f} {row.ratio:7.1f}  {words}", flush=True)
    table = pd.DataFrame(compared).assign(device=name, torch=torch.__version__)
    paths.write_table(folder / "bench.csv", table, "%.6g")
    return table


def compare_all() -> None:
    """Everything at full size, into ``runs/bench/``."""
    comparisons = [bootstrap, own_video, one_decode, cached_features, weak_step, fused_attention, half_precision]
    comparisons += [functools.partial(stream, name) for name in ("clip_vit_b16", "places365", "dpc")]
    run(paths.runs() / "bench", (work() for work in comparisons))
