"""Video in and out: files and folders of frames become uint8 RGB arrays, counted by what a decoder really returns.

decord reads (random access), PyAV counts, streams, writes, and reads wherever decord's own frame count cannot be
trusted: decord lists packets, repeats a neighbour for a frame it cannot decode, and only prints a warning.
"""

import collections
import contextlib
import dataclasses
import itertools
import os
import re
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from zsad_lib.errors import ZsadError
from zsad_lib.paths import atomic

if TYPE_CHECKING:
    import av

IMAGE_SUFFIXES = (".tif", ".tiff", ".jpg", ".jpeg", ".png", ".bmp")
VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv", ".flv")
Size = int | tuple[int, int]  # side of a square, or (height, width), in pixels
JUMP = 10.0  # seconds, and usual intervals, that two frames of a recording may lie apart; beyond both its clock was set anew
RECENT = 30  # intervals whose median is the usual one


@dataclasses.dataclass(frozen=True)
class VideoInfo:
    """What `probe` finds out about a video."""

    n_frames: int  # frames that a decoder returns
    fps: float  # average frames per second; NaN for a folder of frames, which holds no time
    width: int  # pixels
    height: int  # pixels


@dataclasses.dataclass
class Damage:
    """What reading passed over; a reader without one is strict, and raises instead."""

    skipped: int = 0  # packets that cannot be decoded
    broken_off: str = ""  # where the file ends before its time, in words
    jumps: int = 0  # times that were set right

    def __str__(self) -> str:
        said = [f"skipped packets that cannot be decoded: {self.skipped}"] if self.skipped else []
        said += [f"{self.broken_off}, its end is missing"] if self.broken_off else []
        said += [f"jumps of its clock, cut to one usual interval each: {self.jumps}"] if self.jumps else []
        return "; ".join(said)


