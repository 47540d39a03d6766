"""What is there of a real data set, what is missing, and where to get it: decoded once, reconciled with its labels, one manifest.

Each data set's module holds only its facts (`DataSet`) and a reader of its labels, ``read(root, split, found)``: one row per
listed video with `video`, `split` (train | val | test), `action`, `spans`, `labelled` (frames that the label speaks of; 0: it
does not say), `place` ("file:line") and, where cameras are told apart, `scene`. Everything else is here. Nothing is ever deleted.
"""

import dataclasses
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from zsad_lib import paths
from zsad_lib.config import Profile
from zsad_lib.errors import ZsadError
from zsad_lib.manifest import COLUMNS, labels_to_spans, load_manifest, save_manifest, unique
from zsad_lib.video import iter_frames, probe
from zsad_lib.workers import parallel

NORMAL = "Normal"
HELD_OUT = 10  # where a data set has no validation list, every tenth normal training video is held out
SAVED = 20  # decoded videos between two notes of them, so that an interrupted scan goes on where it was
SHOWN = 5  # names in a line; all are in inventory.csv
Reader = Callable[[Path, str, pd.DataFrame], pd.DataFrame]


@dataclasses.dataclass(frozen=True)
class DataSet:
    """The facts of one data set."""

    key: str  # its module in data_prep, and its folder under data/ where no DATA_ROOT is given
    title: str
    home: str  # where its owners give it
    terms: str  # what they allow
    paper: str  # to cite
    layout: tuple[str, ...]  # what is expected below DATA_ROOT, at any depth
    files: Mapping[str, str]  # part -> pattern that ends a video's path; its group is the name
    counts: Mapping[str, Mapping[str, int]]  # split -> list -> videos; the first split is the usual one
    family: str  # of its anomalies, as in the manifest
    fps: float = 30.0  # frames per second of folders of frames, which hold no time
    numbered: bool = False  # names repeat in every part: the part goes in front


# --- leaks ------------------------------------------------------------------------------------------------------------


def check_no_leak(train: Iterable[str], test: Iterable[str], listed: str = "the training list") -> None:
    """Refuses to train on videos of the test list; every step that trains calls it.

    Raises:
        ZsadError: with the number of shared videos and all their names.

    >>> check_no_leak(["a", "b", "b"], ["b", "c"])
    Traceback (most recent call last):
    ...
    zsad_lib.errors.ZsadError: 1 of the 2 test videos are in the training list: train on a list without them, as SPLIT=clean (b)
    """
    test = set(test)
    if shared := sorted(test & set(train)):
        raise ZsadError(
            f"{len(shared)} of the {len(test)} test videos are in {listed}: train on a list without them, as SPLIT=clean "
            f"({', '.join(shared)})"
        )


def split_hash(table: pd.DataFrame) -> str:
    """sha256 over the sorted lines "list video": the same lists give the same hash, wherever the files lie."""
    text = "\n".join(sorted(f"{row.split} {row.video}" for row in table.itertuples()))
    return hashlib.sha256(text.encode()).hexdigest()


# --- files ------------------------------------------------------------------------------------------------------------


def locate(data: DataSet, profile: Profile) -> Path:
    """The folder with the data set: DATA_ROOT, or data/<key>; where there is none, prints what belongs there."""
    root = Path(profile.data_root).expanduser().absolute() if profile.data_root else paths.data() / data.key
    if not root.is_dir():
        print(card(data, profile.split))
        raise ZsadError(
            f"{root}: no {data.title} here; get it from {data.home} and pass DATA_ROOT=<folder that holds it>"
        )
    return root


def card(data: DataSet, split: str) -> str:
    """What the data set is, what is expected, and where to get it."""
    counts = ", ".join(f"{number:,} {name}" for name, number in data.counts[split].items())
    lines = [f"{data.title}, split {split}: {counts} videos", f"  home   {data.home}", f"  terms  {data.terms}"]
    lines += [f"  cite   {data.paper}", "  below DATA_ROOT, at any depth:", *(f"    {line}" for line in data.layout)]
    return "\n".join(lines)


def find(data: DataSet, root: Path) -> pd.DataFrame:
    """Every video file or folder of frames below `root` that the patterns know: `part`, `video`, `path`.

    Releases that come in parts may lie side by side. A copy of the same size counts once, and a file goes before a folder of frames.

    Raises:
        ZsadError: two files of one name that differ in size.
    """
    patterns = {part: re.compile(rf"(?:^|.*/){pattern}") for part, pattern in data.files.items()}
    found: dict[tuple[str, str], Path] = {}
    walked = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        if os.path.realpath(folder) in walked:  # links may lead in a circle
            folders.clear()
            continue
        walked.add(os.path.realpath(folder))
        for name in (*sorted(files), *sorted(folders)):
            path = Path(folder, name)
            matches = ((part, p.fullmatch(path.relative_to(root).as_posix())) for part, p in patterns.items())
            part, match = next(((part, match) for part, match in matches if match), (None, None))
            if match is None or name.startswith("."):
                continue
            if name in folders:
                folders.remove(name)  # its frames are no videos
            video = f"{part}_{match[1]}" if data.numbered else match[1]
            first = found.setdefault((part, video), path)
            if first.is_file() and path.is_file() and first.stat().st_size != path.stat().st_size:
                raise ZsadError(f"{path}: differs from {first}, which has the same name; keep one of them")
            if first.is_dir() and path.is_file():
                found[part, video] = path
        folders.sort()
    rows = [(part, video, path) for (part, video), path in sorted(found.items())]
    return pd.DataFrame(rows, columns=["part", "video", "path"])


