"""Defect switches of the released code."""

import numpy as np
import pytest
import torch

from zsad_lib import released_defects
from zsad_lib.config import get_profile
from zsad_lib.errors import ZsadError
from zsad_lib.features.backbones import stand_ins
from zsad_lib.features.cache import TOUCHED, cache_folder
from zsad_lib.features.extraction import Extractor, chunks
from zsad_lib.files.video import write_video


def test_switches_are_sorted_by_where_they_act():
    places = {
        place: released_defects.acting_in(released_defects.AS_RELEASED, place)
        for place in ("features", "train", "score")
    }
    assert sum(map(len, places.values())) == len(released_defects.DEFECTS) == 8
    assert sorted(number for number, _, _ in released_defects.DEFECTS.values()) == [1, 2, 3, 4, 5, 7, 8, 9]
    with pytest.raises(ZsadError, match="did you mean 'dpc_order'"):
        released_defects.acting_in(("dpc_ordr",), "train")


def test_switches_that_change_features_have_a_cache_of_their_own():
    folders = [
        cache_folder(get_profile("demo", released=name))
        for name in ("", "dpc_order", "cpc_temperature", "dpc_order,scene_weights")
    ]
    assert folders[0] == folders[2] and len(set(folders)) == 3


@pytest.mark.parametrize(
    ("switch", "changed"),
    [
        ("dpc_order", "stem"),
        ("position_size", "timesformer"),
        ("scene_weights", "scene"),
        ("one_normalisation", "scene"),
        ("batch_statistics", "stem"),
    ],
)
def test_each_feature_switch_changes_its_stream_alone(switch, changed):
    frames = np.random.default_rng(0).integers(0, 255, (30, 48, 64, 3), dtype=np.uint8)
    ((piece, _),) = chunks(iter(frames))
    names = ("timesformer", "scene", "stem", "cell_motion")
    right = dict(zip(names, Extractor(stand_ins()).windows(torch.from_numpy(piece))))
    norm_stats = "batch" if switch == "batch_statistics" else "running"
    wrong = dict(zip(names, Extractor(stand_ins(norm_stats=norm_stats), (switch,)).windows(torch.from_numpy(piece))))
    assert right[changed].shape == wrong[changed].shape and not torch.allclose(
        right[changed], wrong[changed], atol=1e-3
    )
    same = {"timesformer", "scene"} - {changed}
    for name in same:
        torch.testing.assert_close(right[name], wrong[name])


@pytest.mark.parametrize("switches", [*((name,) for name in TOUCHED), tuple(TOUCHED)])
def test_untouched_streams_are_taken_over_and_nothing_else(switches, tmp_path):
    write_video(tmp_path / "a.mp4", np.random.default_rng(0).integers(0, 255, (43, 96, 128, 3), np.uint8), 10)
    unswitched = Extractor(stand_ins()).video(tmp_path / "a.mp4")
    norm_stats = "batch" if "batch_statistics" in switches else "running"
    extractor = Extractor(stand_ins(norm_stats=norm_stats), switches)
    whole, part = extractor.video(tmp_path / "a.mp4"), extractor.video(tmp_path / "a.mp4", unswitched)
    for name, expected, found in zip(whole._fields, whole, part):
        torch.testing.assert_close(torch.as_tensor(found), torch.as_tensor(expected), atol=0, rtol=0, msg=name)
