"""A user's own video: words, described scenes, odd files, and files that are none."""

import av
import numpy as np
import pytest
import torch

from zsad_lib.__main__ import main
from zsad_lib.errors import ZsadError
from zsad_lib.features import extraction
from zsad_lib.files.video import probe, read_video, write_video
from zsad_lib.files.weights import load_weights, save_weights
from zsad_lib.methods.context_aware.scorer import load_scorer
from zsad_lib.models.regions import Regions
from zsad_lib.own_video import detector, scoring
from zsad_lib.own_video import words as words_module
from zsad_lib.own_video.detector import Sees, own_detector
from zsad_lib.own_video.words import Words


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
    return scoring.score_video(camera)


def numbers_of(table):
    """All columns of numbers but the place of a region, which is NaN where nobody is seen."""
    return table.select_dtypes("number").drop(columns=["region_x", "region_y"])


def test_prompts_name_and_never_score(camera, plain):
    prompts = ["a man falls down", "a car drives by", "a man falls down"]  # twice the same is one
    told = scoring.score_video(camera, words=Words(abnormal=prompts))
    columns = ["p(a man falls down)", "p(a car drives by)"]
    assert [name for name in told if name.startswith("p(")] == columns
    few = Words(normal=["a fire burns"], abnormal=[plain.caption[0]])  # here the prompt fits better than the caption
    with_fit, without = (
        scoring.score_video(camera, words=few._replace(abnormal=some)) for some in (few.abnormal, prompts)
    )
    np.testing.assert_array_equal(with_fit[["score", "s_sem"]], without[["score", "s_sem"]])
    np.testing.assert_allclose(told.p_prompt, told[columns].max(axis=1))
    assert [f"p({name})" for name in told.prompt] == told[columns].idxmax(axis=1).tolist()
    assert told[columns].sum(axis=1).between(1e-9, 1).all()


def test_captions_are_the_bank_and_move_the_semantic_term_alone(camera, plain):
    told = scoring.score_video(camera, words=Words(normal=["a man walks by", "a car drives by"]))
    assert set(told.caption) <= {"a man walks by", "a car drives by"}
    assert (told.s_sem - plain.s_sem).abs().min() > 1e-4
    others = ["s_pred", "s_mem", "s_mem_global"]
    np.testing.assert_array_equal(told[others], plain[others])


def test_a_described_scene_stands_for_the_seen_one(camera, plain):
    told = scoring.score_video(camera, words=Words(scene="on a plaza"))
    assert (told.s_mem - plain.s_mem).abs().min() > 1e-4
    np.testing.assert_array_equal(told.s_pred, plain.s_pred)


def test_a_described_scene_is_the_mean_of_the_windows_that_fit(monkeypatch):
    scorer = own_detector(None).scorer
    d, scenes = scorer.detector, len(scorer.detector.scene_mean)
    width = scorer.memory.shape[1] - scenes
    video, scene = torch.eye(width)[:4], torch.eye(scenes)[:4]
    scorer.memory = torch.cat([video, scene], 1) / 2**0.5
    monkeypatch.setattr(words_module, "DESCRIBED_BY", 2)
    found = d.standardised(words_module.described_scene(scorer, video[0] + 0.5 * video[2]))
    torch.testing.assert_close(found, (scene[0] + scene[2]) * (scenes / 2) ** 0.5)
    scorer.memory = torch.empty(0)
    with pytest.raises(ZsadError, match="no memory of windows"):
        words_module.described_scene(scorer, video[0])


def test_unknown_words_are_told_once_and_empty_lists_are_refused(caplog):
    own_detector(None, Words(normal=["a zebra walks by"], abnormal=["a zebra burns"], scene="a zebra"))
    [told] = caplog.messages
    assert "'a zebra walks by' (zebra); 'a zebra burns' (zebra)" in told  # words, not the tokenizer's pieces
    for words, message in (
        (Words(abnormal=()), "at least one"),
        (Words(normal="a man walks"), "give a list"),
        (Words(abnormal=["a man walks", "Zebra, quagga!"]), "'Zebra, quagga!': the detector knows no word"),
        (Words(scene="quagga"), "'quagga': the detector knows no word"),
    ):
        with pytest.raises(ZsadError, match=message):
            own_detector(None, words)


