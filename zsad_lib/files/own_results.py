"""What this kit has made itself: it is nobody's video, and of which video it is decides whether it may be replaced."""

import json
import os
from pathlib import Path

from zsad_lib.files.paths import write_json

FILM_NOTE = "zsad_lib: film of a scored video"  # stands in a film's header, so that it is known under any name
EVENTS, SOURCE = "events.csv", "video.json"  # what a folder of pictures always holds; SOURCE says of which video
EVENTS_START = "event,start_s,end_s,first_frame"


def begins_with(path: Path, start: str, or_empty: bool = False) -> bool:
    """Whether a file begins with these letters; one that cannot be read does not."""
    try:
        with open(path, "rb") as file:
            found = file.read(len(start))
        return found == start.encode() or (or_empty and not found)
    except OSError:
        return False


def is_pictures(folder: Path) -> bool:
    """Whether a folder holds what the kit draws of a scored video, or the films of a run."""
    noted = any(begins_with(folder / name, "{") for name in (SOURCE, "films.json"))
    return noted or begins_with(folder / EVENTS, EVENTS_START, or_empty=True)


def note_video(folder: Path, video: Path) -> None:
    """Notes of which video the pictures in a folder are."""
    write_json(folder / SOURCE, {"video": os.fspath(video.resolve())})


def is_of(folder: Path, video: Path) -> bool:
    """Whether a folder of pictures says that it is of this video."""
    try:
        noted = json.loads((folder / SOURCE).read_text(encoding="utf-8"))["video"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return noted == os.fspath(video.resolve())


def is_film(path: Path) -> bool:
    """Whether a video is a film that the kit has drawn."""
    if path.suffix.lower() != ".mp4":
        return False
    import av

    from zsad_lib.files.decoding import local

    try:
        with av.open(local(path)) as container:
            return container.metadata.get("comment") == FILM_NOTE
    except (av.FFmpegError, OSError):
        return False