def list_frames(folder: str | Path) -> list[Path]:
    """The images of a frame folder in natural order (2 before 10), without hidden files like macOS' ``._001.tif``."""
    images = [p for p in Path(folder).iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")]
    if not images:
        raise ZsadError(f"{folder}: no frames in this folder; expected {', '.join(IMAGE_SUFFIXES)} files")
    return sorted(images, key=lambda p: [int(s) if s.isdigit() else s for s in re.split(r"(\d+)", p.name.lower())])


def probe(path: str | Path) -> VideoInfo:
    """Counts the frames by decoding them all, and reads size and rate.

    Raises:
        ZsadError: missing, empty, truncated or damaged file, or no video in it.
    """
    path = _existing(path)
    if path.is_dir():
        frames = list_frames(path)
        height, width = _read_image(frames[0]).shape[:2]
        return VideoInfo(len(frames), float("nan"), width, height)
    frames = _decode(path)
    first, fps = next(frames)
    sides = (first.width, first.height)[:: -1 if round(first.rotation / 90) % 2 else 1]
    return VideoInfo(1 + sum(1 for _ in frames), fps, *sides)


def frame_times(path: str | Path) -> np.ndarray:
    """Seconds from the first frame to every decoded frame, float64 [T]; right at variable rates too."""
    times = np.array([frame.time if frame.time is not None else np.nan for frame, _ in _decode(_existing(path))])
    return times - times[0]


def declared_seconds(path: str | Path) -> float:
    """Length of a video according to its header, seconds; 0 where it does not say, and for a folder of frames."""
    path = _existing(path)
    if path.is_dir():
        return 0.0
    container, stream = _open(path)
    with container:
        start = (stream.start_time or 0) * stream.time_base if stream.time_base else 0
        return max(0.0, _declared_end(container, stream) - float(start))


def timed_frames(path: str | Path, step: int = 1, tell: bool = True) -> Iterator[tuple[float, np.ndarray | None]]:
    """Time of every frame of one's own video that can be decoded, in seconds from the first one, and every step-th frame itself.

    A recording need not be whole: what cannot be decoded is passed over. Its times never fall: where its clock goes back, or ahead by more
    than `JUMP` seconds and `JUMP` usual intervals, as after an encoder's restart, the frame counts as one usual interval after the last
    one. A stream without time stamps counts as played at the rate that it declares.

    Args:
        path: video file or folder of frames.
        step: every how many-th frame is converted.
        tell: say on standard error, once at the end, what was passed over.

    Yields:
        Seconds (NaN in a folder of frames, which holds no time), and uint8 [H, W, 3], or None for the frames between.

    Raises:
        ZsadError: no video, or one of which no frame can be decoded; a damaged image in a folder.
    """
    path, damage = _existing(path), Damage()
    if path.is_dir():
        for number, image in enumerate(list_frames(path)):
            yield float("nan"), _read_image(image) if number % step == 0 else None
        return
    to_rgb, last, shift, apart = _rgb_converter(), 0.0, None, collections.deque(maxlen=RECENT)
    for number, (frame, fps) in enumerate(_decode(path, damage)):
        time = number / fps if frame.time is None else frame.time
        shift = time if shift is None else shift
        ahead, usual = time - shift - last, statistics.median(apart or [1 / fps])
        if ahead < 0 or ahead > JUMP * max(1.0, usual):
            damage.jumps += 1
            shift = time - last - usual
        elif number:
            apart.append(ahead)
        last = time - shift
        yield last, to_rgb(frame) if number % step == 0 else None
    if tell and str(damage):
        print(f"{path}: {damage}", file=sys.stderr, flush=True)


def open_stream(source: str, timeout: float = 10.0) -> tuple[bool, Iterator[tuple[float, np.ndarray]]]:
    """Opens a camera or a network stream.

    Args:
        source: number of a camera ("0"), or an address that FFmpeg opens, as rtsp:// or http://.
        timeout: seconds without an answer.

    Returns:
        Whether it is a file at an address: it has a length, and its end is no break (an rtsp:// address is always a camera, even where
        it declares a length). And its frames: seconds on its own clock, NaN where it has none, and uint8 [H, W, 3].

    Raises:
        ZsadError: it cannot be opened; or, from the frames, it breaks off.
    """
    import av
    import av.format

    av.logging.set_level(av.logging.PANIC)
    number = source.isdigit()
    address, options = (f"/dev/video{source}", {"format": "v4l2"}) if number else (source, {"timeout": timeout})

    @contextlib.contextmanager
    def told() -> Iterator[None]:
        try:
            yield
        except (av.FFmpegError, OSError, IndexError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            remedy = (
                "number, plug and rights" if number else "address, network and rights; fetch a file before you score it"
            )
            raise ZsadError(
                f"{f'camera {address}' if number else source}: cannot be read ({reason}); check {remedy}"
            ) from error

    def frames() -> Iterator[tuple[float, np.ndarray]]:
        to_rgb = _rgb_converter()
        clock = is_file or not container.format.flags & av.format.Flags.no_timestamps.value  # MJPEG's times are made up
        with told(), container:
            for frame in container.decode(video=0):
                yield frame.time if clock and frame.time is not None else float("nan"), to_rgb(frame)

    with told():
        container = av.open(address, **options)
    is_file = not number and not source.startswith("rtsp") and (bool(container.duration) or container.size > 0)
    return is_file, frames()


def iter_frames(path: str | Path, size: Size | None = None) -> Iterator[np.ndarray]:
    """Streams a video or frame folder as uint8 [H, W, 3], one frame in memory at a time.

    Args:
        path: video file, or folder of .tif .jpg .png .bmp frames.
        size: output size in pixels, int or (height, width); None keeps each frame as it is.

    Raises:
        ZsadError: as `probe`; a truncated file raises after its last good frame.
    """
    path = _existing(path)
    if path.is_dir():
        frames = map(_read_image, list_frames(path))
    else:
        to_rgb = _rgb_converter()
        frames = (to_rgb(frame) for frame, _ in _decode(path))
    for frame in frames:
        yield resize(frame, size)


def read_video(
    path: str | Path,
    indices: Sequence[int] | np.ndarray | None = None,
    size: Size | None = None,
    decoder: Literal["decord", "pyav"] = "decord",
    decoded: int | None = None,
) -> np.ndarray:
    """Reads frames by number; both decoders give the same frames.

    Args:
        path: video file, or folder of .tif .jpg .png .bmp frames.
        indices: 0-based frame numbers in any order, repeats allowed; None reads all.
        size: output size in pixels, int or (height, width), bilinear with anti-aliasing; None keeps the size.
        decoder: "decord" (seeks) or "pyav" (decodes from the start).
        decoded: frames that `timed_frames` gave: those are numbered, damage is passed over as there; None: a damaged file raises.

    Returns:
        uint8 [T, H, W, 3], RGB.

    Raises:
        ZsadError: as `probe`, or a frame number outside the video.
    """
    path = _existing(path)
    if decoder not in ("decord", "pyav"):
        raise ZsadError(f"decoder {decoder!r} is unknown; use 'decord' or 'pyav'")
    if indices is not None:
        indices = [int(i) for i in indices]
        if not indices:
            raise ZsadError(f"{path}: an empty list of frame numbers; None reads all frames")
        if min(indices) < 0:
            raise ZsadError(f"{path}: frame {min(indices)} does not exist; frame numbers start at 0")
    if path.is_dir():
        files = list_frames(path)
        frames = [resize(_read_image(files[i]), size) for i in _within(path, indices, len(files))]
    else:
        frames = _read_decord(path, indices, size, decoded) if decoder == "decord" else None
        if frames is None:
            frames = _read_pyav(path, indices, size, None if decoded is None else Damage())
    shapes = sorted({frame.shape for frame in frames})
    if len(shapes) > 1:
        raise ZsadError(f"{path}: frames of different sizes, {shapes[0][:2]} and {shapes[-1][:2]}; give a size")
    return np.stack(frames)  # [T, H, W, 3]


def write_video(path: str | Path, frames: Iterable[np.ndarray], fps: float, crf: int = 18) -> int:
    """Writes H.264 in yuv420p (plays everywhere), whole or not at all.

    The same frames give the same bytes at the embedded benchmark's size. At others they need not: x264's macroblock tree reads
    memory that nobody has written, and may choose another quantiser.

    Args:
        path: target, usually ``.mp4``.
        frames: uint8 [H, W, 3] each, all of one size; an odd size is padded by one repeated row or column.
        fps: frames per second, > 0.
        crf: x264's constant rate factor, 0 (lossless) .. 51.

    Returns:
        Number of frames written.
    """
    import av

    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise ZsadError(f"{path}: no frames to write")
    height, width = first.shape[:2]
    pad = ((0, height % 2), (0, width % 2), (0, 0))
    options = {"movflags": "+faststart"} if Path(path).suffix in (".mp4", ".mov") else {}
    n_frames = 0
    with atomic(path, mode=None) as temporary:
        with av.open(str(temporary), "w", options=options) as container:
            stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
            stream.width, stream.height, stream.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
            stream.options = {"crf": str(crf), "preset": "veryfast"}
            stream.codec_context.thread_count = 1  # x264's output depends on the number of threads
            for image in itertools.chain([first], frames):
                if image.shape != first.shape or image.dtype != np.uint8:
                    raise ZsadError(
                        f"{path}: frame {n_frames} is {image.dtype} {image.shape}; all must be uint8 {first.shape}"
                    )
                frame = av.VideoFrame.from_ndarray(np.pad(image, pad, mode="edge"), format="rgb24")
                container.mux(stream.encode(frame))
                n_frames += 1
            container.mux(stream.encode(None))
    return n_frames


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.exists():
        raise ZsadError(f"{path}: no such video file or frame folder")
    if path.is_file() and path.stat().st_size == 0:
        raise ZsadError(f"{path}: the file is empty; fetch it again")
    return path


def _within(path: Path, indices: list[int] | None, n_frames: int) -> Sequence[int]:
    if indices is None:
        return range(n_frames)
    if max(indices) >= n_frames:
        raise ZsadError(f"{path}: frame {max(indices)} does not exist; the video has {n_frames} frames, 0 first")
    return indices


def resize(frame: np.ndarray, size: Size | None) -> np.ndarray:
    if size is None:
        return frame
    height, width = (size, size) if isinstance(size, int) else size
    if frame.shape[:2] == (height, width):
        return frame
    from PIL import Image

    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR))


