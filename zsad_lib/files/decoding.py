"""Packets and pictures of a video file, by PyAV: what `zsad_lib.files.video` is made of.

A frame's number is its place in a decode from the start, in every container and for every reader.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from zsad_lib.errors import ZsadError, tell_once

if TYPE_CHECKING:
    import av


Size = int | tuple[int, int]  # side of a square, or (height, width), in pixels
ONE_THREAD = 1  # of a conversion: with more of them, small pictures take four times as long, and none is faster
PATIENCE = 30.0  # seconds until a file has shown what it is, and then until each of its packets has come


@dataclasses.dataclass
class Damage:
    """What reading passed over; a reader without one is strict, and raises instead."""

    skipped: int = 0  # packets that cannot be decoded
    broken_off: str = ""  # where the file ends before its time, in words
    jumps: int = 0  # times that were set right

    def __str__(self) -> str:
        parts = [f"skipped packets that cannot be decoded: {self.skipped}"] if self.skipped else []
        parts += [f"{self.broken_off}, its end is missing"] if self.broken_off else []
        parts += [f"jumps of its clock, cut to one usual interval each: {self.jumps}"] if self.jumps else []
        return "; ".join(parts)


def resize(frame: np.ndarray, size: Size | None) -> np.ndarray:
    """A frame uint8 [H, W, 3] at another size, bilinear with anti-aliasing; None, or its own size: as it is."""
    height, width = (size, size) if isinstance(size, int) else size or frame.shape[:2]
    if frame.shape[:2] == (height, width):
        return frame
    from PIL import Image

    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR))


def local(path: Path) -> str:
    """A file's path as FFmpeg takes it: with a colon in the name, it is no protocol."""
    return f"file:{path}"


def open_container(path: Path) -> "tuple[av.container.InputContainer, av.VideoStream]":
    """Opens a video file; ZsadError where it is none, or nothing but a header. The caller closes the container."""
    import av

    av.logging.set_level(av.logging.PANIC)  # its complaints are told as one line below
    _check_playlist(path)
    try:  # as a file, whatever its name looks like, and with files as its only parts
        container = av.open(local(path), options={"protocol_whitelist": "file,crypto,data"}, timeout=PATIENCE)
    except (av.FFmpegError, OSError) as error:
        advice = "or truncated; fetch it again or convert it to .mp4"
        raise ZsadError(f"{path}: not a readable video ({error.strerror}), {advice}") from error
    try:
        return container, choose_stream(path, container)
    except ZsadError:
        container.close()
        raise


def choose_stream(name: str | Path, container: "av.container.InputContainer") -> "av.VideoStream":
    """The video stream that every reader takes: of several the one marked default, else the first; a cover picture is
    none. A choice is told once on standard error."""
    from av.stream import Disposition

    if not container.streams:
        raise ZsadError(f"{name}: nothing but a header in this file, it is truncated; fetch it again")
    films = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not films:
        found = "a cover picture, and no video" if container.streams.video else "no video stream"
        raise ZsadError(f"{name}: {found} in this file; give a video such as .mp4, .avi or .mkv")
    readable = [stream for stream in films if stream.codec_context is not None]
    if not readable:
        raise ZsadError(f"{name}: no decoder here for its video stream; convert it to H.264 in .mp4")
    marked = [stream for stream in readable if stream.disposition & Disposition.default]
    stream = (marked or readable)[0]
    if len(films) > 1:
        numbers = ", ".join(str(film.index) for film in films)
        reason = "marked default" if len(marked) == 1 else "the first"
        tell_once(f"{name}: several video streams, {numbers}; number {stream.index} is read, {reason}")
    return stream


def _check_playlist(path: Path) -> None:
    """Refuses an HLS playlist that is not whole here: FFmpeg leaves out the parts that it does not find, and waits for
    new ones where the list has no end."""
    with open(path, "rb") as file:
        if file.read(7) != b"#EXTM3U":
            return
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    parts = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if any(line.startswith("#EXT-X-STREAM-INF") for line in lines):
        raise ZsadError(f"{path}: a playlist of playlists; give one of those that it names")
    if not any(line.startswith("#EXT-X-ENDLIST") for line in lines):
        raise ZsadError(f"{path}: a playlist without an end (#EXT-X-ENDLIST); give it when the recording is over")
    for part in parts:
        if not (path.parent / part).is_file():
            raise ZsadError(f"{path}: its part {part} is no file here; fetch it too, or join the parts to one video")


def packets_of(
    path: Path, container: "av.container.InputContainer", stream: "av.VideoStream", damage: Damage | None = None
) -> Iterator["av.Packet"]:
    """All packets of the video stream; raises, or notes in `damage`, where the file breaks off before its declared
    duration."""
    import av
    from av.format import Flags

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
    if container.format.flags & Flags.ts_discont.value:
        return  # MPEG-TS and -PS declare no length: FFmpeg guesses it from the last times
    declared = declared_end(container, stream)
    if declared - end > 0.5 + 0.02 * declared:
        if damage is None:
            raise ZsadError(f"{path}: the file is truncated at {end:.1f} of {declared:.1f} s; fetch it again")
        damage.broken_off = f"the file breaks off at {end:.1f} of {declared:.1f} s"