def test_a_threshold_does_not_survive_other_words(monkeypatch):
    load = detector.load_scorer
    given = {"threshold": 3.0, "threshold_causal": 4.0}
    monkeypatch.setattr(detector, "load_scorer", lambda *arguments: (load(*arguments)[0], given))
    assert own_detector(None).meta["threshold"] == 3
    assert own_detector(None, Words(abnormal=["a fire burns"])).meta["threshold"] == 3
    for words in (Words(normal=["a man walks by"]), Words(scene="on a plaza"), Words(prompt_weight=1.0)):
        assert own_detector(None, words).meta == {}


OTHER_STREAMS = {"backbones": "former"}, {"held_out": True}, {"pretrain_seed": 1}, {"released": ["scene_weights"]}


@pytest.mark.parametrize("streams", OTHER_STREAMS)
def test_a_detector_of_other_streams_is_refused(monkeypatch, streams):
    monkeypatch.setattr(detector, "load_scorer", lambda path, streams_of: streams_of(streams))
    with pytest.raises(ZsadError, match="trained on other streams"):
        own_detector(None)


def test_nothing_is_left_out_of_the_stand_ins_in_silence():
    with pytest.raises(ZsadError, match="without dpc: only published weights have parts to leave out"):
        own_detector(None, sees=Sees(without=("dpc",)))
    with pytest.raises(ZsadError, match="unknown backbones 'offical'; did you mean 'official'"):
        own_detector(None, sees=Sees("offical"))


def encode(path, codec, pixels, pictures, rate=10, **options):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width, stream.pix_fmt = *pictures[0].shape[:2], pixels
        stream.options = options
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
def test_odd_files_have_a_row_and_a_picture_per_frame(folder, monkeypatch, own, name, codec, pixels, count, rate, size):
    monkeypatch.setattr(scoring, "own_detector", lambda *_: own)
    pictures = np.random.default_rng(1).integers(0, 255, (count, *size, 3), dtype=np.uint8)
    encode(folder / name, codec, pixels, pictures, rate)
    table = scoring.score_video(folder / name)
    assert len(table) == count and np.isfinite(numbers_of(table)).all().all()
    np.testing.assert_allclose(table.time_s.iloc[-1], (count - 1) / rate, atol=1.5 / rate)
    causal = scoring.score_video(folder / name, causal=True)
    assert len(causal) == count and causal.warmup[:29].all() and np.isfinite(causal.score).all()


@pytest.fixture(scope="module")
def own():
    return own_detector(None)


@pytest.mark.parametrize("count", [1, 12, 31, 45])
@pytest.mark.parametrize("seen", ["no region", "a still picture"])
def test_where_nobody_is_and_nothing_moves_scores_are_finite_and_nothing_is_named(
    tmp_path, monkeypatch, own, seen, count
):
    monkeypatch.setattr(scoring, "own_detector", lambda *_: own)
    pictures = np.random.default_rng(1).integers(0, 255, (count, 48, 64, 3), dtype=np.uint8)
    if seen == "no region":
        monkeypatch.setattr(extraction, "find_regions", lambda *_: Regions(torch.empty(0, 64), torch.empty(0, 4)))
    else:
        pictures[:] = 90
    encode(tmp_path / "a.mkv", "ffv1", "bgr0", [*pictures])
    for causal in (False, True):
        table = scoring.score_video(tmp_path / "a.mkv", causal=causal)
        assert len(table) == count and np.isfinite(numbers_of(table)).all().all()
        if seen == "no region":
            assert table.caption.isna().all() and table.prompt.isna().all() and (table.p_prompt == 0).all()
            np.testing.assert_allclose(table.s_sem[~table.warmup], own.scorer.lowest["s_sem"])


def test_a_detector_of_an_earlier_kit_is_one_line(tmp_path):
    tensors, meta = load_weights(detector.SHIPPED / "detector.safetensors")
    save_weights(tmp_path / "old.safetensors", tensors, {"captions": meta["captions"]})
    with pytest.raises(ZsadError, match="of an earlier version of the kit; train or calibrate it again"):
        load_scorer(tmp_path / "old.safetensors")