def _read_image(path: Path) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):
                raise ZsadError(f"{path}: more than 8 bits per channel; convert the frames to 8 bits")
            return np.asarray(image.convert("RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ZsadError(f"{path}: not a readable image ({error}); fetch it again") from error


def _open(path: Path) -> "tuple[av.container.InputContainer, av.VideoStream]":
    import av

    av.logging.set_level(av.logging.PANIC)  # its complaints are told as one line below
    try:
        container = av.open(str(path))
    except (av.FFmpegError, OSError) as error:
        raise ZsadError(
            f"{path}: not a readable video ({error.strerror}), or truncated; fetch it again or convert it to .mp4"
        ) from error
    if not container.streams:
        container.close()
        raise ZsadError(f"{path}: nothing but a header in this file, it is truncated; fetch it again")
    if not container.streams.video:
        container.close()
        raise ZsadError(f"{path}: no video stream in this file; give a video such as .mp4, .avi or .mkv")
    return container, container.streams.video[0]


def _packets(
    path: Path, container: "av.container.InputContainer", stream: "av.VideoStream", damage: Damage | None = None
) -> Iterator["av.Packet"]:
    """All packets of the video stream; raises, or notes in `damage`, where the file breaks off before its declared duration."""
    import av

    end = 0.0  # seconds
    try:
        for packet in container.demux(stream):
            if packet.pts is not None:
                end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            yield packet
    except av.FFmpegError as error:
        if damage is None:
            raise ZsadError(f"{path}: the file is truncated or damaged ({error.strerror}); fetch it again") from error
        damage.broken_off = f"the file breaks off at {end:.1f} s"
        return
    declared = _declared_end(container, stream)
    if declared - end > 0.5 + 0.02 * declared:
        if damage is None:
            raise ZsadError(f"{path}: the file is truncated at {end:.1f} of {declared:.1f} s; fetch it again")
        damage.broken_off = f"the file breaks off at {end:.1f} of {declared:.1f} s"


def _declared_end(container: "av.container.InputContainer", stream: "av.VideoStream") -> float:
    """Seconds at which the video ends according to the file's header; 0 where it does not say."""
    import av

    start = float((stream.start_time or 0) * stream.time_base)
    if container.format.name == "avi":  # its duration is guessed from the file's size, its frame count is declared
        return start + float(stream.frames / stream.average_rate) if stream.average_rate else 0.0
    if stream.duration is not None:
        return start + float(stream.duration * stream.time_base)
    if container.duration is not None and len(container.streams) == 1:  # sound may last longer
        start = (
            0 if "matroska" in container.format.name else container.start_time or 0
        )  # its duration ends with its last time
        return (start + container.duration) / av.time_base
    return 0.0


def _decode(path: Path, damage: Damage | None = None) -> "Iterator[tuple[av.VideoFrame, float]]":
    """Yields (frame, average frames per second); raises after the last good frame of a damaged file, or goes on and fills `damage`."""
    import av

    container, stream = _open(path)
    with container:
        fps = float(stream.average_rate or stream.guessed_rate or "nan")
        n_frames = 0
        for packet in _packets(path, container, stream, damage):
            try:
                frames = packet.decode()
            except av.FFmpegError as error:
                if n_frames == 0:
                    continue  # a recording that starts between key frames: nothing can be shown yet
                if damage is not None:
                    damage.skipped += 1
                    continue
                raise ZsadError(
                    f"{path}: cannot decode after frame {n_frames - 1} ({error.strerror}); the file is truncated or "
                    "damaged, fetch or convert it again"
                ) from error
            for frame in frames:
                n_frames += 1
                yield frame, fps
        if n_frames == 0:
            raise ZsadError(f"{path}: the video holds no decodable frame; fetch it again")


def _rgb_converter() -> "Callable[[av.VideoFrame], np.ndarray]":
    """Decoded frame -> uint8 [H, W, 3], upright; one for a whole video, because preparing a conversion takes longer than doing it."""
    from av.video.reformatter import VideoReformatter

    reformatter = VideoReformatter()

    def to_rgb(frame: "av.VideoFrame") -> np.ndarray:
        picture = reformatter.reformat(frame, format="rgb24").to_ndarray()
        turns = round(
            frame.rotation / 90
        )  # telephones store the sensor's picture and how to turn it, counter-clockwise
        return np.ascontiguousarray(np.rot90(picture, turns)) if turns else picture

    return to_rgb


def _read_pyav(path: Path, indices: list[int] | None, size: Size | None, damage: Damage | None) -> list[np.ndarray]:
    last = max(indices) if indices is not None else None
    wanted = None if indices is None else set(indices)
    kept, n_frames, to_rgb = {}, 0, _rgb_converter()
    for number, (frame, _) in enumerate(_decode(path, damage)):
        n_frames = number + 1
        if wanted is None or number in wanted:
            kept[number] = resize(to_rgb(frame), size)
        if number == last:
            break
    return [kept[i] for i in _within(path, indices, n_frames)]


def _read_decord(
    path: Path, indices: list[int] | None, size: Size | None, decoded: int | None
) -> list[np.ndarray] | None:
    """Frames through decord, or None where its count differs from the packets or from `decoded`, or a frame would be made up."""
    os.environ.setdefault("DECORD_EOF_RETRY_MAX", "64")  # the default of 10240 looks like a hang on damaged files
    import decord

    container, stream = _open(path)
    with container:
        packets = _packets(path, container, stream, None if decoded is None else Damage())
        n_packets = sum(1 for p in packets if p.size and not p.is_discard)
    try:
        decord.logging.set_level(decord.logging.QUIET)
        reader = decord.VideoReader(str(path), num_threads=1, fault_tol=1)
        if len(reader) != n_packets or decoded not in (None, n_packets):
            return None
        numbers = _within(path, indices, n_packets)
        frames = (reader.get_batch(numbers[i : i + 64]).asnumpy() for i in range(0, len(numbers), 64))
        return [resize(frame, size) for batch in frames for frame in batch]
    except (decord.DECORDError, decord.DECORDLimitReachedError, RuntimeError):
        return None
