"""Pretraining of the stand-ins, on a corpus of a few clips."""

import pytest
import torch

from data_prep.scene_rules.web import web_corpus
from zsad_lib.config import get_profile
from zsad_lib.errors import ZsadError
from zsad_lib.features import backbones
from zsad_lib.features.backbones import WEIGHTS, frame_differences, normalise, stand_ins
from zsad_lib.files import paths
from zsad_lib.files.weights import SHIPPED, load_weights
from zsad_lib.methods import pretraining


def test_shipped_weights_say_what_made_them_and_are_small():
    assert sum((SHIPPED / name).stat().st_size for name in WEIGHTS) < 20e6
    for name in WEIGHTS:
        _, meta = load_weights(SHIPPED / name)
        assert meta["command"] == "make pretrain" and meta["clips"] == 6000
        curve = meta["loss"]  # one mean per epoch; DPC passes over its corpus once
        assert all(0 < value < 20 for value in curve) and curve[-1] <= min(curve)


def test_run_writes_all_stand_ins_that_load(tmp_path, monkeypatch):
    monkeypatch.setattr(pretraining, "EPOCHS", dict.fromkeys(pretraining.EPOCHS, 1))
    corpus = web_corpus(32, 0, jobs=1)
    for name in ("pretrain_timesformer", "pretrain_dpc", "pretrain_scene", "pretrain_clip"):
        real = getattr(pretraining, name)
        monkeypatch.setattr(pretraining, name, lambda *a, real=real, **k: real(*a, **{**k, "batch": 16}))
    monkeypatch.setattr(pretraining, "web_corpus", lambda *arguments: corpus)
    files = pretraining.run(clips=32, folder=tmp_path, jobs=1)  # one process sees what is patched
    assert set(files) == set(pretraining.EPOCHS) and len(stand_ins(tmp_path).vocabulary) > 20
    _, meta = load_weights(files["dpc"])
    assert len(meta["loss"]) == pretraining.ROUNDS["dpc"] and meta["clips"] == 32


def test_frame_differences_cancel_the_background():
    frames = torch.randint(0, 255, (1, 4, 6, 3), dtype=torch.uint8).expand(5, -1, -1, -1).clone()
    assert not frame_differences(frames).any()
    frames[3, 0, 0] = 255
    x = frame_differences(frames)
    torch.testing.assert_close(x[3], -x[4])
    stats = ((0.5,) * 3, (0.25,) * 3)
    torch.testing.assert_close(
        normalise(torch.full((1, 1, 3), 255, dtype=torch.uint8), stats), torch.full((3, 1, 1), 2.0)
    )


def test_stand_ins_of_another_seed_are_asked_for_by_it(monkeypatch, tmp_path):
    monkeypatch.setenv("ZSAD_HOME", str(tmp_path))
    for held_out, more in ((False, "`"), (True, " HELD_OUT=1`")):
        profile = get_profile("demo", pretrain_seed=5, held_out=held_out)
        with pytest.raises(ZsadError, match=f"make pretrain PRETRAIN_SEED=5{more}"):
            backbones.weights_folder(profile)
        paths.make_folder(folder := backbones.pretrained(5, held_out))
        (folder / WEIGHTS[-1]).touch()
        assert backbones.weights_folder(profile) == folder and folder.is_relative_to(tmp_path / "cache")
    assert backbones.pretrained(0, False) == SHIPPED
