"""The local read-out: regions, their scores, and what pictures and blocks say of frames, against slow versions."""

import numpy as np
import pytest
import torch
from torch import nn

from zsad_lib.features.backbones import stand_ins
from zsad_lib.features.window_plan import BLOCK_LEN, CLIP_FRAMES, blocks_to_frames, pictures_to_frames, window_count
from zsad_lib.methods.context_aware import local_readout
from zsad_lib.methods.context_aware.region_pairs import split_clauses
from zsad_lib.models.gates import GATES, ContextGate
from zsad_lib.models.regions import find_regions, strongest


def test_regions_are_the_patches_where_something_is():
    rows, columns, pictures, dim = 2, 3, 4, 5
    tokens = torch.randn(2, 1 + rows * columns * pictures, dim, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    head, objectness = nn.Linear(dim, 6), nn.Linear(dim, 1)
    with torch.no_grad():
        found = find_regions(tokens, (rows, columns), head, objectness)
        expected = []
        for window in range(2):
            for picture in range(pictures):
                for row in range(rows):
                    for column in range(columns):
                        token = tokens[window, 1 + (row * columns + column) * pictures + picture]
                        if objectness(token) > 0:
                            vector = head(token)
                            expected.append(((window, picture, row, column), vector / vector.norm()))
    assert found.at.tolist() == [list(at) for at, _ in expected] and 0 < len(expected) < 48
    torch.testing.assert_close(found.vector, torch.stack([vector for _, vector in expected]))


def test_a_picture_has_the_mean_of_its_three_strongest_regions():
    rng = np.random.default_rng(0)
    at = np.array([[w, t, r, c] for w in range(3) for t in range(8) for r in range(2) for c in range(3)])
    at = at[rng.random(len(at)) < 0.4]
    scores = rng.normal(size=len(at))
    got = strongest(scores, at, 3)
    for window in range(3):
        for picture in range(8):
            here = np.sort(scores[(at[:, 0] == window) & (at[:, 1] == picture)])[::-1][:3]
            assert got[window, picture] == pytest.approx(here.mean()) if len(here) else np.isnan(got[window, picture])
    assert np.isnan(strongest(scores[:0], at[:0], 2)).all()


@pytest.mark.parametrize("n_frames", [30, 48, 61, 12])
def test_a_frame_has_the_mean_of_its_pictures(n_frames):
    windows = window_count(n_frames)
    pictures = np.random.default_rng(0).normal(size=(windows, 8))
    readings = [[] for _ in range(n_frames)]
    for window in range(windows):
        for number, offset in enumerate(CLIP_FRAMES):
            readings[min(window * BLOCK_LEN + offset, n_frames - 1)].append(pictures[window, number])
    got = pictures_to_frames(pictures, n_frames)
    for frame, values in enumerate(readings):
        if values:
            assert got[frame] == pytest.approx(np.mean(values))
    assert np.isfinite(got).all() and len(got) == n_frames


def test_a_live_frame_knows_the_last_two_pictures_of_the_newest_ended_window():
    pictures = np.random.default_rng(0).normal(size=(4, 8))
    got = pictures_to_frames(pictures, 48, causal=True, before=np.nan)
    for frame in range(48):
        ended = [window for window in range(4) if window * BLOCK_LEN + 30 <= frame + 1]
        if ended:
            assert got[frame] == pytest.approx(pictures[ended[-1], 6:].mean())
        else:
            assert np.isnan(got[frame])


def test_blocks_stand_at_their_middle_and_live_after_their_end():
    blocks = np.array([np.nan, np.nan, np.nan, 1.0, 3.0, 2.0])
    frames = blocks_to_frames(blocks, 30)
    assert frames[17] == 1 and frames[22] == 3 and frames[27] == 2 and frames[20] == pytest.approx(1 + 2 * 3 / 5)
    assert frames[0] == 1 and frames[29] == 2
    live = blocks_to_frames(blocks, 30, causal=True, before=np.nan)
    assert np.isnan(live[:19]).all() and (live[19:24] == 1).all() and (live[24:29] == 3).all() and live[29] == 2


@pytest.mark.parametrize("kind", sorted(GATES))
def test_a_region_meets_the_texts_under_its_own_windows_scene(kind):
    torch.manual_seed(0)
    gate = ContextGate(kind, 6, 4).eval()
    v, bank, context = torch.randn(7, 6), torch.randn(3, 6), torch.randn(4, 4)
    window = torch.tensor([0, 0, 2, 2, 2, 3, 3])
    with torch.no_grad():
        got = local_readout.region_similarity(gate, v, window, bank, context)
        for r in range(7):
            for k in range(3):
                expected = v[r] @ gate.paired(bank[k], context[window[r]])
                assert got[r, k].item() == pytest.approx(expected.item(), abs=1e-5)


def test_the_oddest_region_of_each_picture_lies_where_its_cell_is():
    rows, columns = local_readout.GRID
    at = np.array([[0, 3, 0, 0], [0, 3, rows - 1, columns - 1], [1, 7, 2, 1], [0, 0, 1, 1]])
    places = local_readout.oddest_places(np.array([0.2, 0.9, 0.1, 0.5]), at, 2)
    expected = np.full((2, 8, 2), np.nan)
    expected[0, 3] = (columns - 0.5) / columns, (rows - 0.5) / rows  # from the left, from the top
    expected[1, 7], expected[0, 0] = (1.5 / columns, 2.5 / rows), (1.5 / columns, 1.5 / rows)
    np.testing.assert_allclose(places, expected)


def test_one_step_errors_are_those_of_the_first_predicted_block():
    torch.manual_seed(0)
    dpc = stand_ins().dpc
    blocks = torch.randn(1, 9, 3, 5, 48, 64)
    with torch.no_grad():
        stem = dpc.stem(blocks)[0]
        errors = local_readout.one_step_errors(dpc, stem)
        for first in range(4):
            out = dpc.predict(dpc.encode_from_stem(stem[None, first : first + 6]))
            expected = 1 - torch.cosine_similarity(out.predicted[0, 0], out.actual[0, 0], dim=0)
            torch.testing.assert_close(errors[first], expected)
    assert len(errors) == 6


def test_a_block_has_its_worst_moving_cell():
    errors = torch.tensor([[[0.1, 0.9]], [[0.8, 0.2]], [[0.3, 0.4]]])  # of blocks 3, 4, 5
    motion = torch.zeros(6, 1, 2)
    motion[2, 0, 0] = 1.0  # moved before block 3
    motion[4, 0, 1] = 1.0
    worst = local_readout.moving_errors(errors, motion, 0.5).amax((1, 2))
    torch.testing.assert_close(worst, torch.tensor([0.1, 0.2, 0.4]))
    assert torch.isinf(local_readout.moving_errors(errors, motion, 2.0)).all()


def test_windows_say_of_every_block_what_the_whole_video_does():
    worst = np.arange(7.0)  # of blocks 3..9, as of ten blocks in five windows
    windows = np.stack([worst[:5], worst[2:]], 1)
    np.testing.assert_array_equal(local_readout.by_block(windows), [np.nan] * 3 + list(worst))
    assert np.isnan(local_readout.by_block(windows[:1])[[0, 1, 2, 4]]).all()


def test_captions_fall_into_clauses():
    assert split_clauses("a man walks by and two people are fighting and a car passes") == [
        "a man walks by", "two people are fighting", "a car passes",
    ]  # fmt: skip
    assert split_clauses("nothing moves") == ["nothing moves"]


def test_the_memory_is_the_same_for_all_and_no_larger_than_asked():
    keys = torch.randn(50, 4)
    kept = local_readout.remember(keys, 20)
    assert len(kept) == 20 and torch.equal(kept, local_readout.remember(keys, 20))
    assert torch.equal(local_readout.remember(keys, 100), keys)
