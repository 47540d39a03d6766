"""Names as people and cameras give them: each file and stream is read as what it is, and told on any console.

A file's name is never an address, a password is never shown.
"""

import io
import os
import socket
import sys
import traceback
from pathlib import Path

import numpy as np
import pytest

from zsad_lib.__main__ import main
from zsad_lib.errors import ZsadError, one_line, without_secrets
from zsad_lib.files import downloads, paths
from zsad_lib.files.video import iter_frames, open_stream, probe, read_video, timed_frames, write_video
from zsad_lib.files.video_folders import list_videos
from zsad_lib.own_video import watch
from zsad_lib.own_video.pictures import in_title

NAMES = [
    "2024-01-01T12:30:00.mp4", "rtsp:cam.mp4", "file:x.mp4", "concat:a|b.mp4", "subfile,,start,0,end,9,,:x.mp4",
    "data:x.mp4", "pipe:0.mp4", "-d.mp4", "two\nlines.mp4", "img%d.mp4", "a?b#c&d.mp4", """it's "my" $HOME.mp4""",
    "\x1b[31mred.mp4", "監視 камера 😀.mp4", "\u202ereversed.mp4", "glob*[a-z].mp4", "C:\\x.mp4", "45.10",
    os.fsdecode(b"no utf-8 \xff\xfe.mp4"),
]  # fmt: skip
SECRET = "geheim"


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """33 frames that move, and the bytes of their file."""
    path = tmp_path_factory.mktemp("plain") / "plain.mp4"
    place = np.random.default_rng(0).integers(0, 200, (48, 64, 3), dtype=np.uint8)
    write_video(path, (np.roll(place, i, axis=1) for i in range(33)), 10)
    return read_video(path), path.read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_any_name_is_read_and_written(recording, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)  # so that nothing stands before the name
    right, content = recording
    Path(name).write_bytes(content)
    assert probe(name).n_frames == len(list(timed_frames(name))) == 33
    assert np.array_equal(read_video(name), right) and np.array_equal(list(iter_frames(name)), right)
    Path(name).unlink()
    write_video(Path(name).with_suffix("") / "film.mp4", right, 10)
    assert probe(Path(name).with_suffix("") / "film.mp4").n_frames == 33


class Console(io.TextIOWrapper):
    def __init__(self, encoding):
        super().__init__(io.BytesIO(), encoding=encoding)

    def text(self):
        self.flush()
        return self.buffer.getvalue().decode(self.encoding)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_told_on_any_console(recording, tmp_path, monkeypatch, scored, name, encoding):
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(recording[1])
    table = scored(np.zeros(33))
    monkeypatch.setattr("zsad_lib.own_video.pictures.write_all", lambda *_, **__: {"events": Path("events.csv")})
    monkeypatch.setattr("zsad_lib.own_video.score_command.score_in_blocks", lambda *_, **__: (table, lambda: [table]))
    monkeypatch.setattr(sys, "stdout", Console(encoding))
    monkeypatch.setattr(sys, "stderr", Console(encoding))
    assert main(["score", "--", name]) == 0
    shown = one_line(name).encode(encoding, "backslashreplace").decode(encoding)
    [told] = sys.stderr.text().splitlines()
    assert told.startswith(f"{shown}: results in ") and len(sys.stdout.text().splitlines()) == 4
    [table] = tmp_path.glob("*.csv")
    assert table.read_text(encoding="utf-8").count("\n") == 34
    assert main(["calibrate", "--", name]) == 2
    assert sys.stderr.text().splitlines()[-1].startswith(f"error: {shown}: a file; give the folder")
    Path("other.mp4").touch()
    list_videos(tmp_path)  # tells the names too
    assert in_title(name).isprintable() or "\u202e" in name


def test_a_colon_through_to_the_film(recording, tmp_path, monkeypatch):
    name = "2024-01-01T12:30:00.mp4"
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(recording[1])
    monkeypatch.setattr(sys, "stdout", Console("cp1252"))
    monkeypatch.setattr(sys, "stderr", Console("ascii"))
    assert main(["score", name]) == 0
    assert probe("2024-01-01T12:30:00.scores/overlay.mp4").n_frames == 33


