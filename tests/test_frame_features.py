"""CLIP features per frame: what they are, resuming, sharding, and videos that cannot be read."""

from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from zsad_lib.errors import ZsadError
from zsad_lib.features import clip_frames as f
from zsad_lib.features.backbones import OPENAI_CLIP, normalise
from zsad_lib.files.video import read_video, write_video
from zsad_lib.files.weights import SHIPPED
from zsad_lib.models import build_clip


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    clip = build_clip(
        "ViT-B-16", embed_dim=8, text_width=16, text_heads=2, text_layers=1, text_vocab_size=50,
        vision_width=32, vision_layers=1, vision_head_width=16, vision_patch_size=8, vision_image_size=16,
    )  # fmt: skip
    return f.FrameEncoder(clip, (16, 16), name="tiny")


@pytest.fixture
def videos(tmp_path):
    rng = np.random.default_rng(0)
    for name, count in (("a", 3), ("b", 70), ("c", 1)):
        write_video(tmp_path / "videos" / f"{name}.mp4", rng.integers(0, 255, (count, 32, 48, 3), np.uint8), 10)
    return sorted((tmp_path / "videos").iterdir())


def test_features_are_raw_and_of_every_frame(encoder, videos, tmp_path):
    found = f.extract(videos, tmp_path / "out", lambda: encoder)
    assert [len(f.load_clip_features(found[name])) for name in "abc"] == [3, 70, 1]
    frame = read_video(videos[0])[1]
    by_hand = f.resize(frame, (16, 24))[:, 4:20]  # shorter side to 16, then the centre
    with torch.no_grad():
        expected = encoder.clip.encode_image(normalise(torch.from_numpy(by_hand.copy())[None], OPENAI_CLIP))[0]
    assert torch.allclose(f.load_clip_features(found["a"])[1], expected, atol=1e-5)
    assert not torch.isclose(expected.norm(), torch.tensor(1.0), atol=1e-2)


def test_finished_videos_are_kept_and_changed_ones_made_again(encoder, videos, tmp_path, monkeypatch):
    first = f.extract(videos, tmp_path / "out", lambda: encoder)
    read = []
    monkeypatch.setattr(f, "video_features", lambda _, video: read.append(video.stem) or torch.zeros(1, 8))
    f.extract(videos, tmp_path / "out", lambda: encoder)
    assert read == []
    first["b"].write_bytes(first["b"].read_bytes()[:100])
    write_video(videos[2], np.zeros((5, 32, 48, 3), np.uint8), 10)
    f.extract(videos, tmp_path / "out", lambda: encoder)
    assert read == ["b", "c"]


def test_shards_share_the_videos(encoder, videos, tmp_path):
    parts = [f.extract(videos, tmp_path / "out", lambda: encoder, shard=(i, 2)) for i in range(2)]
    assert [sorted(part) for part in parts] == [["a", "c"], ["b"]]


def test_unreadable_videos_fail_at_the_end(encoder, videos, tmp_path, capsys):
    videos[0].write_bytes(b"no video")
    with pytest.raises(ZsadError, match=r"1 of 3 videos cannot be read, the first: .*a\.mp4"):
        f.extract(videos, tmp_path / "out", lambda: encoder)
    assert sorted(path.stem for path in (tmp_path / "out").iterdir()) == ["b", "c"]
    assert sorted(f.extract(videos, tmp_path / "out", lambda: encoder, allow_missing=True)) == ["b", "c"]
    assert "skipped: " in capsys.readouterr().err


def test_killed_half_way_it_goes_on_where_it_was(encoder, videos, tmp_path, monkeypatch):
    real, read = f.video_features, []

    def killed_in_the_second(encoder, video):
        read.append(video.stem)
        if read == ["a", "b"]:
            raise KeyboardInterrupt
        return real(encoder, video)

    monkeypatch.setattr(f, "video_features", killed_in_the_second)
    with pytest.raises(KeyboardInterrupt):
        f.extract(videos, tmp_path / "out", lambda: encoder)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.safetensors"]
    f.extract(videos, tmp_path / "out", lambda: encoder)
    assert read == ["a", "b", "b", "c"]


def test_processes_share_the_work(videos, tmp_path):
    make = partial(f.stand_in_encoder, SHIPPED)
    alone, shared = (f.extract(videos, tmp_path / str(jobs), make, jobs=jobs) for jobs in (1, 2))
    assert sorted(shared) == ["a", "b", "c"]
    for name, path in alone.items():
        assert torch.allclose(f.load_clip_features(path), f.load_clip_features(shared[name]), atol=1e-5)


def test_one_video_has_all_threads_and_no_process_of_its_own(encoder, videos, tmp_path, monkeypatch):
    asked, real = [], f.parallel
    monkeypatch.setattr(f, "parallel", lambda work, tasks, jobs: asked.append(jobs) or real(work, tasks, 1))
    f.extract(videos[:1], tmp_path / "out", lambda: encoder, jobs=2)
    f.extract(videos, tmp_path / "out", lambda: encoder, jobs=2)
    assert asked == [1, 2]


def test_whatever_a_decoder_raises_is_reported(encoder, videos, tmp_path, monkeypatch, capsys):
    def breaks(_, video):
        if video.stem == "b":
            raise RuntimeError("deep inside a codec")
        return torch.zeros(1, 8)

    monkeypatch.setattr(f, "video_features", breaks)
    (tmp_path / "videos" / "dead.mp4").symlink_to("nowhere.mp4")
    listed = f.list_videos(tmp_path / "videos")
    assert sorted(f.extract(listed, tmp_path / "out", lambda: encoder, allow_missing=True)) == ["a", "c"]
    told = capsys.readouterr().err
    assert "b.mp4: RuntimeError: deep inside a codec" in told and "dead.mp4" in told and "2 of 4 videos" in told


