"""Both decoders agree, frames are counted as decoded, and broken files are one clear line."""

import ctypes
import math
import os
import re
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from data_prep.scene_rules.world import HEIGHT, WIDTH
from zsad_lib.errors import ZsadError
from zsad_lib.files import second_decoder
from zsad_lib.files.decoding import declared_seconds
from zsad_lib.files.frame_folders import list_frames
from zsad_lib.files.video import iter_frames, probe, read_video, timed_frames, write_video


def moving_square(n: int, height: int = 48, width: int = 64) -> np.ndarray:
    frames = np.full((n, height, width, 3), (40, 90, 60), np.uint8)
    for i in range(n):
        x = (3 * i) % (width - 12)
        frames[i, 10:22, x : x + 12] = (220, 180, 30 + i % 200)
    return frames  # [T, H, W, 3]


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    assert write_video(path, moving_square(80), fps=10) == 80
    return path


def test_written_video_reads_back_alike_with_both_decoders(clip):
    assert probe(clip) == (info := probe(str(clip))) and (info.n_frames, info.fps, info.width) == (80, 10.0, 64)
    frames = read_video(clip)
    assert frames.shape == (80, 48, 64, 3) and frames.dtype == np.uint8
    assert np.array_equal(frames, read_video(clip, decoder="pyav"))
    assert np.array_equal(frames, np.stack(list(iter_frames(clip))))
    assert np.abs(frames.astype(int) - moving_square(80)).mean() < 4  # lossy, and in order


def test_frames_by_number_in_any_order(clip):
    frames, numbers = read_video(clip), [79, 0, 3, 3, 41]
    for decoder in ("decord", "pyav"):
        assert np.array_equal(read_video(clip, numbers, decoder=decoder), frames[numbers])
        small = read_video(clip, np.array(numbers), size=(24, 30), decoder=decoder)
        assert small.shape == (5, 24, 30, 3) and np.array_equal(small[2], small[3])
    assert np.array_equal(small, np.stack(list(iter_frames(clip, (24, 30))))[numbers])
    for wrong, line in (([80], "frame 80 does not exist; the video has 80"), ([-1], "start at 0"), ([], "empty list")):
        with pytest.raises(ZsadError, match=line):
            read_video(clip, wrong)
    with pytest.raises(ZsadError, match="use 'pyav' or 'decord'"):
        read_video(clip, decoder="opencv")


@pytest.mark.parametrize("height, width, n", [(HEIGHT, WIDTH, 12), (112, 144, 60), (192, 112, 60), (31, 45, 60)])
def test_the_same_frames_give_the_same_bytes(tmp_path, height, width, n):
    """Whatever lies in memory that nobody has written: the C library fills it with another byte each time."""
    fill = getattr(ctypes.CDLL(None) if os.name == "posix" else None, "mallopt", None)
    if fill is None:
        pytest.skip("needs the mallopt of glibc")
    scene = np.random.default_rng(1).integers(0, 255, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    scene = np.kron(scene, np.ones((8, 8, 1), np.uint8))[:height, :width]
    files = set()
    try:
        for byte in (0, 25, 75, 125, 175, 225):
            fill(-6, byte)  # M_PERTURB
            write_video(tmp_path / "a.mp4", (np.roll(scene, 2 * i, axis=1) for i in range(n)), fps=10)
            files.add((tmp_path / "a.mp4").read_bytes())
    finally:
        fill(-6, 0)
    assert len(files) == 1


def test_odd_sizes_are_padded(tmp_path):
    write_video(tmp_path / "a.mp4", iter(moving_square(12, 31, 45)), fps=29.97)
    info = probe(tmp_path / "a.mp4")
    assert (info.n_frames, info.height, info.width) == (12, 32, 46) and info.fps == pytest.approx(29.97, abs=1e-3)
    assert len(read_video(tmp_path / "a.mp4")) == 12


def test_writing_refuses_nonsense_and_leaves_nothing(tmp_path):
    with pytest.raises(ZsadError, match="no frames to write"):
        write_video(tmp_path / "a.mp4", [], 10)
    with pytest.raises(ZsadError, match="frame 1 is uint8"):
        write_video(tmp_path / "a.mp4", [np.zeros((8, 8, 3), np.uint8), np.zeros((9, 8, 3), np.uint8)], 10)
    assert list(tmp_path.iterdir()) == []


def test_variable_frame_rate_keeps_every_frame_and_its_time(tmp_path):
    path, ticks = tmp_path / "vfr.mp4", [0, 1, 2, 10, 11, 30, 60, 61, 100, 101]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 10)
        for tick, image in zip(ticks, moving_square(len(ticks))):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = tick, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert probe(path).n_frames == len(ticks)
    assert [seconds for seconds, _ in timed_frames(path)] == pytest.approx(np.array(ticks) / 10)
    assert np.array_equal(read_video(path), read_video(path, decoder="pyav"))


