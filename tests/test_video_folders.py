"""What counts as a video below a folder, for every command that takes one: recordings, not what lies beside them."""

import numpy as np
import pytest
from PIL import Image

from data_prep.inventory import find
from zsad_lib.__main__ import main
from zsad_lib.errors import ZsadError
from zsad_lib.features import clip_frames
from zsad_lib.files.own_results import note_video
from zsad_lib.files.video import write_video
from zsad_lib.files.video_folders import list_videos
from zsad_lib.own_video import calibrate, pictures


def picture(path, size=(320, 200)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)


@pytest.fixture
def recordings(tmp_path):
    """Three recordings, in two folders."""
    for name in ("a.mp4", "b.MP4", "deep/c.mkv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"a video")
    return tmp_path


def names(folder, listed):
    return [path.relative_to(folder).as_posix() for path in listed]


OTHERS = {  # what recorders, systems and this kit leave beside recordings -> why it is none
    "a.scores/overlay.mp4": "results of this kit",
    "a.scores/copy/0.png": "results of this kit",
    "@eaDir/a.mp4/SYNOVIDEO_VIDEO_SCREENSHOT.jpg": "a system's own",
    "#recycle/old.mp4": "a system's own",
    "@Recycle/old.mp4": "a system's own",
    "$RECYCLE.BIN/old.mp4": "a system's own",
    "lost+found/x.mp4": "a system's own",
    "__MACOSX/a.mp4": "a system's own",
    ".Trash-1000/files/old.mp4": "hidden",
    ".trashed-17-old.mp4": "hidden",
    "._a.mp4": "hidden",
    ".hidden/a.mp4": "hidden",
    ".partial-1234.mp4": "hidden",
    "x.partial.mp4": "half written",
    "x.mp4.partial": "",
    "x.mp4.part": "",
    "thumbs/a.mp4": "thumbnails",
    "deep/Thumbnails/0.jpg": "thumbnails",
    "a.thm": "thumbnails",
    "Thumbs.db": "",
    "notes.txt": "",
    "a.jpg": "",
}


@pytest.mark.parametrize("other, why", OTHERS.items())
def test_what_lies_beside_recordings_is_none_and_is_told(recordings, capsys, other, why):
    (recordings / other).parent.mkdir(parents=True, exist_ok=True)
    (recordings / other).write_bytes(b"no recording")
    assert names(recordings, list_videos(recordings)) == ["a.mp4", "b.MP4", "deep/c.mkv"]
    used, *left_out = capsys.readouterr().err.splitlines()
    assert used == f"{recordings}: videos used: 3 (a.mp4, b.MP4, deep/c.mkv)"
    assert [line.split(": ")[1] for line in left_out] == ([f"left out as {why}"] if why else [])


def test_pictures_of_a_scored_video_are_none_under_any_name(recordings, capsys):
    picture(recordings / "mine" / "curve.png")
    note_video(recordings / "mine", recordings / "a.mp4")
    picture(recordings / "older" / "curve.png")
    (recordings / "older" / "events.csv").write_text("event,start_s,end_s,first_frame,last_frame\n", encoding="utf-8")
    (recordings / "films").mkdir()
    (recordings / "films" / "0.mp4").touch()
    (recordings / "films" / "films.json").write_text("{}", encoding="utf-8")
    picture(recordings / "shots" / "1.png")
    (recordings / "shots" / "events.csv").write_text("frame,what\n1,a car\n", encoding="utf-8")  # somebody's notes
    assert names(recordings, list_videos(recordings)) == ["a.mp4", "b.MP4", "deep/c.mkv", "shots"]
    assert "left out as results of this kit: 3 (films, mine, older)" in capsys.readouterr().err
    with pytest.raises(ZsadError, match="no videos below it"):
        list_videos(recordings / "mine")


def test_the_kits_films_are_known_by_their_content(tmp_path, scored, capsys):
    write_video(tmp_path / "a.mp4", np.full((30, 48, 64, 3), 99, np.uint8), 10)
    table = scored(np.zeros(30))
    made = pictures.write_all(tmp_path / "a.mp4", table, tmp_path / "out")
    made["overlay"].rename(tmp_path / "looks like a recording.mp4")
    assert names(tmp_path, list_videos(tmp_path)) == ["a.mp4"]
    assert "results of this kit: 2 (looks like a recording.mp4, out)" in capsys.readouterr().err


def test_thumbnails_beside_recordings_are_no_frames(recordings, capsys):
    for name in ("previews/a.png", "previews/b.png", "index/a_thumb.jpg", "index/c-poster.jpg"):  # named as the videos
        picture(recordings / name)
    for number in range(3):
        picture(recordings / "MISC" / f"{number}.jpg", (160, 120))
        picture(recordings / "frames" / f"{number}.jpg")
        picture(recordings / "small frames" / f"{number}.png", (64, 48))
    found = names(recordings, list_videos(recordings))
    assert found == ["a.mp4", "b.MP4", "deep/c.mkv", "frames", "small frames"]
    assert "left out as thumbnails: 3 (MISC, index, previews)" in capsys.readouterr().err


def test_small_frames_alone_are_videos(tmp_path):
    for name in ("one/1.jpg", "one/2.jpg", "two/1.jpg"):
        picture(tmp_path / name, (64, 48))
    assert names(tmp_path, list_videos(tmp_path)) == ["one", "two"]


def test_links_count_once_and_long_lists_are_cut(tmp_path, capsys):
    (tmp_path / "videos").mkdir()
    for number in range(30):
        (tmp_path / "videos" / f"{number:02}.mp4").write_bytes(b"")
    (tmp_path / "videos" / "round").symlink_to(tmp_path / "videos")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "camera").symlink_to(tmp_path / "videos")
    assert len(list_videos(tmp_path / "videos")) == len(list_videos(tmp_path / "linked")) == 30
    assert "videos used: 30 (00.mp4, 01.mp4" in (told := capsys.readouterr().err) and "19.mp4 and 10 more)" in told


def test_features_and_data_sets_keep_to_the_rule(recordings, monkeypatch, capsys):
    for other in ("@eaDir/a.mp4/a.jpg", "a.scores/a.mp4", "#recycle/b.mp4", ".Trash-0/a.mp4"):
        (recordings / other).parent.mkdir(parents=True)
        (recordings / other).write_bytes(b"another file of this name")
    assert sorted(find(recordings, r"([^/]+)\.mp4")) == ["a"]
    listed = []
    monkeypatch.setattr(clip_frames, "extract", lambda videos, *_: listed.extend(videos) or {})
    assert main(["features", str(recordings)]) == 0 and calibrate.list_videos is list_videos
    assert names(recordings, listed) == ["a.mp4", "b.MP4", "deep/c.mkv"]
    assert "left out as hidden: 1 (.Trash-0)" in capsys.readouterr().err