def test_files_that_are_no_video_are_one_line(folder, camera, capsys):
    data = camera.read_bytes()
    for name, content in (("text.mp4", b"no video"), ("head.mp4", data[: data.index(b"moov") + 60]), ("none.mp4", b"")):
        (folder / name).write_bytes(content)
        assert main(["score", str(folder / name), "--output", str(folder / "none.csv")]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: {folder / name}: ") and error.count("\n") == 1
    assert not (folder / "none.csv").exists()


def test_a_blank_scene_is_none_and_many_prompts_are_quiet(camera, plain, recwarn):
    words = "man woman car dog fire walks falls burns runs drives by".split()
    prompts = [f"a {one} {other}" for one in words for other in words]  # columns one by one would warn from 100 on
    told = scoring.score_video(camera, words=Words(scene="  ", abnormal=prompts))
    np.testing.assert_allclose(told.score, plain.score, atol=1e-4)
    assert not [one for one in recwarn if "Performance" in one.category.__name__]


def test_a_folder_of_frames_takes_a_rate_and_short_ones_say_so(tmp_path, monkeypatch, own, capsys):
    from PIL import Image

    monkeypatch.setattr(scoring, "own_detector", lambda *_: own)
    for number in range(8):
        Image.new("RGB", (64, 48), (number, 0, 0)).save(tmp_path / f"{number}.png")
    table = scoring.score_video(tmp_path, fps=4.0, progress=True)
    assert table.time_s.tolist() == [number / 4 for number in range(8)]
    slow, short = capsys.readouterr().err.splitlines()
    assert "11 of 19 that a window looks at lie between two" in slow  # 1.75 seconds
    assert "frames seen: 19, a window takes 30" in short
    assert scoring.score_video(tmp_path, progress=True).time_s.iloc[-1] == 0.7
    assert "10 per second are assumed" in capsys.readouterr().err.splitlines()[0]
    for path, fps, message in ((tmp_path / "0.png", None, "single picture"), (tmp_path, 0.0, "above 0")):
        with pytest.raises(ZsadError, match=message):
            scoring.score_video(path, fps=fps)


def test_a_rate_is_refused_for_a_file_that_holds_its_times(camera):
    with pytest.raises(ZsadError, match="only for a folder of frames"):
        scoring.score_video(camera, fps=25.0)


def test_a_damaged_recording_has_a_row_a_picture_and_a_film_frame_per_decoded_frame(folder, tmp_path, capsys):
    encode(
        folder / "gops.mp4",
        "libx264",
        "yuv420p",
        np.random.default_rng(2).integers(0, 255, (45, 32, 48, 3), np.uint8),
        g="5",
        bf="0",
    )
    with av.open(str(folder / "gops.mp4")) as source:
        [_, packet, *_] = [one for one in source.demux(video=0)]
        hole = packet.pos, packet.size
    data = bytearray((folder / "gops.mp4").read_bytes())
    data[hole[0] : sum(hole)] = bytes(hole[1])
    (tmp_path / "hole.mp4").write_bytes(data)
    assert main(["score", str(tmp_path / "hole.mp4"), "--output", str(tmp_path / "hole.csv")]) == 0
    assert capsys.readouterr().err.count("skipped packets that cannot be decoded: 1\n") == 1  # not by the film again
    rows = (tmp_path / "hole.csv").read_text().count("\n") - 1
    assert rows == 44 == probe(tmp_path / "hole" / "overlay.mp4").n_frames
    whole = read_video(folder / "gops.mp4", [44])
    np.testing.assert_array_equal(read_video(tmp_path / "hole.mp4", [43], decoded=44), whole)  # none is counted twice


def test_a_folder_that_is_only_called_like_a_run_hides_none(run_home, monkeypatch):
    kept = run_home / "runs" / "mine" / "score" / "full" / "0" / "scorer.safetensors"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"")
    monkeypatch.chdir(run_home)
    (run_home / "mine").mkdir()
    assert detector.scorer_file("mine") == detector.scorer_file("runs/mine").resolve() == kept
    with pytest.raises(ZsadError, match="other: no trained detector here"):
        detector.scorer_file("other")
