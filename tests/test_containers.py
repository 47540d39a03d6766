"""Every container with every codec that it holds: count, order, times, frames by number and scores, as they were made.

Each frame carries its number as black and white blocks, so that a frame tells which one it is whoever has read it.
"""

import itertools
import os
import threading
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

import zsad_lib as z
from zsad_lib.files.decoding import declared_seconds, resize
from zsad_lib.files.video import probe, timed_frames
from zsad_lib.own_video.explain import explain
from zsad_lib.own_video.scoring import score_video
from zsad_lib.results.film import write_film

N, RATE, LIMIT = 90, Fraction(30), 60  # frames, frames per second, seconds that reading may take
EVEN = list(range(N))
UNEVEN = list(itertools.accumulate([0, *[1, 1, 2, 1, 3] * N]))[:N]  # when a frame is due, in intervals
WANTED = [N - 1, 3, N // 2, N // 2, N - 2, 0]  # frames by number: the last, unordered, one of them twice

# Codec -> encoder, its options without B-frames, with them; None: it has none.
ENCODERS = {
    "h264": ("libx264", {"preset": "ultrafast", "g": "24"}, {"bf": "2", "b_strategy": "0"}),
    "hevc": (
        "libx265",
        {"preset": "ultrafast", "x265-params": "log-level=none:keyint=24:bframes=0"},
        {"x265-params": "log-level=none:keyint=24:bframes=2"},
    ),
    "mpeg2": ("mpeg2video", {"g": "12"}, {"bf": "2"}),
    "mpeg4": ("mpeg4", {"g": "12"}, {"bf": "2"}),
    "mjpeg": ("mjpeg", {}, None),
    "vp9": (
        "libvpx-vp9",
        {"deadline": "realtime", "cpu-used": "8", "g": "24"},
        {"auto-alt-ref": "1", "lag-in-frames": "8"},
    ),
    "av1": ("libsvtav1", {"preset": "10", "crf": "20", "g": "24"}, None),
    "wmv2": ("wmv2", {"g": "12"}, None),
}
# Suffix -> FFmpeg's name of the container, the codecs that it holds, and whether it holds a time of its own for every
# frame: the others have their frames one interval apart.
CONTAINERS = {
    "mp4": ("mp4", "h264 hevc mpeg2 mpeg4 mjpeg vp9 av1", True),
    "mov": ("mov", "h264 hevc mpeg2 mpeg4 mjpeg", True),
    "mkv": ("matroska", "h264 hevc mpeg2 mpeg4 mjpeg vp9 av1", True),
    "webm": ("webm", "vp9 av1", True),
    "flv": ("flv", "h264 hevc vp9 av1", True),
    "ts": ("mpegts", "h264 hevc mpeg2 mpeg4", True),
    "wmv": ("asf", "h264 mpeg2 mpeg4 mjpeg vp9 av1 wmv2", False),
    "avi": ("avi", "h264 mpeg2 mpeg4 mjpeg vp9 av1", False),
    "mpg": ("mpeg", "h264 hevc mpeg2 mpeg4", False),
    "mxf": ("mxf", "h264 mpeg2", False),
    "h264": ("h264", "h264", False),
    "hevc": ("hevc", "hevc", False),
    "m4v": ("m4v", "mpeg4", False),
    "m2v": ("mpeg2video", "mpeg2", False),
}


def cases() -> Iterable[pytest.param]:
    """(suffix, codec, B-frames, ticks); one codec of a container, each with both kinds of frames, is tried by `make
    test`, and so is each codec in Matroska."""
    for suffix, (_, codecs, own_times) in CONTAINERS.items():
        for codec, b_frames, ticks in itertools.product(codecs.split(), (False, True), (EVEN, UNEVEN)):
            if (b_frames and ENCODERS[codec][2] is None) or (ticks is UNEVEN and not own_times):
                continue
            first = codec == codecs.split()[0] and (b_frames or codec == "vp9") and (ticks is UNEVEN) == own_times
            often = first or (suffix == "mkv" and ticks is EVEN and b_frames == (ENCODERS[codec][2] is not None))
            name = f"{suffix}-{codec}{'-b' * b_frames}{'-uneven' * (ticks is UNEVEN)}"
            yield pytest.param(suffix, codec, b_frames, ticks, id=name, marks=[] if often else pytest.mark.thorough)


def picture(number: int) -> np.ndarray:
    """A frame uint8 [64, 96, 3] that shows its number below 256: a block per bit, white for 1."""
    bits = np.array([number >> bit & 1 for bit in range(8)], np.uint8).reshape(2, 4)
    return np.repeat(np.kron(16 + 219 * bits, np.ones((32, 24), np.uint8))[..., None], 3, axis=2)


def number_of(frame: np.ndarray) -> int:
    """The number that a decoded frame shows."""
    blocks = frame.reshape(2, 32, 4, 24, 3)[:, 8:24, :, 6:18].mean((1, 3, 4)).ravel()
    return sum(1 << bit for bit, brightness in enumerate(blocks) if brightness > 128)


def write(
    path: Path,
    codec: str,
    ticks: list[int] = EVEN,
    b_frames: bool = False,
    first: int = 0,
    rate: Fraction = RATE,
    coding: dict[str, str] = {},  # noqa: B006
    sound: bool = False,
    **options: str,
) -> Path:
    """Writes `picture(first)`, ... at `ticks` of 1 / `rate` seconds; `coding` goes to the encoder, `options` to the
    container."""
    encoder, without, added = ENCODERS[codec]
    if encoder not in av.codecs_available:
        pytest.skip(f"this PyAV is built without {encoder}")
    with av.open(str(path), "w", format=CONTAINERS[path.suffix[1:]][0], options=options) as container:
        stream = container.add_stream(encoder, rate=rate)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.options = without | (added if b_frames else {}) | coding
        stream.codec_context.time_base, stream.codec_context.thread_count = 1 / rate, 1
        if sound:  # longer than the film, and first in the file
            voice = container.add_stream("aac", rate=16000)
            for block in range(2 * N):
                noise = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
                noise.sample_rate, noise.pts = 16000, 1024 * block
                container.mux(voice.encode(noise))
            container.mux(voice.encode(None))
        for number, tick in enumerate(ticks, start=first):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame.pts, frame.time_base = tick, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def in_time(reads: Callable, *arguments: object) -> object:
    """What `reads(*arguments)` returns; fails where it has not after `LIMIT` seconds, instead of waiting for ever."""
    answer = []

    def run() -> None:
        try:
            answer.append((reads(*arguments), None))
        except BaseException as error:
            answer.append((None, error))

    reader = threading.Thread(target=run, daemon=True)
    reader.start()
    reader.join(LIMIT)
    assert answer, f"no answer after {LIMIT} s"
    value, error = answer[0]
    if error is not None:
        raise error
    return value


def shown(frames: Iterable[np.ndarray]) -> list[int]:
    return [number_of(frame) for frame in frames]


def check(path: Path, ticks: list[int] | None = EVEN) -> None:
    """All readers give the same frames by the same numbers, at the times at which they were due."""
    assert in_time(lambda: shown(z.iter_frames(path))) == EVEN
    assert in_time(probe, path).n_frames == N
    assert in_time(lambda: shown(z.read_video(path))) == EVEN
    assert in_time(lambda: shown(z.read_video(path, WANTED))) == WANTED
    assert in_time(lambda: shown(z.read_video(path, WANTED, decoded=N))) == WANTED
    timed = in_time(lambda: list(timed_frames(path)))
    assert [number_of(frame) for _, frame in timed] == EVEN
    table = in_time(score_video, path)
    assert list(table["frame"]) == EVEN
    due = np.array(ticks) / float(RATE)
    for times in ([seconds for seconds, _ in timed], table["time_s"]):
        np.testing.assert_allclose(times, due, atol=1.01 / float(RATE))


@pytest.mark.parametrize("suffix, codec, b_frames, ticks", cases())
def test_every_container_with_every_codec(tmp_path, suffix, codec, b_frames, ticks):
    check(write(tmp_path / f"numbers.{suffix}", codec, ticks, b_frames), ticks)


OPEN = {"h264": {"x264-params": "open-gop=1:keyint=12:min-keyint=12:scenecut=0"}, "mpeg2": {}}


@pytest.mark.parametrize("suffix, codec", [("mp4", "h264"), ("mkv", "h264"), ("ts", "h264"), ("ts", "mpeg2")])
def test_open_groups_of_pictures(tmp_path, suffix, codec):
    check(write(tmp_path / f"open.{suffix}", codec, b_frames=True, coding=OPEN[codec]))


def test_fragments_and_sound(tmp_path):
    check(write(tmp_path / "parts.mp4", "h264", b_frames=True, movflags="frag_keyframe+empty_moov+default_base_moof"))
    check(write(tmp_path / "sound.mp4", "h264", b_frames=True, sound=True))


@pytest.mark.parametrize("suffix, codec", [("ts", "h264"), ("ts", "mpeg2"), ("mpg", "mpeg2"), ("h264", "h264")])
def test_recordings_one_after_the_other_in_one_file(tmp_path, suffix, codec):
    half = EVEN[: N // 2]
    parts = [write(tmp_path / f"{n}.{suffix}", codec, half, True, n).read_bytes() for n in (0, N // 2)]
    (tmp_path / f"whole.{suffix}").write_bytes(b"".join(parts))
    check(tmp_path / f"whole.{suffix}")


def test_a_recording_that_begins_between_key_frames(tmp_path):
    data = write(tmp_path / "whole.ts", "h264", b_frames=True).read_bytes()
    path = tmp_path / "late.ts"
    path.write_bytes(data[len(data) // 3 // 188 * 188 :])
    numbers = in_time(lambda: shown(z.iter_frames(path)))
    assert 10 < len(numbers) < N - 10 and numbers == list(range(numbers[0], N))
    wanted = [len(numbers) - 1, 0, 7]
    assert in_time(lambda: shown(z.read_video(path, wanted))) == [numbers[n] for n in wanted]
    assert len(in_time(score_video, path)) == len(numbers)


def test_a_cut_of_the_beginning_by_an_edit_list(tmp_path):
    whole = write(tmp_path / "whole.mp4", "h264", b_frames=True)
    path = tmp_path / "cut.mp4"
    with av.open(str(whole)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                shift = int(1 / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
                target.mux(packet)
    numbers = in_time(lambda: shown(z.iter_frames(path)))
    assert numbers == list(range(numbers[0], N)) and len(in_time(score_video, path)) == len(numbers)
    wanted = [len(numbers) - 1, 5, 0]
    assert in_time(lambda: shown(z.read_video(path, wanted, decoded=len(numbers)))) == [numbers[n] for n in wanted]


def playlist(folder: Path) -> Path:
    CONTAINERS["m3u8"] = ("hls", "h264", True)
    return write(folder / "list.m3u8", "h264", b_frames=True, hls_time="0.5", hls_list_size="0")


def test_a_whole_playlist_is_a_video(tmp_path):
    check(playlist(tmp_path))


@pytest.mark.parametrize(
    "old, new, line",
    [
        ("#EXT-X-ENDLIST", "", "without an end"),
        ("list1.ts", "list9.ts", "its part list9.ts is no file here"),
        ("list1.ts", "http://127.0.0.1:9/list1.ts", "its part http://127.0.0.1:9/list1.ts is no file here"),
        ("list0.ts", "concat:list0.ts|list1.ts", "its part concat"),
        ("#EXTINF", "#EXT-X-STREAM-INF", "playlist of playlists"),
    ],
)
def test_a_playlist_that_is_not_whole_here_is_one_line(tmp_path, old, new, line):
    path = playlist(tmp_path)
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    for reader in (probe, z.read_video, lambda path: next(timed_frames(path))):
        with pytest.raises(z.ZsadError, match=line):
            in_time(reader, path)


@pytest.mark.parametrize("rate", [Fraction(15), Fraction(25), Fraction(30000, 1001), Fraction(50)])
@pytest.mark.parametrize("suffix, codec", [("h264", "h264"), ("hevc", "hevc"), ("m4v", "mpeg4"), ("m2v", "mpeg2")])
def test_a_raw_stream_is_as_fast_as_it_declares(tmp_path, capfd, suffix, codec, rate):
    path = write(tmp_path / f"raw.{suffix}", codec, b_frames=True, rate=rate)
    path = path.rename(tmp_path / "camera.dav")  # what it is does not depend on its name
    assert probe(path).fps == pytest.approx(float(rate))
    *_, (last, _) = timed_frames(path)
    assert last == pytest.approx((N - 1) / rate, abs=0.5 / rate)
    assert "assumed" not in capfd.readouterr().err


def test_a_raw_stream_that_declares_no_rate_says_so_once(tmp_path, capsys):
    CONTAINERS["mjpg"] = ("mjpeg", "mjpeg", False)
    path = write(tmp_path / "raw.mjpg", "mjpeg")
    *_, (last, _) = timed_frames(path)
    assert last == pytest.approx((N - 1) / 25) and probe(path).fps == 25
    assert capsys.readouterr().err == f"{path}: a raw stream that declares no rate; 25 frames per second are assumed\n"


def several(path: Path, marked: int | None, cover: bool = False) -> Path:
    """A file with a first film that shows 200 throughout, and the numbers; or with the first one as its cover."""
    with av.open(str(path), "w") as container:
        streams = [
            container.add_stream("mjpeg" if cover else "libx264", rate=RATE),
            container.add_stream("libx264", rate=RATE),
        ]
        for number, stream in enumerate(streams):
            stream.width, stream.height = 96, 64
            stream.pix_fmt = "yuvj420p" if cover and not number else "yuv420p"
            stream.disposition = av.stream.Disposition.default if number == marked else av.stream.Disposition(0)
        if cover:
            streams[0].disposition = av.stream.Disposition.attached_pic
        for stream, numbers in zip(streams, ([200] * (1 if cover else N), EVEN)):
            for tick, number in enumerate(numbers):
                frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
                frame.pts, frame.time_base = tick, 1 / RATE
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    if cover:  # before the film, as many programs write it
        data = path.read_bytes()
        (moov, trak, udta) = (data.index(name) - 4 for name in (b"moov", b"trak", b"udta"))
        end = moov + int.from_bytes(data[moov : moov + 4], "big")
        path.write_bytes(data[:trak] + data[udta:end] + data[trak:udta] + data[end:])
    return path


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_of_several_films_the_one_marked_default_is_read_and_told_once(tmp_path, capsys, suffix):
    path = several(tmp_path / f"two.{suffix}", marked=1)
    check(path)
    told = f"{path}: several video streams, 0, 1; number 1 is read, marked default\n"
    assert capsys.readouterr().err == told


def test_of_several_films_without_a_mark_the_first_is_read(tmp_path, capsys):
    path = several(tmp_path / "two.ts", marked=None)
    assert set(shown(z.iter_frames(path))) == {200} == set(shown(z.read_video(path, [5])))
    assert probe(path).n_frames == N and len(score_video(path)) == N
    assert capsys.readouterr().err == f"{path}: several video streams, 0, 1; number 0 is read, the first\n"


def test_a_cover_picture_is_no_film(tmp_path, capsys):
    path = several(tmp_path / "cover.mp4", marked=1, cover=True)
    with av.open(str(path)) as container:
        assert container.streams[0].codec.name == "mjpeg"
    check(path)
    assert capsys.readouterr().err == ""


@pytest.mark.data
def test_recordings_of_the_field_by_number(shared):
    """decord's seek shows other frames in some of them, and never returns near the end of one."""
    paths = sorted((shared / "data" / "field_cases" / "video").glob("*.*"))
    if not paths:
        pytest.skip("no field cases in ../shared")
    for path in paths:
        frames = in_time(lambda path=path: list(z.iter_frames(path)))
        wanted = [len(frames) - 2, 80, len(frames) - 16, 80]
        found = in_time(z.read_video, path, wanted)
        np.testing.assert_array_equal(found, [frames[number] for number in wanted], err_msg=path.name)


def test_a_clock_that_jumps_at_the_very_end_holds_nobody(tmp_path):
    ticks = [*EVEN[: N - 10], *range(N + 6, N + 16)]
    whole = write(tmp_path / "jump.ts", "h264", ticks, b_frames=True, coding={"g": "250"})
    assert in_time(lambda: shown(z.read_video(whole, WANTED, decoder="decord"))) == WANTED


def test_the_peaks_the_film_and_the_explanation_of_a_damaged_recording_show_the_frames_that_were_scored(tmp_path):
    path = write(tmp_path / "damaged.mp4", "h264")
    with av.open(str(path)) as source:
        places = [(packet.pos, packet.size) for packet in source.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for number in (30, 31, 50):
        first, size = places[number]
        data[first : first + size] = bytes(size)
    path.write_bytes(data)
    with pytest.raises(z.ZsadError, match="cannot decode after frame 29"):
        z.read_video(path, [N - 5])
    table = score_video(path)
    numbers = [number_of(frame) for _, frame in timed_frames(path)]
    assert len(table) == len(numbers) < N
    read = z.read_video(path, range(len(numbers)), decoded=len(numbers))
    assert shown(read) == numbers
    why = explain(path)
    assert set(shown(resize(frame, (64, 96)) for frame in why.frames[0])) <= set(numbers)


def test_a_film_of_a_recording_that_grew_is_as_long_as_its_scores(tmp_path):
    path = write(tmp_path / "growing.ts", "h264")
    table = score_video(path)
    with open(path, "ab") as file:
        file.write(write(tmp_path / "more.ts", "h264", first=N).read_bytes())
    assert write_film(path, table, float("nan"), "", tmp_path / "film.mp4", 30) == len(table) == N


@pytest.mark.parametrize("suffix", ["h264", "m4v", "dav", "ts"])
def test_a_long_file_of_nothing_is_given_up(tmp_path, monkeypatch, suffix):
    """A recorder sets the room for a recording aside before it begins."""
    monkeypatch.setattr("zsad_lib.files.decoding.PATIENCE", 0.5)
    path = tmp_path / f"zeros.{suffix}"
    with open(path, "wb") as file:
        file.truncate(2**36)
    with pytest.raises(z.ZsadError, match=f"zeros.{suffix}: "):
        in_time(probe, path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes among this system's files")
def test_a_pipe_or_a_device_is_one_line_and_no_wait(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "zero.mp4").symlink_to("/dev/zero")
    for name in ("pipe.mp4", "zero.mp4"):
        for reader in (probe, z.read_video, declared_seconds, score_video, lambda path: next(z.iter_frames(path))):
            with pytest.raises(z.ZsadError, match=f"{name}: a pipe or a device"):
                in_time(reader, tmp_path / name)
