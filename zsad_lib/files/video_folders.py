"""Folders of videos: which of their files and sub-folders are videos, for every command that takes a folder of them.

What the kit has drawn itself, what a system keeps there, hidden files, half-written ones and thumbnails are no videos.
What is used and what is left out is told, so that a threshold never rests on a file that nobody meant.
"""

import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from zsad_lib.errors import ZsadError, one_line
from zsad_lib.files.frame_folders import IMAGE_SUFFIXES
from zsad_lib.files.own_results import is_film, is_pictures
from zsad_lib.files.video import VIDEO_SUFFIXES

SYSTEM = {  # folders in which recorders and systems keep their own: indices, snapshots, what was deleted
    "@eadir", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "$recycle.bin", "system volume information",
    "lost+found", "__macosx",
}  # fmt: skip
THUMBNAILS = {"thumb", "thumbs", "thumbnail", "thumbnails", "thumbs.db"}
THUMBNAIL_OF = re.compile(r"[ ._-]*(thumb|thumbnail|preview|poster)s?$", re.IGNORECASE)  # ends the name of its video
SMALL = 256  # pixels: no side of a thumbnail is longer
LOOKED_AT = 20  # pictures of a folder that tell whether it holds thumbnails
NAMED = 20  # names in a line, at most


def why_no_video(name: str) -> str:
    """What a file or folder of this name is instead of a video; "" where the name does not tell.

    >>> [why_no_video(name) for name in ("a.mp4", "._a.mp4", "a.scores", "@eaDir", "a.partial.mp4", "a.THM")]
    ['', 'hidden', 'results of this kit', "a system's own", 'half written', 'thumbnails']
    """
    lower = name.lower()
    if lower.startswith("."):
        return "hidden"
    if lower.endswith(".scores"):
        return "results of this kit"
    if lower in SYSTEM:
        return "a system's own"
    if ".partial" in lower:
        return "half written"
    return "thumbnails" if lower in THUMBNAILS or lower.endswith(".thm") else ""


def list_videos(folder: str | Path) -> list[Path]:
    """Video files below a folder, dead links among them, and folders of frames, which hold pictures and no video.

    Tells on standard error which they are, and what was left out for which reason.

    Args:
        folder: searched with all below it; links to folders are followed, each folder counts once.

    Raises:
        ZsadError: no such folder, or nothing in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ZsadError(f"{folder}: no such folder; give the folder with the videos")
    videos: list[Path] = []
    pictures: dict[Path, list[str]] = {}
    left_out: dict[str, list[Path]] = {}
    walked = set()

    def unreadable(error: OSError) -> None:
        left_out.setdefault("unreadable", []).append(Path(error.filename))

    for here, folders, files in os.walk(folder, onerror=unreadable, followlinks=True):
        here = Path(here)
        if (real := os.path.realpath(here)) in walked:  # links may lead in a circle
            folders.clear()
            continue
        walked.add(real)
        if is_pictures(here):
            left_out.setdefault("results of this kit", []).append(here)
            folders.clear()
            continue
        for name in sorted(folders):
            if reason := why_no_video(name):
                left_out.setdefault(reason, []).append(here / name)
                folders.remove(name)
        folders.sort()
        named = [name for name in sorted(files) if name.lower().endswith(VIDEO_SUFFIXES)]
        for name in files:
            if name.lower().endswith((*VIDEO_SUFFIXES, ".thm")) and (reason := why_no_video(name)):
                left_out.setdefault(reason, []).append(here / name)
        candidates = [here / name for name in named if not why_no_video(name)]
        films = [path for path in candidates if is_film(path)]
        left_out.setdefault("results of this kit", []).extend(films)
        videos += [path for path in candidates if path not in films]
        images = [name for name in files if name.lower().endswith(IMAGE_SUFFIXES) and not why_no_video(name)]
        if images and not named:
            pictures[here] = sorted(images)
    thumbnails = [here for here, names in pictures.items() if videos and _are_thumbnails(here, names, videos)]
    left_out.setdefault("thumbnails", []).extend(thumbnails)
    listed = sorted(videos) + sorted(pictures.keys() - thumbnails)
    others = [f"left out as {why}: {len(some)}{_named(sorted(some), folder)}" for why, some in left_out.items() if some]
    if not listed:
        found = "; ".join(["no videos below it", *others])
        raise ZsadError(f"{folder}: {found}; expected {', '.join(VIDEO_SUFFIXES)} or folders of frames")
    for line in (f"videos used: {len(listed)}{_named(listed, folder)}", *others):
        print(one_line(f"{folder}: {line}"), file=sys.stderr, flush=True)
    return listed


def _named(paths: Iterable[Path], folder: Path) -> str:
    names = [str(path.relative_to(folder)) for path in paths]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f" ({', '.join(names[:NAMED])}{more})" if names else ""


def _are_thumbnails(folder: Path, names: list[str], videos: list[Path]) -> bool:
    """Whether pictures that lie below the same folder as videos show these in small: by name, or all small JPEGs."""
    called = {name for video in videos for name in (video.name, video.stem)}
    if all(THUMBNAIL_OF.sub("", Path(name).stem) in called for name in names):
        return True
    if not all(name.lower().endswith((".jpg", ".jpeg")) for name in names):
        return False
    from PIL import Image

    try:
        for name in names[:LOOKED_AT]:
            with Image.open(folder / name) as picture:
                if max(picture.size) > SMALL:
                    return False
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False  # who reads it says why
    return True
