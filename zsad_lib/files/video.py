"""Video in and out: files and folders of frames become uint8 RGB arrays, counted by what a decoder really returns.

PyAV reads and writes. A frame's number is its place in a decode from the start, whatever the container; no seek is
taken, since where one lands depends on the container, its index and its damage.

Notebook: 00_start_here
"""

import contextlib
import dataclasses
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np

from zsad_lib.errors import ZsadError
from zsad_lib.files.clock import clock_of
from zsad_lib.files.decoding import (
    ONE_THREAD,
    Damage,
    Size,
    choose_stream,
    decode,
    existing,
    local,
    read_frames,
    resize,
    rgb_converter,
    within,
)
from zsad_lib.files.frame_folders import list_frames, read_image
from zsad_lib.files.paths import atomic

VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv", ".flv") + (
    *(".asf", ".mxf", ".m2ts", ".mts", ".3gp", ".vob", ".ogv", ".dav"),
    *(".h264", ".264", ".h265", ".265", ".hevc"),  # raw streams
)


@dataclasses.dataclass(frozen=True)
class VideoInfo:
    """What `probe` finds out about a video."""

    n_frames: int  # frames that a decoder returns
    fps: float  # average frames per second; NaN for a folder of frames, which holds no time
    width: int  # pixels
    height: int  # pixels


def probe(path: str | Path) -> VideoInfo:
    """Counts the frames by decoding them all, and reads size and rate.

    Raises:
        ZsadError: missing, empty, truncated or damaged file, or no video in it.
    """
    path = existing(path)
    if path.is_dir():
        frames = list_frames(path)
        height, width = read_image(frames[0]).shape[:2]
        return VideoInfo(len(frames), float("nan"), width, height)
    frames = decode(path)
    first, fps = next(frames)
    sides = (first.width, first.height)[:: -1 if round(first.rotation / 90) % 2 else 1]
    return VideoInfo(1 + sum(1 for _ in frames), fps, *sides)


def timed_frames(
    path: str | Path, wanted: Callable[[float], bool] | None = None, tell: bool = True
) -> Iterator[tuple[float, np.ndarray | None]]:
    """Time of every frame of one's own video that can be decoded, in seconds from the first one, and the wanted frames
    themselves.

    A recording need not be whole: what cannot be decoded is passed over. Its times never fall; `zsad_lib.files.clock`
    holds the rule for those that are missing, out of order, or jump. A stream without time stamps counts as played at
    the rate that it declares.

    Args:
        path: video file or folder of frames.
        wanted: tells by a frame's time, which it is asked for once and in order, whether it is converted; None: all.
        tell: say on standard error, once at the end, what was passed over or assumed.

    Yields:
        Seconds (NaN in a folder of frames, which holds no time), and uint8 [H, W, 3], or None for the frames between.

    Raises:
        ZsadError: no video, or one of which no frame can be decoded; a damaged image in a folder.
    """
    path, damage = existing(path), Damage()
    if path.is_dir():
        for image in list_frames(path):
            now = float("nan")
            yield now, read_image(image) if wanted is None or wanted(now) else None
        return
    to_rgb, (clock, stamp, assumed) = rgb_converter(), clock_of(path)
    for frame, _ in decode(path, damage):
        now = clock.time(stamp(frame))
        yield now, to_rgb(frame) if wanted is None or wanted(now) else None
    damage.jumps = clock.jumps
    if tell and (told := "; ".join(filter(None, (str(damage), assumed)))):
        print(f"{path}: {told}", file=sys.stderr, flush=True)