def test_frames_hidden_by_an_edit_list_are_not_counted(clip, tmp_path):
    """A clip cut without re-encoding holds hidden frames: decord lists them, a player never shows them."""
    path = tmp_path / "cut.mp4"
    with av.open(str(clip)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                shift = int(5.05 / packet.time_base)  # the first 50 frames get negative times
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
                target.mux(packet)
    n_frames = probe(path).n_frames
    assert n_frames <= 80
    assert len(read_video(path)) == len(read_video(path, decoder="pyav")) == len(list(timed_frames(path))) == n_frames


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv"])
@pytest.mark.parametrize(
    "reader", [probe, read_video, lambda p: read_video(p, decoder="pyav"), lambda p: [*iter_frames(p)]]
)
def test_truncated_files_are_one_line(tmp_path, suffix, reader):
    path = tmp_path / f"cut{suffix}"
    frames = np.random.default_rng(0).integers(0, 255, (80, 48, 64, 3), np.uint8)
    write_video(path, frames, fps=10)
    assert probe(path).n_frames == 80
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ZsadError, match=rf"cut\{suffix}: .*truncated") as error:
        reader(path)
    assert "\n" not in str(error.value)


def test_index_at_the_end_is_lost_by_truncation(clip, tmp_path):
    with av.open(str(clip)) as source, av.open(str(tmp_path / "cut.mp4"), "w") as target:  # no faststart
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    data = (tmp_path / "cut.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: int(len(data) * 0.6)])
    with pytest.raises(ZsadError, match="cut.mp4: not a readable video .*or truncated"):
        read_video(tmp_path / "cut.mp4")


@pytest.mark.parametrize("name", ["2024-01-01T12:30:00.mp4", "http:a.mp4", "concat:a|b.mp4", "a%03d.mp4", "a:b/c.mp4"])
def test_a_files_name_is_no_address(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert write_video(name, moving_square(12), 10) == probe(name).n_frames == len(read_video(name)) == 12


def test_a_stream_without_a_decoder_is_one_line(clip, tmp_path):
    (tmp_path / "odd.mp4").write_bytes(clip.read_bytes().replace(b"avc1", b"qzx9"))
    with pytest.raises(ZsadError, match="odd.mp4: no decoder here for its video stream; convert it"):
        probe(tmp_path / "odd.mp4")


def test_a_second_decoder_that_objects_is_told_and_not_believed(clip, monkeypatch, capsys):
    frames = read_video(clip, [5, 79], decoder="decord")
    assert np.array_equal(frames, read_video(clip, [5, 79])) and capsys.readouterr().err == ""
    monkeypatch.setattr(second_decoder, "digest", lambda frame: "another")
    assert np.array_equal(frames, read_video(clip, [5, 79], decoder="decord"))
    reason = "frame 5 is another picture there; the frames are PyAV's"
    assert capsys.readouterr().err.startswith(f"{clip}: decord does not agree: {reason}")
    assert second_decoder.objection(clip, {80: ""}) == "it cannot read them"  # there is none


def test_a_second_decoder_that_hangs_is_ended(tmp_path, monkeypatch):
    hangs = tmp_path / "hangs.py"
    hangs.write_text(f"import os, time\nopen({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)")
    monkeypatch.setattr(second_decoder, "__file__", str(hangs))
    assert second_decoder.objection("a.mp4", {0: ""}, seconds=3) == "it has not read them after 3 s"
    if os.name == "posix":
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / "pid").read_text(encoding="utf-8")), 0)