def label_file(root: str | Path, name: str) -> Path:
    """A label file by its name, anywhere below `root`; copies are welcome as long as they are equal.

    Raises:
        ZsadError: there is none, or two that differ.
    """
    root = Path(root)
    files = [root / name] if (root / name).is_file() else sorted(path for path in root.rglob(name) if path.is_file())
    if not files:
        raise ZsadError(f"{root / name}: no such label file here or in a folder below")
    for other in files[1:]:
        if other.read_bytes() != files[0].read_bytes():
            raise ZsadError(f"{other}: differs from {files[0]}; keep one of them below {root}")
    return files[0]


def array_spans(values: np.ndarray, place: str) -> tuple[str, int]:
    """Spans and length of frame labels [T] of 0 and 1."""
    values = np.asarray(values)
    if values.ndim != 1 or not len(values) or values.dtype.kind not in "buif" or not np.isin(values, (0, 1)).all():
        raise ZsadError(f"{place}: expected a row of frame labels 0 and 1, got {values.dtype} {values.shape}")
    return labels_to_spans(values), len(values)


# --- decoding ---------------------------------------------------------------------------------------------------------


def scan(files: Mapping[str, Path], record: Path, jobs: int = 1) -> pd.DataFrame:
    """Decodes every video once: index video, `n_frames`, `fps` and `fault` ("" = sound).

    What has been decoded is noted in `record` by name, size and time of change, and not decoded again.
    """
    known = paths.read_json(record) if record.exists() else {}
    marks = {video: _mark(path) for video, path in files.items()}
    todo = [video for video, mark in marks.items() if mark not in known]
    if todo:
        print(f"decoding {len(todo)} of {len(files)} videos once, to count their frames", flush=True)
    try:
        for number, (video, result) in enumerate(
            zip(todo, parallel(_decoded, [(files[video],) for video in todo], jobs)), start=1
        ):
            known[marks[video]] = result
            if number % SAVED == 0:
                paths.write_json(record, known)
    finally:
        if todo:
            paths.write_json(record, known)
    rows = [known[mark] for mark in marks.values()]
    return pd.DataFrame(rows, index=list(marks), columns=["n_frames", "fps", "fault"])


def _mark(path: Path) -> str:
    stats = [file.stat() for file in (sorted(path.iterdir()) if path.is_dir() else [path])]
    latest = max((stat.st_mtime_ns for stat in stats), default=0)
    return f"{path.name}:{len(stats)}:{sum(stat.st_size for stat in stats)}:{latest}"


def _decoded(path: Path) -> tuple[int, float, str]:
    try:
        if path.is_dir():
            return sum(1 for _ in iter_frames(path)), 0.0, ""
        info = probe(path)
    except ZsadError as error:
        return 0, 0.0, str(error)
    return info.n_frames, info.fps, ""


def reconcile(table: pd.DataFrame) -> list[str]:
    """Names of the videos whose label is one frame longer or shorter than what a decoder returns (`labelled`, `n_frames`).

    Their spans are clipped to the video, and a frame that no label speaks of is normal.

    Raises:
        ZsadError: a label that is more than one frame off.
    """
    gap = (table.labelled - table.n_frames).where(table.labelled > 0, 0)
    for row in table[gap.abs() > 1].itertuples():
        raise ZsadError(
            f"{row.place}: {row.video} has labels for {row.labelled} frames, and {row.n_frames} are decoded from "
            f"{row.path}; fetch the label or the video again"
        )
    return list(table.video[gap != 0])


# --- the step ---------------------------------------------------------------------------------------------------------


def listed(data: DataSet, read: Reader, root: Path, split: str) -> pd.DataFrame:
    """The rows of `read` with the `path` of each video's file (None: missing), after every check that needs no decoding.

    Raises:
        ZsadError: see `label_file`, `find`, `check_no_leak` and the readers; the card is printed before.
    """
    try:
        found = find(data, root)
        table = unique(read(root, split, found))
    except ZsadError:
        print(card(data, split))
        raise
    check_no_leak(table.video[table.split != "test"], table.video[table.split == "test"])
    if "val" not in set(table.split):
        chosen = table.index[(table.split == "train") & (table.action == NORMAL)]
        table.loc[chosen[HELD_OUT - 1 :: HELD_OUT], "split"] = "val"
    files = dict(zip(found.video, found.path))
    return table.assign(path=[files.get(video) for video in table.video])


