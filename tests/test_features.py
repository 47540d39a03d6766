"""Window plan, frame scores and pieces of video."""

import numpy as np
import pytest
import torch

from zsad_lib.features.extraction import CHUNK_BLOCKS, chunks, window_blocks
from zsad_lib.features.window_plan import BLOCK_LEN, WINDOW, to_frames, window_count


def slow_to_frames(windows, n_frames):
    out = []
    for t in range(n_frames):
        covering = [w for i, w in enumerate(windows) if i * BLOCK_LEN <= t < i * BLOCK_LEN + WINDOW]
        out.append(np.mean(covering) if covering else windows[-1])
    return np.array(out)


@pytest.mark.parametrize("n_frames", [30, 34, 35, 48, 49, 101])
def test_frame_scores_are_means_over_covering_windows(n_frames):
    windows = np.random.default_rng(n_frames).normal(size=window_count(n_frames))
    np.testing.assert_allclose(to_frames(windows, n_frames), slow_to_frames(windows, n_frames), atol=1e-12)


def test_short_videos_have_one_window():
    assert window_count(3) == 1
    np.testing.assert_array_equal(to_frames(np.array([2.0]), 3), [2.0, 2.0, 2.0])


def test_causal_scores_use_ended_windows_only():
    windows = np.array([1.0, 2.0, 3.0, 4.0])
    scores = to_frames(windows, 48, causal=True, before=0.5)
    assert (scores[:29] == 0.5).all()
    for t in range(29, 48):
        ended = [w for i, w in enumerate(windows) if i * BLOCK_LEN + WINDOW - 1 <= t]
        assert scores[t] == ended[-1]


def test_seeds_come_first():
    windows = np.arange(8.0).reshape(2, 4)
    np.testing.assert_allclose(to_frames(windows, 48)[1], to_frames(windows[1], 48))


@pytest.mark.parametrize("n_frames", [1, 29, 30, 48, 300, 303, 325, 611])
def test_pieces_give_every_window_once(n_frames):
    frames = [np.full((1, 1, 3), i % 251, np.uint8) for i in range(n_frames)]
    starts, blocks = [], 0
    for piece, new in chunks(iter(frames)):
        assert (len(piece) - 1) % BLOCK_LEN == 0 and WINDOW < len(piece) <= 1 + CHUNK_BLOCKS * BLOCK_LEN
        first = blocks - ((len(piece) - 1) // BLOCK_LEN - new)  # block at which the piece starts
        assert piece[1, 0, 0, 0] == first * BLOCK_LEN % 251
        assert piece[0, 0, 0, 0] == max(0, first * BLOCK_LEN - 1) % 251
        blocks += new
        starts += [first + i for i in range((len(piece) - 1 - WINDOW) // BLOCK_LEN + 1)]
    assert starts == list(range(window_count(n_frames)))
    assert blocks == max(6, n_frames // BLOCK_LEN)


def test_window_blocks_is_a_sliding_view():
    stem = torch.arange(9.0).view(9, 1)
    assert window_blocks(stem).shape == (4, 6, 1)
    assert window_blocks(stem)[2].flatten().tolist() == [2, 3, 4, 5, 6, 7]