def test_missing_empty_and_wrong_type(tmp_path):
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("not a video " * 100)
    (tmp_path / "folder").mkdir()
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    for name, line in {
        "absent.mp4": "absent.mp4: no such video",
        "empty.mp4": "empty.mp4: the file is empty",
        "text.mp4": "text.mp4: not a readable video",
        "sound.mp4": "sound.mp4: no video stream",
        "folder": "folder: no frames in this folder",
    }.items():
        for reader in (probe, read_video, lambda p: next(iter_frames(p))):
            with pytest.raises(ZsadError, match=line):
                reader(tmp_path / name)


@pytest.mark.parametrize("suffix", [".tif", ".jpg", ".png", ".bmp"])
def test_frame_folders_in_natural_order(tmp_path, suffix):
    for i in (1, 2, 10):
        Image.fromarray(np.full((20, 30), 20 * i, np.uint8)).save(tmp_path / f"{i}{suffix}")
    (tmp_path / f"._1{suffix}").write_bytes(b"resource fork")
    (tmp_path / "notes.txt").write_text("")
    assert [p.stem for p in list_frames(tmp_path)] == ["1", "2", "10"]
    info = probe(tmp_path)
    assert (info.n_frames, info.width, info.height) == (3, 30, 20) and math.isnan(info.fps)
    frames = read_video(tmp_path)
    assert frames.shape == (3, 20, 30, 3) and frames[:, 5, 5, 0].tolist() == pytest.approx([20, 40, 200], abs=2)
    assert np.array_equal(frames[[2, 0]], read_video(tmp_path, [2, 0]))
    assert np.array_equal(frames, np.stack(list(iter_frames(tmp_path))))
    assert read_video(tmp_path, size=16).shape == (3, 16, 16, 3)
    with pytest.raises(ZsadError, match="frame 3 does not exist"):
        read_video(tmp_path, [3])


def test_frame_folder_errors(tmp_path):
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(tmp_path / "1.png")
    Image.fromarray(np.zeros((20, 31), np.uint8)).save(tmp_path / "2.png")
    with pytest.raises(ZsadError, match="different sizes"):
        read_video(tmp_path)
    assert read_video(tmp_path, size=8).shape == (2, 8, 8, 3)
    Image.fromarray(np.zeros((20, 30), np.uint16)).save(tmp_path / "2.png")
    with pytest.raises(ZsadError, match="more than 8 bits"):
        read_video(tmp_path)
    (tmp_path / "2.png").write_bytes((tmp_path / "1.png").read_bytes()[:40])
    with pytest.raises(ZsadError, match="2.png: not a readable image"):
        read_video(tmp_path)


@pytest.mark.data
def test_real_footage(shared):
    path = shared / "data" / "ucf_crime_clips" / "RoadAccidents017_x264.mp4"
    info = probe(path)
    assert (info.n_frames, info.fps, info.width, info.height) == (243, 30.0, 304, 222)
    assert np.array_equal(read_video(path), read_video(path, decoder="pyav"))
    clip = shared / "data" / "ucsd_ped2" / "UCSDped2" / "Test" / "Test001"
    assert probe(clip).n_frames == 180 and read_video(clip, [0, 179]).shape == (2, 240, 360, 3)