def open_stream(source: str, timeout: float = 10.0) -> tuple[bool, Iterator[tuple[float, np.ndarray]]]:
    """Opens a camera or a network stream.

    Args:
        source: number of a camera ("0"), or an address that FFmpeg opens, as rtsp:// or http://.
        timeout: seconds without an answer.

    Returns:
        Whether it is a file at an address: it has a length, and its end is no break (an rtsp:// address is always a
        camera, even where it declares a length). And its frames: seconds on its own clock, NaN where it has none, and
        uint8 [H, W, 3].

    Raises:
        ZsadError: it cannot be opened; or, from the frames, it breaks off.
    """
    import av
    import av.format

    av.logging.set_level(av.logging.PANIC)
    if camera := source.isdecimal():
        address, options, remedy = f"/dev/video{source}", {"format": "v4l2"}, "number, plug and rights"
    else:
        address, options = source, {"timeout": timeout}
        remedy = "address, network and rights; fetch a file before you score it"

    @contextlib.contextmanager
    def stream_errors() -> Iterator[None]:
        try:
            yield
        except (av.FFmpegError, OSError, IndexError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            name = f"{'camera ' * camera}{address.replace(' ', '%20')}"
            raise ZsadError(
                f"{name}: cannot be read ({reason}); check {remedy}"
            ) from None  # its text holds the password

    def frames() -> Iterator[tuple[float, np.ndarray]]:
        to_rgb = rgb_converter()
        clock = is_file or not container.format.flags & av.format.Flags.no_timestamps.value  # MJPEG's times are made up
        with stream_errors(), container:
            for frame in container.decode(stream):
                yield frame.time if clock and frame.time is not None else float("nan"), to_rgb(frame)

    with stream_errors():
        container = av.open(address, **options)
    stream = choose_stream(source.rpartition("@")[2], container)  # without the password that an address may hold
    is_file = not camera and not source.startswith("rtsp") and (bool(container.duration) or container.size > 0)
    return is_file, frames()


def iter_frames(path: str | Path, size: Size | None = None) -> Iterator[np.ndarray]:
    """Streams a video or frame folder as uint8 [H, W, 3], one frame in memory at a time.

    Args:
        path: video file, or folder of .tif .jpg .png .bmp frames.
        size: output size in pixels, int or (height, width); None keeps each frame as it is.

    Raises:
        ZsadError: as `probe`; a truncated file raises after its last good frame.
    """
    path = existing(path)
    to_rgb = rgb_converter()
    frames = map(read_image, list_frames(path)) if path.is_dir() else (to_rgb(frame) for frame, _ in decode(path))
    for frame in frames:
        yield resize(frame, size)


def read_video(
    path: str | Path,
    indices: Sequence[int] | np.ndarray | None = None,
    size: Size | None = None,
    decoder: Literal["pyav", "decord"] = "pyav",
    decoded: int | None = None,
) -> np.ndarray:
    """Reads frames by number: those that `iter_frames` gives at these places.

    Args:
        path: video file, or folder of .tif .jpg .png .bmp frames.
        indices: 0-based frame numbers in any order, repeats allowed; None reads all.
        size: output size in pixels, int or (height, width), bilinear with anti-aliasing; None keeps the size.
        decoder: "pyav"; "decord": the same frames, and decord is asked whether it reads the same pictures. Where it
            does not, standard error says so.
        decoded: frames that `timed_frames` gave: those are numbered, damage is passed over as there; None: a damaged
            file raises.

    Returns:
        uint8 [T, H, W, 3], RGB.

    Raises:
        ZsadError: as `probe`, or a frame number outside the video.
    """
    path = existing(path)
    if decoder not in ("decord", "pyav"):
        raise ZsadError(f"decoder {decoder!r} is unknown; use 'pyav' or 'decord'")
    if indices is not None:
        indices = [int(i) for i in indices]
        if not indices:
            raise ZsadError(f"{path}: an empty list of frame numbers; None reads all frames")
        if min(indices) < 0:
            raise ZsadError(f"{path}: frame {min(indices)} does not exist; frame numbers start at 0")
    if path.is_dir():
        files = list_frames(path)
        frames = [resize(read_image(files[i]), size) for i in within(path, indices, len(files))]
    else:
        frames = read_frames(path, indices, size, decoder, decoded)
    shapes = sorted({frame.shape for frame in frames})
    if len(shapes) > 1:
        raise ZsadError(f"{path}: frames of different sizes, {shapes[0][:2]} and {shapes[-1][:2]}; give a size")
    return np.stack(frames)  # [T, H, W, 3]


def write_video(path: str | Path, frames: Iterable[np.ndarray], fps: float, crf: int = 18, note: str = "") -> int:
    """Writes H.264 in yuv420p (plays everywhere), whole or not at all.

    The same frames give the same bytes, on one machine.

    Args:
        path: target, usually ``.mp4``.
        frames: uint8 [H, W, 3] each, all of one size; an odd size is padded by one repeated row or column.
        fps: frames per second, > 0.
        crf: x264's constant rate factor, 0 (lossless) .. 51.
        note: comment in the file's header.

    Returns:
        Number of frames written.
    """
    import av
    from av.video.reformatter import VideoReformatter

    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise ZsadError(f"{path}: no frames to write")
    height, width = first.shape[:2]
    pad, is_odd = ((0, height % 2), (0, width % 2), (0, 0)), height % 2 or width % 2
    options = {"movflags": "+faststart"} if Path(path).suffix in (".mp4", ".mov") else {}
    n_frames = 0
    with atomic(path, mode=None) as temporary:
        with av.open(local(temporary), "w", options=options) as container:
            if note:
                container.metadata["comment"] = note
            stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
            stream.width, stream.height, stream.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
            stream.options = {"crf": str(crf), "preset": "veryfast"}
            if -(-width // 16) % 8:
                # x264's AVX-512 code takes 8 macroblocks of a row at a time, and reads on where the row has ended: the
                # quantisers then depend on what lies in memory there. Rows of whole eights, as the embedded
                # benchmark's, end with them.
                stream.options |= {"x264-params": "cpu-independent=1"}
            stream.codec_context.thread_count = 1  # x264's output depends on the number of threads
            reformatter = VideoReformatter()
            for image in itertools.chain([first], frames):
                if image.shape != first.shape or image.dtype != np.uint8:
                    kind = f"{image.dtype} {image.shape}"
                    raise ZsadError(f"{path}: frame {n_frames} is {kind}; all must be uint8 {first.shape}")
                image = np.pad(image, pad, mode="edge") if is_odd else image
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                container.mux(stream.encode(reformatter.reformat(frame, format="yuv420p", threads=ONE_THREAD)))
                n_frames += 1
            container.mux(stream.encode(None))
    return n_frames