@pytest.mark.parametrize(
    "name",
    [
        "concat:{0}|{0}", "concat:file:{0}", "subfile,,start,0,end,900000,,:{0}", "file:{0}", "cache:{0}", "crypto:{0}",
        "async:{0}", "data:video/mp4;base64,AAAA", "pipe:0", "tee:{0}", "subfile,,start,0,end,900000,,:file://{0}",
    ],
)  # fmt: skip
def test_a_name_opens_no_other_file(recording, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path("plain.mp4").write_bytes(recording[1])
    name = name.format("plain.mp4")
    with pytest.raises(ZsadError, match="no such video file"):
        probe(name)
    assert watch.Camera(name).is_path
    with pytest.raises(ZsadError, match="no such video file"):
        list(watch.watch(name))


def test_files_and_streams_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("http:").mkdir()
    Path("http:/film.mp4").touch()
    for source, is_path in {
        "0": False, "12": False, "²": True, "./0": True, "rtsp://camera": False, "HTTP://camera/x": False,
        "rtsp:cam": True, "http://film.mp4": True, "clip.mp4": True, "2024-01-01T12:30:00.mp4": True,
    }.items():  # fmt: skip
        assert watch.Camera(source).is_path == is_path, source


@pytest.fixture
def closed_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]  # bound, and nobody listens


@pytest.mark.parametrize(
    "address",
    [
        "rtsp://admin:geheim@{0}/live", "rtsp://admin:ge@he/im-geheim@{0}/live", "http://{0}/x?password=geheim",
        "http://{0}/x?channel=1&token=geheim", "http://user:geheim@{0}/x.mp4", "rtsp://{0}/user=admin_password=geheim_channel=1",
        "http://{0}/x#key=geheim", "tcp://u:ge heim-geheim@{0}", "http://{0}/x?geheim", "http://user:1?geheim@{0}",
    ],
)  # fmt: skip
def test_a_password_is_never_shown(closed_port, capsys, monkeypatch, address):
    address = address.format(f"127.0.0.1:{closed_port}")
    with pytest.raises(ZsadError, match=r"cannot be read") as refused:
        open_stream(address, timeout=1.0)
    assert SECRET not in "".join(traceback.format_exception(refused.value))  # as a notebook shows it
    monkeypatch.setattr(watch, "PAUSE_S", 0.0)
    assert main(["live", address]) == 2 and main(["score", address]) == 2 and main(["calibrate", address]) == 2
    shown = capsys.readouterr()
    assert shown.err.count("error: ") == 3 and SECRET not in shown.err + shown.out


def test_a_password_is_not_shown_when_a_stream_breaks_off(capsys, monkeypatch):
    def ends(_):
        return False, iter([(0.0, np.zeros((48, 64, 3), np.uint8))])

    monkeypatch.setattr(watch, "open_stream", ends)
    monkeypatch.setattr(watch, "PAUSE_S", 0.0)
    monkeypatch.setattr(watch, "RETRIES", 2)
    camera = watch.Camera("rtsp://admin:geheim@10.0.0.5/live?channel=1")
    monkeypatch.setattr(watch.time, "monotonic", lambda: 0.0)
    stop = iter(range(3))
    for _ in camera:
        if next(stop, None) is None:
            break
    assert "rtsp://***@10.0.0.5/live?channel=1: the stream ended; attempt 1" in (told := capsys.readouterr().err)
    assert SECRET not in told


def test_a_mirrors_password_is_not_shown(closed_port, tmp_path, capsys):
    urls = [f"http://user:geheim@127.0.0.1:{closed_port}/{number}" for number in range(2)]
    with pytest.raises(ZsadError) as refused:
        downloads.fetch(urls, tmp_path / "x")
    assert SECRET not in str(refused.value) + capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    ["far=0.05: give KEY=VALUE", "C:/a@b/c.mp4: no such", "see https://example.org/a_b/c.html.", "me@example.org"],
)
def test_what_is_no_secret_stays(text):
    assert without_secrets(text) == text


def test_tables_hold_names_that_are_no_text(tmp_path):
    name = os.fsdecode(b"no utf-8 \xff")
    paths.write_text(tmp_path / "t.csv", f"video\n{name}\n")
    assert (tmp_path / "t.csv").read_text(encoding="utf-8") == "video\nno utf-8 \\udcff\n"
