"""Speed as ratios of two ways to do the same, both timed in one run, turn by turn: ``make bench``.

A ratio travels between machines better than seconds do; the seconds stand beside it with the device's name. Each
function takes its sizes as arguments and checks that both ways give the same result before it times them.
"""

import contextlib
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import nn

from zsad_lib.errors import ZsadError, one_line, optional
from zsad_lib.evaluate import weighted_auc
from zsad_lib.features.backbones import EMBED_DIM, STAND_IN_SIZE, device, stand_ins
from zsad_lib.features.extraction import Extractor, chunks
from zsad_lib.features.window_plan import window_count
from zsad_lib.files import paths
from zsad_lib.files.video import iter_frames, write_video
from zsad_lib.losses import anomaly_clip_loss
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


class Row(NamedTuple):
    """One comparison; seconds are medians, `ratio` says how many times faster the kit's way is."""

    measure: str
    ours_s: float
    baseline: str
    baseline_s: float  # NaN where the baseline is missing
    ratio: float
    note: str


def timed(work: Callable[[], object]) -> float:
    """Seconds of one call, until the device has finished it."""
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def medians(ours: Callable[[], object], baseline: Callable[[], object], repeats: int) -> tuple[float, float, float]:
    """Median seconds of both, called in turns after one call each to warm up, and baseline / ours."""
    times = [(timed(ours), timed(baseline)) for _ in range(1 + repeats)][1:]
    fast, slow = map(statistics.median, zip(*times))
    return fast, slow, slow / fast


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


@torch.no_grad()
def fused_attention(repeats: int = 3, batch: int = 1, **sizes) -> Row:
    """TimeSformer's forward pass, folded for extraction, against the transformers library's on the same weights.

    Args:
        repeats: timed calls of each.
        batch: clips.
        sizes: arguments of `TimeSformer`; by default the published model, 8 frames of 224 x 224.
    """
    ours, video = _timesformer(batch, sizes)
    measure, baseline = f"TimeSformer, {_size(video)}", "transformers' TimesformerModel"
    try:
        twin = transformers_twin(ours).to(device())
    except ZsadError as error:
        ours.to(device()).fold()(video)
        seconds = statistics.median(timed(lambda: ours(video)) for _ in range(repeats))
        return Row(measure, seconds, baseline, np.nan, np.nan, f"not compared: {error}")
    ours.to(device()).fold()
    turned = video.transpose(1, 2)
    torch.testing.assert_close(ours.tokens(video), twin(turned).last_hidden_state, rtol=1e-3, atol=1e-3)
    return Row(measure, *_around(baseline, medians(lambda: ours.tokens(video), lambda: twin(turned), repeats)), "")


@torch.no_grad()
def half_precision(repeats: int = 3, batch: int = 1, **sizes) -> Row:
    """TimeSformer's forward pass in bfloat16 against the transformers library's in float32, on the same weights.

    The features must point the same way (cosine at least 0.999). Skipped where the device would only emulate bfloat16.

    Args:
        repeats: timed calls of each.
        batch: clips.
        sizes: arguments of `TimeSformer`; by default the published model, 8 frames of 224 x 224.
    """
    ours, video = _timesformer(batch, sizes)
    measure = f"TimeSformer in bfloat16, {_size(video)}"
    baseline = "transformers' TimesformerModel in float32"
    if not has_bfloat16_units():
        return Row(measure, np.nan, baseline, np.nan, np.nan, "skipped: this device has no bfloat16 units")
    try:
        twin = transformers_twin(ours).to(device())
    except ZsadError as error:
        return Row(measure, np.nan, baseline, np.nan, np.nan, f"not compared: {error}")
    ours.fold().to(device(), torch.bfloat16)
    turned, halved = video.transpose(1, 2), video.bfloat16()
    expected = twin(turned).last_hidden_state[:, 0]
    cosine = nn.functional.cosine_similarity(ours.features(halved).float(), expected).min().item()
    if not cosine >= 0.999:
        raise AssertionError(f"bfloat16 features are not close: cosine {cosine:.4f}, at least 0.999 is needed")
    return Row(measure, *_around(baseline, medians(lambda: ours.tokens(halved), lambda: twin(turned), repeats)), "")


