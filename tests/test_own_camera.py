"""One's own camera on published weights, in miniature: every command, what is missing, and what is equal."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from official_files import camera_weights

from zsad_lib.__main__ import main
from zsad_lib.errors import ZsadError, tell_once
from zsad_lib.features.extraction import Extractor
from zsad_lib.features.published_weights import CATALOGUE, build_model
from zsad_lib.features.window_plan import BLOCK_LEN
from zsad_lib.files.paths import read_json
from zsad_lib.files.video import timed_frames, write_video
from zsad_lib.files.weights import load_weights, save_weights
from zsad_lib.methods.context_aware.local_readout import by_block
from zsad_lib.methods.predictive_coding import train as from_scratch
from zsad_lib.methods.predictive_coding.score import score_predictive
from zsad_lib.own_video import camera_prediction, camera_words, detector, explain_figures
from zsad_lib.own_video.calibrate import calibrate
from zsad_lib.own_video.detector import Sees, own_detector
from zsad_lib.own_video.explain import explain
from zsad_lib.own_video.frame_by_frame import LiveScorer
from zsad_lib.own_video.own_scale import RunningScale
from zsad_lib.own_video.scoring import score_video, score_windows, seen_frames
from zsad_lib.own_video.ticks import Seen
from zsad_lib.own_video.words import Words

OFFICIAL = Sees("official")


def footage(seed: int, frames: int):
    rng = np.random.default_rng(7)  # one camera: the same place in all videos
    place, walk = rng.integers(0, 160, (64, 96, 3), dtype=np.uint8), np.random.default_rng(seed).integers(0, 40)
    for number in range(frames):
        picture = place.copy()
        column = (walk + number) % 80
        picture[20:50, column : column + 12] = (200, 60, 60)
        yield picture


@pytest.fixture(scope="module")
def camera(tmp_path_factory):
    """(folder of videos, folder of weights), and a detector calibrated to them under the name "cam"."""
    folder = tmp_path_factory.mktemp("camera")
    for number in range(4):
        write_video(folder / "normal" / f"{number}.mp4", footage(number, 90), 10)
    write_video(folder / "clip.mp4", footage(9, 100), 10)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZSAD_HOME", str(folder))
        weights = camera_weights(folder / "weights", patch)
        calibrate(folder / "normal", "cam", far=0.2, sees=OFFICIAL)
        yield folder, weights


def test_without_a_run_clip_alone_scores_on_the_scale_of_the_video_itself(camera):
    own = own_detector(None, sees=OFFICIAL)
    assert own.terms == own.without_scale == ("s_sem",) and own.size == (64, 64) and own.tool.look_every == BLOCK_LEN
    assert own.scorer.captions == list(camera_words.NORMAL) and own.scorer.prompts == list(camera_words.ABNORMAL)
    table = score_video(camera[0] / "clip.mp4", sees=OFFICIAL)
    assert abs(table.score.mean()) < 1e-6 and table.score.std(ddof=0) == pytest.approx(1)
    assert {"s_pred", "s_mem", "s_mem_global"}.isdisjoint(table) and table.attrs["threshold"] is None
    assert table.caption.dropna().isin(camera_words.NORMAL).all() and table.caption.notna().any()
    assert table.attrs["backbones"] == "official"


def test_the_running_scale_is_that_of_the_windows_so_far(camera):
    own = own_detector(None, sees=OFFICIAL)
    scale, rng, seen = RunningScale(own), np.random.default_rng(0), []
    for number in range(12):
        pictures = rng.random((1, 8)) if number else np.full((1, 8), np.nan)  # at first nobody is there
        scale.take({"s_sem": pictures})
        if number:
            seen.append(pictures[0, -2:].mean())
            expected = (np.mean(seen), np.std(seen) or 1.0)
            assert own.scorer.causal_statistics["s_sem"] == pytest.approx(expected)
    assert own.scorer.lowest["s_sem"] <= min(seen)


@pytest.mark.parametrize("run, sees", [(None, OFFICIAL), ("cam", Sees())], ids=["untrained", "calibrated"])
def test_file_causal_and_live_agree(camera, run, sees):
    video = camera[0] / "clip.mp4"
    causal, live = score_video(video, run, sees=sees, causal=True), LiveScorer(run, sees=sees)
    found = [live.push(frame, seconds) for seconds, frame in timed_frames(video)]
    assert [one.score for one in found] == causal.score.tolist() and causal.score.nunique() > 5
    assert [one.warmup for one in found] == causal.warmup.tolist() and causal.warmup.sum() == 29
    own, pieces = own_detector(run, sees=sees), causal[~causal.warmup]
    together = score_video(video, run, sees=sees)
    assert own.terms[0] == "s_sem" and np.isfinite(together.score).all()
    assert pieces.s_sem.between(together.s_sem.min() - 0.2, together.s_sem.max() + 0.2).all()


def test_a_calibrated_detector_has_every_term_and_brings_its_streams(camera):
    folder, _ = camera
    own = own_detector("cam")
    assert own.terms == ("s_sem", "s_pred", "s_mem", "s_mem_global") and own.without_scale == ()
    assert own.meta["without"] == [] and own.tool.backbones.dpc is own.scorer.detector.dpc
    assert own.scorer.detector.dpc.backbone.bn1.num_batches_tracked == 4, "measured on the four normal videos"
    assert torch.isfinite(own.scorer.detector.moving_from)
    table = score_video(folder / "clip.mp4", "cam")
    assert table.attrs["threshold"] == own.meta["threshold"] and (table.score > own.meta["threshold"]).mean() < 0.5
    np.testing.assert_array_equal(table.score, score_video(folder / "clip.mp4", "cam", sees=OFFICIAL).score)
    with pytest.raises(ZsadError, match="cam: sees with published weights, not with the small networks"):
        own_detector("cam", sees=Sees("stand_in"))
    with pytest.raises(ZsadError, match="the shipped detector: sees with the small|sees with"):
        own_detector(str(folder / "runs" / "cam"), sees=Sees("stand_in"))


def test_streams_can_be_left_out_each_with_a_line(camera, monkeypatch, capsys):
    folder, _ = camera
    tell_once.cache_clear()
    without = Sees("official", ("dpc", "places365"))
    calibrate(folder / "normal", "bare", far=0.2, sees=without)
    told = capsys.readouterr().err
    assert "without dpc: nothing is predicted" in told and "without places365: no memory of what the place" in told
    own = own_detector("bare")
    assert own.terms == ("s_sem", "s_mem", "s_mem_global") and own.scorer.detector.dpc is None
    assert np.isfinite(score_video(folder / "clip.mp4", "bare").score).all()
    with pytest.raises(ZsadError, match="calibrated with dpc; calibrate anew to do without"):
        own_detector("cam", sees=Sees(without=("dpc",)))
    with pytest.raises(ZsadError, match="unknown stream 'timesformr'; did you mean 'timesformer'"):
        own_detector(None, sees=Sees("official", ("timesformr",)))


def test_an_explanation_shows_what_there_is(camera):
    folder, _ = camera
    why = explain(folder / "clip.mp4", "cam")
    assert why.rollout is None and why.errors.shape[1:2] == (3,) and why.scenes == {} and why.grid == (4, 4)
    np.testing.assert_allclose(sum(why.terms.values()), why.score)
    why = explain(folder / "clip.mp4", sees=Sees("official", attention=True), at=[5.0])
    assert why.rollout.shape == why.motion.shape == (1, 8, 2, 2) and why.errors.size == 0
    assert list(why.terms) == ["s_sem"]


def test_prompts_score_where_they_have_a_weight(camera):
    folder, _ = camera
    words = Words(abnormal=["a red thing"], prompt_weight=2.0)
    table, plain = score_video(folder / "clip.mp4", "cam", words=words), score_video(folder / "clip.mp4", "cam")
    mean, deviation = table.attrs["statistics"]["s_prompt"]
    np.testing.assert_allclose(table.score - plain.score, 2 * (table.s_prompt - mean) / deviation, atol=1e-9)
    assert table.attrs["threshold"] is None, "it was measured without the prompts"
    assert explain_figures.contributions(explain(folder / "clip.mp4", "cam", words)).axes
    calibrate(folder / "normal", "told", far=0.2, words=words, sees=OFFICIAL)
    own = own_detector("told")
    assert own.terms[-1] == "s_prompt" and own.scorer.prompts == ["a red thing"] and own.scorer.prompt_weight == 2
    assert own.meta["threshold"] and own.without_scale == ()
    others = own_detector("told", Words(abnormal=["a blue thing"]))
    assert "threshold" not in others.meta and others.without_scale == ("s_prompt",)
    with pytest.raises(ZsadError, match="prompt weight -1.0: give a number from 0 on"):
        own_detector("cam", Words(prompt_weight=-1.0))


def test_every_command(camera, monkeypatch, capsys):
    folder, weights = camera
    monkeypatch.chdir(folder)
    tell_once.cache_clear()
    (folder / "cache" / "weights" / "licences_shown.json").unlink()
    official, clip = ["--backbones", "official"], str(folder / "clip.mp4")
    assert main(["score", clip, *official]) == 0
    said = capsys.readouterr()
    assert "clip_vit_b16: licence MIT" in said.err and "published weights without a calibration" in said.out
    assert read_json(folder / "cache/weights/licences_shown.json") == ["clip_vit_b16"]
    assert len(pd.read_csv("clip.scores.csv")) == 100
    assert main(["explain", clip, *official]) == 0 and (folder / "clip.scores" / "why_1.png").is_file()
    assert "licence" not in capsys.readouterr().err
    assert main(["calibrate", "normal", *official, "--far", "0.3", "--name", "again"]) == 0
    assert load_weights(folder / "runs/again/score/full/0/scorer.safetensors")[1]["backbones"] == "official"
    assert main(["live", clip, "--run", "again"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line[0].isdecimal()]
    causal = score_video(clip, "again", causal=True)
    assert [f"{score:.6g}" for score in causal.score] == [line.split(",")[3] for line in lines]
    assert main(["features", "normal", *official, "--out", "features", "--jobs", "1"]) == 0
    assert len(list((folder / "features").glob("*.safetensors"))) == 4


@pytest.mark.parametrize("command", ["score clip.mp4", "explain clip.mp4", "calibrate normal", "live clip.mp4"])
def test_without_clip_there_is_one_line_and_nothing_is_written(camera, tmp_path, monkeypatch, capsys, command):
    folder, weights = camera
    other = tmp_path / "weights"
    other.mkdir()
    for name in ("dpc", "places365"):
        (other / CATALOGUE[name].file).symlink_to(weights / CATALOGUE[name].file)
    monkeypatch.setenv("WEIGHTS_ROOT", str(other))
    monkeypatch.chdir(folder)
    before = sorted(folder.rglob("*"))
    assert main([*command.split(), "--backbones", "official"]) == 2
    said = capsys.readouterr()
    line = f"error: {other / 'ViT-B-16.pt'}: missing; `make weights PROFILE=camera` fetches it\n"
    assert said.err.splitlines(keepends=True)[-1] == line and said.err.count("error") == 1
    assert not said.out
    assert sorted(folder.rglob("*")) == before
    assert main([*command.split(), "--run", "cam"]) == 2 and capsys.readouterr().err.endswith(line)


def test_what_is_missing_is_told_and_what_is_damaged_is_refused(camera, tmp_path, monkeypatch, capsys):
    folder, weights = camera
    other = tmp_path / "weights"
    other.mkdir()
    for name in ("clip_vit_b16", "dpc"):
        (other / CATALOGUE[name].file).write_bytes((weights / CATALOGUE[name].file).read_bytes())
    monkeypatch.setenv("WEIGHTS_ROOT", str(other))
    tell_once.cache_clear()
    own = own_detector(None, sees=OFFICIAL)
    assert own.terms == ("s_sem",) and own.tool.backbones.scene is None and own.scorer.detector.dpc is None
    assert capsys.readouterr().err.startswith("CLIP looks at 2 pictures per second of video, this machine manages ")
    own = own_detector(None, sees=OFFICIAL, to_calibrate=True)
    assert own.meta["without"] == ["places365"]
    told = capsys.readouterr().err
    assert f"resnet18_places365.pth.tar: not in {other}: no memory of what the place itself looks like" in told
    with pytest.raises(ZsadError, match="resnet18_places365.pth.tar: missing; `make weights PROFILE=camera`"):
        own_detector("cam")  # calibrated with it
    file = other / CATALOGUE["dpc"].file
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(ZsadError, match=f"{file}: sha256 is"):
        own_detector(None, sees=OFFICIAL, to_calibrate=True)


def test_predictive_coding_is_learned_on_the_camera_and_goes_on_where_it_was(camera, monkeypatch, capsys):
    folder, _ = camera
    few = dataclasses.replace(camera_prediction.RECIPE, steps=6, checkpoint_every=2, crop=(64, 96), batch=1)
    monkeypatch.setattr(camera_prediction, "RECIPE", few)
    descend, taken = from_scratch.descend, []

    def stop_at_the_fifth(*arguments):
        taken.append(1)
        if len(taken) == 5:
            raise KeyboardInterrupt
        descend(*arguments)

    monkeypatch.setattr(from_scratch, "descend", stop_at_the_fifth)
    how = dict(far=0.3, sees=Sees("official", ("places365",)), predict=True)
    with pytest.raises(KeyboardInterrupt):
        calibrate(folder / "normal", "own", **how)
    assert "6 steps, about 0 minutes; interrupted, the same command goes on" in capsys.readouterr().err
    target, threshold = calibrate(folder / "normal", "own", **how)
    assert len(taken) == 7, "steps 1 to 5, of which four were kept, then the last two"
    own, video = own_detector("own"), folder / "clip.mp4"
    assert own.terms == ("s_sem", "s_pred", "s_mem", "s_mem_global") and own.size == (64, 96)
    assert own.meta["without"] == ["dpc", "places365"] and own.meta["measured_on"]["videos"] == 1, "one was held out"
    causal, live = score_video(video, "own", causal=True), LiveScorer("own")
    assert [live.push(frame, now).score for now, frame in timed_frames(video)] == causal.score.tolist()
    # Slowly: frame by frame, luma less the median, blocks of five frames, error x motion.
    file = target.parents[3] / "predict" / own.meta["predict"]["data"] / "dpc.safetensors"
    model, median, _, recipe = from_scratch.load(file)
    frames = torch.tensor((from_scratch.read_grey(video).astype(np.float32) - median) / 40)
    whole = score_predictive(model, torch.zeros(1, 32), frames, recipe)["predictive"].windows
    found = by_block(score_windows(seen_frames(video, Seen(), own.size), own).terms["s_pred"])
    np.testing.assert_allclose(found[3:], whole[3:], rtol=1e-4)
    assert calibrate(folder / "normal", "own", **how) == (target, threshold) and len(taken) == 7
    tensors, meta = load_weights(file)
    save_weights(file, tensors | {"median": tensors["median"] + 1}, meta)
    with pytest.raises(ZsadError, match="not what the detector was calibrated with; calibrate it again"):
        own_detector("own")


def test_a_cameras_own_prediction_serves_the_stand_ins_too(camera, monkeypatch):
    folder, _ = camera
    few = dataclasses.replace(camera_prediction.RECIPE, steps=2, crop=(64, 96), batch=1)
    monkeypatch.setattr(camera_prediction, "RECIPE", few)
    calibrate(folder / "normal", "small", far=0.3, predict=True)
    own = own_detector("small")
    assert own.scorer.detector.dpc is None and own.tool.backbones.dpc is None and own.size == (64, 96)
    assert np.isfinite(score_video(folder / "clip.mp4", "small").score).all()
    assert explain(folder / "clip.mp4", "small", at=[5.0]).errors.shape[1:] == (3, 8, 12)


@pytest.mark.parametrize(
    "height, width, size",
    [(240, 360, (240, 360)), (1080, 1920, (240, 424)), (48, 64, (144, 192)), (640, 360, (344, 192))],
)
def test_frames_are_read_no_smaller_than_a_sample(height, width, size):
    assert camera_prediction.size_for(height, width) == size


@pytest.mark.thorough
def test_the_published_sizes_end_to_end(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ZSAD_HOME", str(tmp_path))
    camera_weights(tmp_path / "weights", monkeypatch, build_model)  # random ones
    for number in range(2):
        write_video(tmp_path / "normal" / f"{number}.mp4", footage(number, 60), 10)
    monkeypatch.setattr(detector, "pictures_per_second", lambda tool: 2.0)  # a machine without a GPU
    calibrate(tmp_path / "normal", "cam", far=0.2, sees=OFFICIAL)
    own, video = own_detector("cam"), tmp_path / "normal" / "0.mp4"
    assert own.size == (224, 224) and own.tool.backbones.grid == (14, 14) and own.tool.look_every == BLOCK_LEN
    assert own.terms == ("s_sem", "s_pred", "s_mem", "s_mem_global")
    causal, live = score_video(video, "cam", causal=True), LiveScorer("cam")
    assert [live.push(frame, now).score for now, frame in timed_frames(video)] == causal.score.tolist()
    assert np.isfinite(score_video(video, sees=OFFICIAL).score).all()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_scores_that_are_no_numbers_calibrate_nothing(camera, monkeypatch):
    folder, _ = camera
    monkeypatch.setattr(
        Extractor,
        "windows",
        lambda self, *arguments, windows=Extractor.windows: tuple(
            torch.full_like(x, torch.nan) if number == 1 else x for number, x in enumerate(windows(self, *arguments))
        ),
    )
    with pytest.raises(ZsadError, match="normal: scores that are no numbers; a network's weights do not fit"):
        calibrate(folder / "normal", "wrong", far=0.2, sees=OFFICIAL)
    assert not (folder / "runs" / "wrong").exists()
