"""What only a CUDA device can show: `make test-gpu`."""

import math

import numpy as np
import pytest
import torch

from zsad_lib.features.clip_frames import FrameEncoder, published_encoder
from zsad_lib.files.video import write_video
from zsad_lib.maintenance.gpu_figures import figures
from zsad_lib.maintenance.gpu_works import TINY, works
from zsad_lib.models import build_clip
from zsad_lib.own_video.scoring import score_video

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]


def test_a_video_has_the_same_scores_on_both_devices(tmp_path, monkeypatch):
    path = tmp_path / "camera.mp4"
    place = np.random.default_rng(0).integers(0, 200, (48, 64, 3), dtype=np.uint8)
    write_video(path, (np.roll(place, i, axis=1) for i in range(60)), 10)
    found = score_video(path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    np.testing.assert_allclose(found.score, score_video(path).score, atol=1e-2)


def test_clip_features_point_the_same_way_on_both_devices():
    torch.manual_seed(0)
    clip = build_clip("ViT-B-16", embed_dim=16, text_width=16, text_heads=2, text_layers=1, vision_layers=2)
    frames = np.random.default_rng(0).integers(0, 255, (3, 240, 320, 3), np.uint8)
    expected = FrameEncoder(clip, (224, 224))(frames)
    found = published_encoder(clip)(frames)  # in bfloat16, where the GPU has units for it
    assert torch.cosine_similarity(found, expected).min() > 0.999


def test_every_figure_of_bench_gpu_comes_out():
    rows = [row for work in works(TINY) for row in figures(work, math.inf, 64)]
    assert len(rows) == 21 and [row["note"] for row in rows if "units_per_s" not in row] == []
    assert all(row["peak_gib"] > 0 for row in rows)
