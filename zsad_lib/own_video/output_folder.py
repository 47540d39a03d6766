"""Where the scores of one's own video go, so that nothing of anybody's is written over.

Each folder of pictures notes its video: a second run of the same video replaces its own results, and a video of the
same name from another folder gets that folder's name in front of its own.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from zsad_lib.errors import ZsadError
from zsad_lib.files.own_results import begins_with, is_of, is_pictures
from zsad_lib.files.score_tables import FORMATS, PARQUET, parquet_names
from zsad_lib.files.video import VIDEO_SUFFIXES
from zsad_lib.own_video.scoring import TABLE

LONGEST = 255  # bytes of a file's name, on all file systems in use


def local_video(video: str) -> Path:
    """The path of a video; ZsadError for an address, and for none."""
    if not video:
        raise ZsadError("no video; give a file or a folder of frames, as VIDEO=clip.mp4")
    if re.match(r"\w+://", video) and not os.path.exists(video):
        raise ZsadError(
            f"{video}: an address is no file; `live {video}` (make live SOURCE=...) scores a stream as it comes"
        )
    return Path(video)


def output_for(video: Path, given: Path | None, format: str | None = None) -> Path:
    """Where the scores of a video go; beside them, in a folder of the same name without its ending, the pictures.

    Refuses, before anything is computed, what could not be written, or would overwrite what this kit did not make, or
    made of another video.

    Args:
        video: file or folder of frames.
        given: CSV or Parquet file to write; None: ``<name>.scores.csv`` in the current folder, or, where that holds the
            results of another video, ``<folder>-<name>.scores.csv``, with as many of the folders above as it takes.
        format: of `FORMATS`, the ending; None: that of `given`, or csv.

    Raises:
        ZsadError: names the file or folder in the way.
    """
    if given is not None:
        output = given
    else:
        free = [Path(f"{name}.scores.{format or FORMATS[0]}") for name in _names(video.resolve())]
        own = (output for output in free if is_of(output.with_suffix(""), video))
        output = next(own, None) or next((output for output in free if not _holds_results(output)), free[0])
    folder, another = output.with_suffix(""), "give --output another name"
    if (ending := output.suffix.lower()[1:]) not in FORMATS or (format or ending) != ending:
        wanted, example = format or " or .".join(FORMATS), f"{folder}.{format or FORMATS[0]}"
        raise ZsadError(f"{output}: scores are a table; give a file that ends in .{wanted}, as {example}")
    if len(os.fsencode(output.name)) > LONGEST:
        raise ZsadError(f"{output}: a name longer than {LONGEST} bytes; give --output a shorter one")
    if output.exists() and not _is_table(output):
        raise ZsadError(f"{output}: exists and is no score table of this kit; {another}")
    if folder.exists() and not folder.is_dir():
        raise ZsadError(f"{folder}: the pictures need a folder of this name, and it is a file; {another}")
    if folder.resolve() in (video.resolve(), *video.resolve().parents):
        raise ZsadError(f"{folder}: the pictures would go to the video itself; {another}")
    if folder.is_dir() and any(folder.iterdir()) and not is_pictures(folder):
        raise ZsadError(f"{folder}: the pictures need this folder, and it holds other files; {another}")
    if _holds_results(output) and not is_of(folder, video):
        raise ZsadError(f"{output}: holds the results of another video; remove them, or {another}")
    parent = next(parent for parent in output.absolute().parents if parent.exists())
    for target in [parent] + [folder] * folder.is_dir():
        if not target.is_dir() or not os.access(target, os.W_OK | os.X_OK):
            raise ZsadError(f"{output}: cannot write into {target}; choose a writable folder")
    return output


def _names(video: Path) -> Iterator[str]:
    """The name of a video at an absolute path, without its ending; then with its folder's in front, and so on."""
    ending = video.suffix[1:]
    named = video.suffix.lower() in VIDEO_SUFFIXES or (ending.isalnum() and not ending.isdecimal())  # no clock's 45.10
    name = video.stem if named and not video.is_dir() else video.name
    yield name
    for parent in video.parents:
        if parent.name:
            name = f"{parent.name}-{name}"
            yield name


def _holds_results(output: Path) -> bool:
    return _is_table(output) or is_pictures(output.with_suffix(""))


def _is_table(path: Path) -> bool:
    if not begins_with(path, PARQUET):
        return begins_with(path, ",".join(TABLE))
    try:
        return tuple(parquet_names(path)[: len(TABLE)]) == TABLE
    except ZsadError:
        return False