def declared_end(container: "av.container.InputContainer", stream: "av.VideoStream") -> float:
    """Seconds at which the video ends according to the file's header; 0 where it does not say."""
    import av

    start = float((stream.start_time or 0) * stream.time_base)
    if container.format.name == "avi":  # its duration is guessed from the file's size, its frame count is declared
        return start + float(stream.frames / stream.average_rate) if stream.average_rate else 0.0
    if stream.duration is not None:
        return start + float(stream.duration * stream.time_base)
    if container.duration is not None and len(container.streams) == 1:  # sound may last longer
        start = 0 if "matroska" in container.format.name else container.start_time or 0  # its duration is its last time
        return (start + container.duration) / av.time_base
    return 0.0


def declared_seconds(path: str | Path) -> float:
    """Length of a video according to its header, seconds; 0 where it does not say, and for a folder of frames."""
    path = existing(path)
    if path.is_dir():
        return 0.0
    container, stream = open_container(path)
    with container:
        start = (stream.start_time or 0) * stream.time_base if stream.time_base else 0
        return max(0.0, declared_end(container, stream) - float(start))


def decode(path: Path, damage: Damage | None = None) -> "Iterator[tuple[av.VideoFrame, float]]":
    """Yields (frame, average frames per second); raises after the last good frame of a damaged file, or goes on and
    fills `damage`.

    A raw stream, as .h264 and some .dav, holds no times: its frames have none either, and its rate is the one that it
    declares in its own headers. FFmpeg would have it at 25 per second.
    """
    import av
    from av.format import Flags

    container, stream = open_container(path)
    with container:
        raw = bool(container.format.flags & Flags.no_timestamps.value)
        fps = float((not raw and stream.average_rate) or stream.guessed_rate or "nan")
        if raw and not stream.codec_context.framerate:
            tell_once(f"{path}: a raw stream that declares no rate; {fps:g} frames per second are assumed")
        n_frames = 0
        for packet in packets_of(path, container, stream, damage):
            try:
                frames = packet.decode()
            except av.FFmpegError as error:
                if n_frames == 0:
                    continue  # a recording that starts between key frames: nothing can be shown yet
                if damage is not None:
                    damage.skipped += 1
                    continue
                fault = f"cannot decode after frame {n_frames - 1} ({error.strerror}); the file is truncated or damaged"
                raise ZsadError(f"{path}: {fault}, fetch or convert it again") from error
            for frame in frames:
                n_frames += 1
                if raw:
                    frame.pts = None
                yield frame, fps
        if n_frames == 0:
            raise ZsadError(f"{path}: the video holds no decodable frame; fetch it again")


def rgb_converter() -> "Callable[[av.VideoFrame], np.ndarray]":
    """Decoded frame -> uint8 [H, W, 3], upright; one for a whole video, because preparing a conversion takes longer
    than doing it."""
    from av.video.reformatter import VideoReformatter

    reformatter = VideoReformatter()

    def to_rgb(frame: "av.VideoFrame") -> np.ndarray:
        picture = reformatter.reformat(frame, format="rgb24", threads=ONE_THREAD).to_ndarray()
        turns = round(
            frame.rotation / 90
        )  # telephones store the sensor's picture, and counter-clockwise how to turn it
        return np.ascontiguousarray(np.rot90(picture, turns)) if turns else picture

    return to_rgb


def read_frames(
    path: Path, indices: list[int] | None, size: Size | None, decoder: str, decoded: int | None
) -> list[np.ndarray]:
    """Frames of a video file for `read_video`, by a decode from the start."""
    from zsad_lib.files.second_decoder import digest, objection

    last, wanted = (None, None) if indices is None else (max(indices), set(indices))
    kept, contents, n_frames, to_rgb = {}, {}, 0, rgb_converter()
    for number, (frame, _) in enumerate(decode(path, None if decoded is None else Damage())):
        n_frames = number + 1
        if wanted is None or number in wanted:
            picture = to_rgb(frame)
            kept[number] = resize(picture, size)
            if decoder == "decord":
                contents[number] = digest(picture)
        if number == last:
            break
    frames = [kept[i] for i in within(path, indices, n_frames)]
    if contents and (reason := objection(path, contents)):
        tell_once(f"{path}: decord does not agree: {reason}; the frames are PyAV's, from a decode from the start")
    return frames


def existing(path: str | Path) -> Path:
    """The path of a video or folder of frames; ZsadError where there is nothing, or an empty file."""
    path = Path(path)
    if not path.exists():
        raise ZsadError(f"{path}: no such video file or frame folder")
    if path.is_dir():
        return path
    if not path.is_file():  # reading a pipe or a device may never end
        raise ZsadError(f"{path}: a pipe or a device, no file; save the video as a file first")
    if path.stat().st_size == 0:
        raise ZsadError(f"{path}: the file is empty; fetch it again")
    return path


def within(path: Path, indices: list[int] | None, n_frames: int) -> Sequence[int]:
    """The frame numbers to read, None: all; ZsadError where one lies outside the video."""
    if indices is None:
        return range(n_frames)
    if max(indices) >= n_frames:
        raise ZsadError(f"{path}: frame {max(indices)} does not exist; the video has {n_frames} frames, 0 first")
    return indices