def test_a_telephones_turned_picture_comes_upright(tmp_path):
    frames = np.random.default_rng(0).integers(0, 255, (3, 16, 32, 3), dtype=np.uint8)
    write_video(tmp_path / "flat.mp4", frames, 10)
    data = bytearray((tmp_path / "flat.mp4").read_bytes())
    matrix = data.index(b"tkhd") + 44  # how to show the track: here a quarter turn clockwise
    data[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    (tmp_path / "turned.mp4").write_bytes(data)
    flat = read_video(tmp_path / "flat.mp4")
    for decoder in ("pyav", "decord"):
        turned = read_video(tmp_path / "turned.mp4", decoder=decoder)
        np.testing.assert_array_equal(turned, np.rot90(flat, -1, axes=(1, 2)))
    info = probe(tmp_path / "turned.mp4")
    assert (info.n_frames, info.width, info.height) == (3, 16, 32)


def test_a_recording_that_starts_late_is_not_truncated(tmp_path):
    with av.open(str(tmp_path / "late.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "yuv420p"
        for number in range(20):
            frame = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
            frame.pts, frame.time_base = 36_000 + number, Fraction(1, 10)  # an hour into the recording
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    times = [seconds for seconds, _ in timed_frames(tmp_path / "late.mkv")]
    assert times[0] == 0 and times[-1] == pytest.approx(1.9)
    assert declared_seconds(tmp_path / "late.mkv") == pytest.approx(2.0, abs=0.2)


def recording(path: Path, start: int, ticks: list[int]) -> bytes:
    """A transport stream whose frames come at `start` and so many tenths of a second after it."""
    with av.open(str(path), "w", format="mpegts") as container:
        stream = container.add_stream("mpeg2video", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 10)
        stream.options = {"bf": "0", "g": "5"}
        for tick, image in zip(ticks, moving_square(len(ticks))):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = 10 * start + tick, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path.read_bytes()


@pytest.mark.parametrize("starts", [(3333, 0), (0, 3333), (0, 0)])
def test_a_clock_that_is_set_anew_is_no_pause(tmp_path, capsys, starts):
    steady = list(range(20))
    whole = b"".join(recording(tmp_path / "part.ts", start, steady) for start in starts)
    (tmp_path / "restart.ts").write_bytes(whole)
    times = [seconds for seconds, _ in timed_frames(tmp_path / "restart.ts")]
    assert times == pytest.approx(np.arange(40) / 10, abs=1e-6)
    [told] = capsys.readouterr().err.splitlines()
    assert told == f"{tmp_path / 'restart.ts'}: jumps of its clock, cut to one usual interval each: 1"


def test_a_slow_or_uneven_recording_keeps_its_times(tmp_path, capsys):
    for ticks in (
        [20 * n for n in range(12)],
        [0, 1, 2, 3, 90, 91, 92, 170],
    ):  # a frame every two seconds; a screen that rests
        recording(tmp_path / "slow.ts", 5, ticks)
        assert [t for t, _ in timed_frames(tmp_path / "slow.ts")] == pytest.approx(np.array(ticks) / 10, abs=1e-6)
    assert capsys.readouterr().err == ""


def test_ones_own_damaged_recording_is_read_as_far_as_it_goes(tmp_path, capsys):
    frames = np.random.default_rng(0).integers(0, 255, (40, 48, 64, 3), np.uint8)
    write_video(tmp_path / "whole.mp4", frames, fps=10)
    data = bytearray((tmp_path / "whole.mp4").read_bytes())
    hole, half = data.copy(), data[: len(data) // 2]
    hole[len(data) // 2 : len(data) // 2 + 9000] = bytes(9000)
    for name, content, line in (
        ("hole.mp4", hole, r"skipped packets that cannot be decoded: \d"),
        ("half.mp4", half, r"the file breaks off at \d\.\d of 4\.0 s, its end is missing"),
    ):
        (tmp_path / name).write_bytes(content)
        seen = [frame for _, frame in timed_frames(tmp_path / name)]
        assert re.search(line, told := capsys.readouterr().err) and told.count("\n") == 1, name
        assert 10 < len(seen) < 40
        last = read_video(tmp_path / name, [len(seen) - 1, 0], decoded=len(seen))
        np.testing.assert_array_equal(last, [seen[-1], seen[0]])
        list(timed_frames(tmp_path / name, tell=False))
        assert capsys.readouterr().err == ""
        with pytest.raises(ZsadError, match="truncated"):
            probe(tmp_path / name)
    (tmp_path / "head.mp4").write_bytes(data[: data.index(b"moov") + 100])
    with pytest.raises(ZsadError, match="it is truncated"):
        next(timed_frames(tmp_path / "head.mp4"))