def test_half_precision_and_a_video_that_breaks_off(encoder, videos, tmp_path):
    half = f.FrameEncoder(encoder.clip, encoder.size, name="tiny", half=True)
    exact, rounded = f.video_features(encoder, videos[1]), f.video_features(half, videos[1])
    assert rounded.dtype == torch.float32 and not torch.equal(exact, rounded)
    assert ((exact - rounded).norm(dim=1) < 0.03 * exact.norm(dim=1)).all()  # bfloat16 keeps 8 bits
    videos[1].write_bytes(videos[1].read_bytes()[:-2000])
    with pytest.raises(ZsadError, match=r"b\.mp4"):  # from the thread that decodes
        f.video_features(encoder, videos[1])


def test_files_in_another_precision_are_kept_and_say_so(encoder, videos, tmp_path, monkeypatch):
    half = f.FrameEncoder(encoder.clip, encoder.size, name="tiny", half=True)
    path = f.extract(videos[:1], tmp_path / "out", lambda: half)["a"]
    f.extract(videos[1:2], tmp_path / "out", lambda: encoder)
    monkeypatch.setattr(f, "video_features", None)  # nothing is made again
    for other in (encoder, half):
        assert len(f.extract(videos[:2], tmp_path / "out", lambda other=other: other)) == 2
    with safe_open(path, framework="pt") as file:
        assert file.metadata()["precision"] == "bfloat16"
    monkeypatch.setattr(f, "has_bfloat16_units", lambda: True)
    assert f.published_encoder(encoder.clip).half and not f.stand_in_encoder(SHIPPED).half


def test_a_header_says_what_made_a_file(encoder, videos, tmp_path):
    path = f.extract(videos[:1], tmp_path / "out", lambda: encoder)["a"]
    with safe_open(path, framework="pt") as file:
        header = file.metadata()
    assert header["model"] == "tiny" and header["decoder"].startswith("pyav ") and header["version"] == str(f.VERSION)
    assert "centre crop, 16 x 16" in header["preprocessing"] and len(header["weights_sha256"]) == 64


def test_files_of_another_model_are_refused(encoder, videos, tmp_path):
    path = f.extract(videos[:1], tmp_path / "out", lambda: encoder)["a"]
    f.load_clip_features(path, encoder.header)
    with pytest.raises(ZsadError, match="model is 'tiny', expected 'ViT-B-16'"):
        f.load_clip_features(path, {"model": "ViT-B-16"})
    with pytest.raises(ZsadError, match="no such feature file"):
        f.load_clip_features(tmp_path / "absent.safetensors")
    with pytest.raises(ZsadError, match=r"other/a\.avi: .*a\.mp4 has the same name"):
        f.extract([videos[0], tmp_path / "other" / "a.avi"], tmp_path / "out", lambda: encoder)


def test_a_folder_is_searched_for_videos_and_frames(videos, tmp_path):
    frame = tmp_path / "videos" / "shot" / "001.png"
    frame.parent.mkdir()
    frame.write_bytes(b"")
    (tmp_path / "videos" / "notes.txt").write_text("no video")
    (tmp_path / "videos" / "._a.mp4").write_bytes(b"a file system's own")
    (tmp_path / "videos" / "preview.jpg").write_bytes(b"")
    assert [path.name for path in f.list_videos(tmp_path / "videos")] == ["a.mp4", "b.mp4", "c.mp4", "shot"]
    assert f.list_videos(frame.parent) == [frame.parent]
    with pytest.raises(ZsadError, match="no such folder"):
        f.list_videos(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ZsadError, match="no videos below it"):
        f.list_videos(tmp_path / "empty")


def test_published_npy_files_are_read(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(1024, dtype=np.float16).reshape(2, 512))
    assert (
        f.load_clip_features(tmp_path / "a.npy").shape == (2, 512)
        and f.load_clip_features(tmp_path / "a.npy").dtype == torch.float32
    )
    for name, array, message in (
        ("flat", np.zeros(4), "shape"), ("none", np.ones((0, 512)), "shape"), ("nan", np.full((1, 2), np.nan), "NaN"),
        ("whole", np.zeros((2, 3), int), "int64"),
    ):  # fmt: skip
        np.save(tmp_path / f"{name}.npy", array)
        with pytest.raises(ZsadError, match=rf"{name}\.npy: .*{message}"):
            f.load_clip_features(tmp_path / f"{name}.npy")
    with pytest.raises(ZsadError, match=r"shape \[2, 512\]; expected \[frames, 768\]"):
        f.load_clip_features(tmp_path / "a.npy", width=768)
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(ZsadError, match="not a readable .npy array"):
        f.load_clip_features(tmp_path / "objects.npy")
    with pytest.raises(ZsadError, match="no such feature file"):
        f.load_clip_features(tmp_path / "absent.npy")


def test_names_may_hold_dots(encoder, tmp_path):
    """XD-Violence's "Bad.Boys.1995__#01-11-55_01-12-40_label_G-B2-B6", as a file and as a folder of frames."""
    for part in ("A", "B"):
        folder = tmp_path / "xd" / f"Bad.Boys.1995__#{part}_label_{part}"
        folder.mkdir(parents=True)
        Image.new("RGB", (48, 32)).save(folder / "0.png")
    found = f.extract(f.list_videos(tmp_path / "xd"), tmp_path / "out", lambda: encoder)
    assert sorted(found) == ["Bad.Boys.1995__#A_label_A", "Bad.Boys.1995__#B_label_B"]
    assert found["Bad.Boys.1995__#A_label_A"].name == "Bad.Boys.1995__#A_label_A.safetensors"