def prepare(data: DataSet, read: Reader, profile: Profile, folder: Path) -> dict:
    """Step `data` of the pipeline: prints the inventory, decodes every video once and writes the manifest into `folder`.

    Abnormal training videos have no spans where only their class is known: whoever learns normality takes `family` normal.

    Returns:
        metrics: counts, `split` and `split_sha256`, faults; artefacts: manifest, inventory.csv (every listed video with its fault).

    Raises:
        ZsadError: videos missing or broken (ALLOW_MISSING=1 goes on without them), or labels that do not fit.
    """
    root = locate(data, profile)
    table = listed(data, read, root, profile.split)
    there = table[table.path.notna()]
    scanned = scan(dict(zip(there.video, there.path)), paths.data() / "scans" / f"{data.key}.json", profile.jobs)
    table = table.join(scanned, on="video").fillna({"n_frames": 0, "fps": 0.0, "fault": "missing"})
    table = table.astype({"n_frames": int})
    with paths.atomic(folder / "inventory.csv") as handle:
        table[["video", "split", "action", "path", "n_frames", "fps", "fault"]].to_csv(handle, index=False)
    missing, broken = table.video[table.fault == "missing"], table[~table.fault.isin(("", "missing"))]
    whole, sound = split_hash(table), table[table.fault == ""]
    print(card(data, profile.split))
    print(f"  lists  sha256 {whole[:12]}")
    for name, rows in table.groupby("split", sort=False):
        print(f"  {name:5}  {(rows.fault == '').sum():,} of {len(rows):,} videos in {root}")
    for row in broken.itertuples():
        print(f"  broken {row.fault}")
    short = [f"{n} expected, {k} listed as {part}" for part, n, k in _short(data, profile.split, table)]
    if not profile.allow_missing and (len(missing) or len(broken) or short):
        names = [*missing[:SHOWN], *broken.video[:SHOWN], *short]
        raise ZsadError(
            f"{root}: {len(missing)} videos missing and {len(broken)} broken ({', '.join(names)}; all in "
            f"{folder / 'inventory.csv'}); get them from {data.home}, or go on without: ALLOW_MISSING=1"
        )
    if sound.empty:
        raise ZsadError(f"{root}: none of the {len(table)} listed videos is here; get them from {data.home}")
    off = reconcile(sound)
    if off:
        print(f"{len(off)} videos have labels that are one frame off: {', '.join(off)}")
    manifest = save_manifest(_rows(data, sound), folder)
    collect(profile, folder)
    metrics = {f"n_{name}": int(number) for name, number in sound.split.value_counts().items()}
    metrics |= {"split": profile.split, "split_sha256": split_hash(sound), "off_by_one": off}
    metrics |= {"missing": list(missing), "broken": list(broken.video)}
    made = load_manifest(folder).drop(columns="path").to_csv(index=False)  # where the files lie changes no number
    return {
        "metrics": metrics,
        "artefacts": {"manifest": manifest, "inventory": folder / "inventory.csv"},
        "output_hash": hashlib.sha256(made.encode()).hexdigest(),
    }


def _short(data: DataSet, split: str, table: pd.DataFrame) -> Iterable[tuple[str, int, int]]:
    """Lists that are not as long as published; held-out videos count as training videos where no list names them."""
    found = table.split.value_counts()
    for part, expected in data.counts[split].items():
        number = found.get(part, 0) + (
            found.get("val", 0) if part == "train" and "val" not in data.counts[split] else 0
        )
        if number != expected:
            yield part, expected, number


def _rows(data: DataSet, table: pd.DataFrame) -> pd.DataFrame:
    """The manifest's columns."""
    table = table.assign(
        path=table.path.map(str),
        set="main",
        family=np.where(table.action == NORMAL, "normal", data.family),
        fps=table.fps.where(table.fps > 0, data.fps),
        caption="",
    )
    scene = table.scene if "scene" in table else data.key
    table = table.assign(scene=scene, site=scene)
    return table[list(COLUMNS)]


def collect(profile: Profile, folder: Path) -> Path:
    """Writes ``data/manifests.csv``: the manifests of all prepared data sets in one table, with `data_set` and `list` in front."""
    places = {folder: (profile.dataset, profile.split)}
    for result in sorted(paths.runs().glob("*/data/result.json")):
        made = paths.read_json(result)["profile"]
        places.setdefault(result.parent, (made["dataset"], made.get("split", "official")))
    tables = []
    for place, (dataset, split) in places.items():
        if (place / "manifest.csv").is_file():
            tables.append(load_manifest(place))
            tables[-1].insert(0, "data_set", dataset)
            tables[-1].insert(1, "list", split)
    target = paths.data() / "manifests.csv"
    with paths.atomic(target) as handle:
        pd.concat(tables).drop_duplicates(["data_set", "list", "video"]).to_csv(
            handle, index=False, lineterminator="\n"
        )
    return target
