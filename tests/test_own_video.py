"""A user's own video: words, described scenes, odd files, and files that are none."""

import av
import numpy as np
import pytest
import torch

from zsad_lib import own_detector, own_video
from zsad_lib.__main__ import main
from zsad_lib.errors import ZsadError
from zsad_lib.own_detector import Words, own_scorer
from zsad_lib.video import write_video


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("own")


@pytest.fixture(scope="module")
def camera(folder):
    rng = np.random.default_rng(0)
    place = rng.integers(0, 200, (48, 64, 3), dtype=np.uint8)
    write_video(folder / "camera.mp4", (np.roll(place, i, axis=1) for i in range(45)), 10)
    return folder / "camera.mp4"


@pytest.fixture(scope="module")
def plain(camera):
    return own_video.score_video(camera)


def test_prompts_name_and_never_score(camera, plain):
    prompts = ["a man falls down", "a car drives by", "a man falls down"]  # twice the same is one
    told = own_video.score_video(camera, words=Words(abnormal=prompts))
    columns = ["p(a man falls down)", "p(a car drives by)"]
    assert [name for name in told if name.startswith("p(")] == columns
    few = Words(normal=["a fire burns"], abnormal=[plain.caption[0]])  # here the prompt fits better than the caption
    with_fit, without = (
        own_video.score_video(camera, words=few._replace(abnormal=some)) for some in (few.abnormal, prompts)
    )
    np.testing.assert_array_equal(with_fit[["score", "s_sem"]], without[["score", "s_sem"]])
    np.testing.assert_allclose(told.p_prompt, told[columns].max(axis=1))
    assert [f"p({name})" for name in told.prompt] == told[columns].idxmax(axis=1).tolist()
    assert told[columns].sum(axis=1).between(1e-9, 1).all()


def test_captions_are_the_bank_and_move_the_semantic_term_alone(camera, plain):
    told = own_video.score_video(camera, words=Words(normal=["a man walks by", "a car drives by"]))
    assert set(told.caption) <= {"a man walks by", "a car drives by"}
    assert (told.s_sem - plain.s_sem).abs().min() > 1e-4
    np.testing.assert_array_equal(told[["s_pred", "s_mem"]], plain[["s_pred", "s_mem"]])


def test_a_described_scene_stands_for_the_seen_one(camera, plain):
    told = own_video.score_video(camera, words=Words(scene="on a plaza"))
    assert (told.s_mem - plain.s_mem).abs().min() > 1e-4
    np.testing.assert_array_equal(told.s_pred, plain.s_pred)


def test_a_described_scene_is_the_mean_of_the_windows_that_fit(monkeypatch):
    scorer, _ = own_scorer(None)
    d, scenes = scorer.detector, len(scorer.detector.scene_mean)
    width = scorer.memory.shape[1] - scenes
    video, scene = torch.eye(width)[:4], torch.eye(scenes)[:4]
    scorer.memory = torch.cat([video, scene], 1) / 2**0.5
    monkeypatch.setattr(own_detector, "DESCRIBED_BY", 2)
    found = d.standardised(own_detector.described_scene(scorer, video[0] + 0.5 * video[2]))
    torch.testing.assert_close(found, (scene[0] + scene[2]) * (scenes / 2) ** 0.5)
    scorer.memory = torch.empty(0)
    with pytest.raises(ZsadError, match="no memory of windows"):
        own_detector.described_scene(scorer, video[0])


def test_unknown_words_are_told_once_and_empty_lists_are_refused(caplog):
    own_scorer(None, Words(normal=["a zebra walks by"], abnormal=["a zebra burns"], scene="a zebra"))
    assert len(caplog.messages) == 1 and "zebra" in caplog.messages[0]
    for words, message in ((Words(abnormal=()), "at least one"), (Words(normal="a man walks"), "give a list")):
        with pytest.raises(ZsadError, match=message):
            own_scorer(None, words)


def test_a_threshold_does_not_survive_other_words(monkeypatch):
    load = own_detector.load_scorer
    given = {"threshold": 3.0, "threshold_causal": 4.0}
    monkeypatch.setattr(own_detector, "load_scorer", lambda path: (load(path)[0], given))
    assert own_scorer(None)[1]["threshold"] == own_scorer(None, Words(abnormal=["a fire burns"]))[1]["threshold"] == 3
    for words in (Words(normal=["a man walks by"]), Words(scene="on a plaza")):
        assert own_scorer(None, words)[1] == {}


@pytest.mark.parametrize("streams", [{"backbones": "official"}, {"held_out": True}, {"released": ["scene_weights"]}])
def test_a_detector_of_other_streams_is_refused(monkeypatch, streams):
    monkeypatch.setattr(own_detector, "load_scorer", lambda path: (None, streams))
    with pytest.raises(ZsadError, match="trained on other streams"):
        own_scorer(None)


def encode(path, codec, pixels, pictures, rate=10, **options):
    with av.open(str(path), "w", **options) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width, stream.pix_fmt = *pictures[0].shape[:2], pixels
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pixels)))
        container.mux(stream.encode(None))


@pytest.mark.parametrize(
    "name, codec, pixels, count, rate, size",
    [
        ("one.mp4", "libx264", "yuv420p", 1, 10, (48, 64)),
        ("grey.avi", "mjpeg", "yuvj444p", 2, 1, (31, 41)),
        ("deep.mkv", "ffv1", "yuv420p10le", 31, 1000, (2, 2)),
        ("bare.h264", "libx264", "yuv420p", 31, 25, (32, 48)),  # no container: no times
    ],
)
def test_odd_files_have_a_row_and_a_picture_per_frame(
    folder, monkeypatch, scorer, name, codec, pixels, count, rate, size
):
    monkeypatch.setattr(own_video, "own_scorer", lambda *_: (scorer, {}))
    pictures = np.random.default_rng(1).integers(0, 255, (count, *size, 3), dtype=np.uint8)
    encode(folder / name, codec, pixels, pictures, rate)
    table = own_video.score_video(folder / name)
    assert len(table) == count and np.isfinite(table.select_dtypes("number")).all().all()
    np.testing.assert_allclose(table.time_s.iloc[-1], (count - 1) / rate, atol=1.5 / rate)
    causal = own_video.score_video(folder / name, causal=True)
    assert len(causal) == count and causal.warmup[:29].all() and np.isfinite(causal.score).all()


@pytest.fixture(scope="module")
def scorer():
    return own_scorer(None)[0]


def test_files_that_are_no_video_are_one_line(folder, camera, capsys):
    data = camera.read_bytes()
    for name, content in (("text.mp4", b"no video"), ("half.mp4", data[: len(data) // 2]), ("none.mp4", b"")):
        (folder / name).write_bytes(content)
        assert main(["score", str(folder / name), "--output", str(folder / "none.csv")]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: {folder / name}: ") and error.count("\n") == 1
    assert not (folder / "none.csv").exists()