def _timesformer(batch: int, sizes: dict) -> tuple[TimeSformer, torch.Tensor]:
    """A model with random weights on the CPU, and clips [B, 3, T, H, W] on the device that is timed."""
    torch.manual_seed(0)
    model = TimeSformer(**sizes).eval()
    shape = (batch, 3, model.time_embed.shape[1], *model.patch_embed.img_size)
    return model, torch.randn(shape, device=device())


def _size(video: torch.Tensor) -> str:
    """'8 x 224 x 224, batch 1'."""
    return f"{' x '.join(map(str, video.shape[2:]))}, batch {len(video)}"


def has_bfloat16_units() -> bool:
    """Whether the GPU, or else the CPU, multiplies bfloat16 matrices itself."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    cpuinfo = Path("/proc/cpuinfo")
    flags = set(cpuinfo.read_text(encoding="utf-8").split()) if cpuinfo.is_file() else set()
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})  # bf16: as Arm calls it


def cached_features(repeats: int = 3, clips: int = 24, n_frames: int = 65, batch: int = 192) -> Row:
    """One epoch of joint training from cached frozen features against one that computes them from decoded frames first.

    Both train the same windows from the same weights, and their losses are compared before anything is timed. Windows of a
    clip share their blocks in both. One thread, as each of the kit's trainings has.

    Args:
        repeats: timed epochs of each.
        clips: of the epoch.
        n_frames: of a clip.
        batch: windows per step.
    """
    generator = torch.Generator().manual_seed(0)
    pieces = torch.randint(256, (clips, 1 + n_frames, *STAND_IN_SIZE, 3), generator=generator, dtype=torch.uint8)
    number = torch.arange(clips).repeat_interleave(window_count(n_frames))  # [W] clip of each window
    first = torch.arange(window_count(n_frames)).repeat(clips)
    text = nn.functional.normalize(torch.randn(clips, EMBED_DIM, generator=generator), dim=-1)[number]
    variant, backbones = Variant(batch=min(batch, len(number))), stand_ins()
    extractor = Extractor(backbones)

    def extract() -> Windows:
        timesformer, scene, stem, motion = map(list, zip(*map(extractor.windows, pieces)))
        scene, place = torch.cat(scene), torch.stack([number, first], 1)
        dpc = dpc_context(backbones.dpc, stem)
        return Windows(torch.cat(timesformer), dpc, scene, scene, place, text, number, stem, motion)

    def untrained() -> tuple[Detector, torch.optim.Optimizer]:
        torch.manual_seed(0)
        detector = build_detector(variant, stand_ins())
        detector.fit_scene_statistics(cached.context)
        detector.dpc.eval()
        return detector, torch.optim.AdamW(parameter_groups(detector, variant))

    def epoch(windows: Windows, detector: Detector, optimiser: torch.optim.Optimizer) -> list[float]:
        torch.manual_seed(0)  # dropout and draws
        losses = []
        for step in range(len(number) // variant.batch):
            chosen = torch.from_numpy(batch_numbers(len(number), variant.batch, step, seed=0))
            loss = joint_loss(detector, windows, chosen, variant, 0.5, (), torch.default_generator)["loss"]
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        return losses

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        cached = extract()
        torch.testing.assert_close(epoch(cached, *untrained()), epoch(extract(), *untrained()), rtol=1e-5, atol=1e-5)
        trained = untrained()
        found = medians(lambda: epoch(cached, *trained), lambda: epoch(extract(), *trained), repeats)
    finally:
        torch.set_num_threads(threads)
    measure = f"epoch of {len(number)} windows in steps of {variant.batch}, cached features"
    return Row(measure, *_around("features from frames", found), "stand-in sizes; decoding not counted; one thread")


def weak_step(
    repeats: int = 3,
    videos: int = 2 * UCF_CRIME.half_batch,
    segments: int = UCF_CRIME.num_segments,
    width: int = UCF_CRIME.embed_dim,
) -> Row:
    """One step of AnomalyCLIP's training from cached features, UCF-Crime's sizes, against the same written in loops over videos.

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

    def step(loss: Callable[[], torch.Tensor]) -> list[torch.Tensor]:
        torch.manual_seed(0)  # the same segments left out
        optimiser.zero_grad()
        value = loss()
        value.backward()
        optimiser.step()
        return [value.detach(), *(p.grad for p in trained)]

    ours = lambda x=features, y=labels: anomaly_clip_loss(model.train_outputs(x, y, whole=False), y).total
    loops = lambda x=features, y=labels: anomaly_clip_in_loops(model, x, y)
    few = (
        features[:: videos // 4],
        labels[:: videos // 4],
    )  # both ways on four videos, loss and gradients, before all are timed
    torch.testing.assert_close(step(lambda: ours(*few)), step(lambda: loops(*few)), rtol=1e-4, atol=1e-4)
    found = medians(lambda: step(ours), lambda: step(loops), repeats)
    measure = f"AnomalyCLIP training step, {videos} videos of {features.shape[1]} frames"
    return Row(
        measure,
        *_around("loops over videos", found),
        "loops keep activations too; the published code computes them twice",
    )


def anomaly_clip_in_loops(model: AnomalyCLIP, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The total of `anomaly_clip_loss`, one video, segment and class at a time: [B, T, D], [B] -> scalar."""
    half, frames = len(labels) // 2, model.segment_len
    keep = torch.rand(len(labels), model.num_segments) >= model.segment_dropout
    similarity = model.selector((features - model.normal_prototype).flatten(0, 1), model.directions())
    column = {
        number: place for place, number in enumerate(i for i in range(len(model.class_names)) if i != model.normal_id)
    }
    own, highest, tops, bottoms, normals, smooth, sparse = ([] for _ in range(7))
    for video, label in enumerate(labels.tolist()):
        x = features[video] - model.normal_prototype  # [T, D]
        s = similarity.view(*features.shape[:2], -1)[video]  # [T, K-1]
        p = model.temporal(x.view(1, model.num_segments, frames, -1)).flatten()
        columns = [column[label]] if video < half else range(s.shape[1])
        ranked = [(bool(keep[video, n]), part[:, columns].sum().item(), n) for n, part in enumerate(s.split(frames))]
        top = [n for *_, n in sorted(ranked, reverse=True)[: model.topk]]  # segments left out come last
        bottom = [n for *_, n in sorted((not kept, value, n) for kept, value, n in ranked)[: model.bottomk]]
        places = lambda chosen: [segment * frames + frame for segment in chosen for frame in range(frames)]
        if video < half:
            for place in places(top):
                own.append(s[place, column[label]])
                tops.append((p[place] * s[place].softmax(0)[column[label]]).clamp_min(1e-8).log())
            bottoms += [(1 - p[place]).clamp_min(1e-8).log() for place in places(bottom)]
            smooth.append(p.diff().square().sum())
            sparse.append(p.mean())
        else:
            highest.append(s.amax(1).mean())
            normals += [(1 - p[place]).clamp_min(1e-8).log() for place in places(top)]
    mean = lambda values: torch.stack(values).mean()
    return (
        -mean(own) + mean(highest) - mean(tops) - mean(bottoms) - mean(normals)
        + 8e-4 * torch.stack(smooth).sum() + 8e-3 * mean(sparse)
    )  # fmt: skip


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

        found = medians(lambda: extract(1), lambda: extract(STREAMS), repeats)
    measure = f"features of {n_frames} frames {size[0]} x {size[1]}, one decode"
    return Row(measure, *_around(f"{STREAMS} decodes, one per stream", found), "stand-in networks included")


def own_video(repeats: int = 3, n_frames: int = 5400, size: Size = (240, 320), fps: float = 30.0) -> Row:
    """Scores of one video of one's own, from file to table, against the time that it takes to watch it.

    Args:
        repeats: timed passes.
        n_frames: length of the video.
        size: height and width in pixels.
        fps: frames per second.
    """
    with _rendered(n_frames, size, fps) as path:
        found = score_video(path)
        if not (len(found) == n_frames and np.isfinite(found["score"]).all()):
            raise AssertionError(f"{len(found)} scores of {n_frames} frames, or some not finite")
        seconds = statistics.median(timed(lambda: score_video(path)) for _ in range(repeats))
    measure, playing = f"scores of {n_frames:,} frames {size[0]} x {size[1]} at {fps:g} per second", n_frames / fps
    return Row(
        measure, seconds, "watching the video", playing, playing / seconds, "times real time; without start and film"
    )


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

    def ours() -> tuple[np.ndarray, np.ndarray]:
        ranking = weighted_auc.rank(np.concatenate(scores), np.concatenate(labels), starts)
        weights = weighted_auc.bootstrap_weights(n_videos, draws)
        pairs = weighted_auc.pair_counts(ranking)
        return weighted_auc.auc(pairs, ranking.positives, ranking.negatives, weights), weighted_auc.average_precision(
            ranking, weights
        )

    counts = weighted_auc.bootstrap_weights(n_videos, draws)[:naive_draws].astype(int)
    drawn = [np.repeat(np.arange(n_videos), row) for row in counts]

    def naive() -> Iterator[tuple[float, float]]:
        for videos in drawn:
            truth, values = (np.concatenate([part[v] for v in videos]) for part in (labels, scores))
            yield roc_auc_score(truth, values), average_precision_score(truth, values)

    start = time.perf_counter()
    found = np.array(ours())[:, :naive_draws]
    fast, start = time.perf_counter() - start, time.perf_counter()
    expected = np.array(list(naive())).T
    slow = (time.perf_counter() - start) * draws / naive_draws
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    return Row(
        f"AUC and AP, {draws:,} draws, {sum(lengths):,} frames of {n_videos} videos",
        *_around("scikit-learn in a loop", (fast, slow, slow / fast)),
        f"loop timed on {naive_draws} draws, extrapolated",
    )


def _around(baseline: str, found: tuple[float, float, float]) -> tuple[float, str, float, float]:
    ours, theirs, ratio = found
    return ours, baseline, theirs, ratio


def device_name() -> str:
    """The GPU, or the CPU's model with the number of threads torch uses."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"{model or platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def run(folder: Path, rows: Iterator[Row]) -> pd.DataFrame:
    """Prints each comparison when it is done, and writes all of them to ``bench.csv`` in `folder`."""
    done, name = [], device_name()
    print(f"{name}\n{'ours (s)':>9} {'other (s)':>9} {'ratio':>7}", flush=True)
    for row in rows:
        done.append(row)
        note = f" ({row.note})" if row.note else ""
        print(
            f"{row.ours_s:9.3f} {row.baseline_s:9.3f} {row.ratio:7.1f}  {row.measure}; {row.baseline}{note}", flush=True
        )
    table = pd.DataFrame(done).assign(device=name, torch=torch.__version__)
    with paths.atomic(folder / "bench.csv") as handle:
        table.to_csv(handle, index=False, float_format="%.6g")
    return table


@one_line
def main() -> int:
    """Everything at full size, into ``runs/bench/``."""
    comparisons = (bootstrap, own_video, one_decode, cached_features, weak_step, fused_attention, half_precision)
    run(paths.runs() / "bench", (work() for work in comparisons))
    return 0


if __name__ == "__main__":
    sys.exit(main())
