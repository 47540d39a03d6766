"""What only a CUDA device can show: `make test-gpu`."""

import numpy as np
import pytest
import torch

from zsad_lib.files.video import write_video
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
