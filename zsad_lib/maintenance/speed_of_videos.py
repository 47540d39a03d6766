"""Rows of `make bench` over a whole video: decoded once, scored, and its frames seen by CLIP."""

import contextlib
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from zsad_lib.features.backbones import STAND_IN_SIZE, stand_ins
from zsad_lib.features.clip_frames import BATCH, FrameEncoder, published_encoder, video_features
from zsad_lib.features.extraction import Extractor, chunks
from zsad_lib.files.video import iter_frames, write_video
from zsad_lib.maintenance.matrix_limit import limit_of
from zsad_lib.maintenance.speed_of_networks import COSINE, refuse_far
from zsad_lib.maintenance.timing import Row, compare, timed
from zsad_lib.models import build_clip
from zsad_lib.own_video.scoring import score_video

STREAMS = 3  # of the video itself: TimeSformer, predictive coding, scene
Size = tuple[int, int]


def one_decode(repeats: int = 3, n_frames: int = 300, size: Size = (240, 320)) -> Row:
    """Features of one video with one decode for all streams against one decode per stream, networks included.

    Args:
        repeats: timed passes of each.
        n_frames: length of the video.
        size: height and width in pixels.
    """
    extractor = Extractor(stand_ins())
    with rendered(n_frames, size, 25.0) as path:

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
    with rendered(n_frames, size, fps) as path:
        table = score_video(path)
        if not (len(table) == n_frames and np.isfinite(table["score"]).all()):
            raise AssertionError(f"{len(table)} scores of {n_frames} frames, or some not finite")
        seconds = statistics.median(timed(lambda: score_video(path)) for _ in range(repeats))
    measure, playing = f"scores of {n_frames:,} frames {size[0]} x {size[1]} at {fps:g} per second", n_frames / fps
    note = "times real time; without start and film"
    return Row(measure, seconds, "watching the video", playing, playing / seconds, note)


@torch.no_grad()
def clip_features(repeats: int = 2, n_frames: int = 2 * BATCH, size: Size = (240, 320), **sizes: int) -> Row:
    """CLIP features of every frame of a video, as `make features` has them, against a plain loop: decode a frame,
    encode it, take the next.

    The kit's way is batches, a thread that decodes ahead, and bfloat16 where the device has units; features then point
    the same way (cosine at least 0.999), else they are equal to 1e-3.

    Args:
        repeats: timed passes of each.
        n_frames: length of the video.
        size: height and width in pixels.
        sizes: overrides of `build_clip`; by default ViT-B/16 at 224 pixels, as published.
    """
    torch.manual_seed(0)
    encoder = published_encoder(build_clip("ViT-B-16", text_layers=1, **sizes))
    alone = FrameEncoder(encoder.clip, encoder.size)
    with rendered(n_frames, size, 25.0) as path:
        ours = lambda: video_features(encoder, path)
        loop = lambda: torch.cat([alone([frame]) for frame in iter_frames(path)])
        features, expected = ours(), loop()
        if encoder.half:
            refuse_far(features, expected)
        else:
            torch.testing.assert_close(features, expected, rtol=1e-3, atol=1e-3)
        batch = [np.zeros((*encoder.size, 3), np.uint8)]
        limit = n_frames * limit_of(lambda: encoder.encode(batch), torch.bfloat16 if encoder.half else torch.float32)
        measure = f"CLIP features of {n_frames} frames {size[0]} x {size[1]}, ViT-B/16 at {encoder.size[0]}"
        row = compare(measure, ours, "a frame at a time, float32", loop, repeats, limit_s=limit)
    pace = f"{n_frames / row.ours_s:.1f} against {n_frames / row.baseline_s:.1f} frames a second"
    how = f"bfloat16, cosine at least {COSINE}" if encoder.half else "float32"
    return row._replace(note=f"{pace}; batches of {BATCH}, decoded ahead, {how}")


@contextlib.contextmanager
def rendered(n_frames: int, size: Size, fps: float) -> Iterator[Path]:
    """A video of noise that moves, while the block lasts."""
    rng = np.random.default_rng(0)
    scene = rng.integers(0, 200, (*size, 3), dtype=np.uint8)
    noise = rng.integers(0, 12, (8, *scene.shape), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        write_video(path, (np.roll(scene, i, axis=1) + noise[i % 8] for i in range(n_frames)), fps)
        yield path
