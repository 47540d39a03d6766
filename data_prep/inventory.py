"""What is there of a real data set, what is missing, and where to get it: decoded once, reconciled with its labels, one
manifest.

Each data set's module holds only its facts (`DataSet`) and a reader of its labels, ``read(root, split, found)``: one
row per listed video with `video`, `split` (train | val | test), `action`, `spans`, `labelled` (frames that the label
speaks of; 0: it does not say), `place` ("file:line") and, where cameras are told apart, `scene`. Everything else is
here. Nothing is ever deleted.
"""

import dataclasses
import hashlib
import os
import re
import urllib.parse
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from data_prep.leaks import check_no_leak, split_hash
from zsad_lib.config import Profile
from zsad_lib.errors import ZsadError
from zsad_lib.files import paths
from zsad_lib.files.annotations import unique
from zsad_lib.files.clip_feature_files import FEATURE_SUFFIXES, load_clip_features
from zsad_lib.files.manifest import COLUMNS, load_manifest, save_manifest
from zsad_lib.files.spans import labels_to_spans
from zsad_lib.files.video import iter_frames, probe
from zsad_lib.files.video_folders import why_no_video
from zsad_lib.pipeline.progress import report_progress
from zsad_lib.processes import parallel

NORMAL = "Normal"
HELD_OUT = 10  # where a data set has no validation list, every tenth normal training video is held out
SAVED = 20  # decoded videos between two notes of them, so that an interrupted scan goes on where it was
SMALL = 1 << 20  # bytes; copies of smaller files are compared byte by byte
FEATURES = r"[^/]*features[^/]*/(?:.*/)?([^/]+)\.(?:npy|safetensors)"  # frame features that stand for a video
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


def locate(data: DataSet, profile: Profile) -> Path:
    """The folder with the data set: DATA_ROOT, or data/<key>; where there is none, prints what belongs there."""
    root = Path(profile.data_root).expanduser().absolute() if profile.data_root else paths.data() / data.key
    if not root.is_dir():
        print(card(data, profile.split))
        advice = f"get it from {data.home} and pass DATA_ROOT=<folder that holds it>"
        raise ZsadError(f"{root}: no {data.title} here; {advice}")
    return root


def card(data: DataSet, split: str) -> str:
    """What the data set is, what is expected, and where to get it."""
    counts = ", ".join(f"{number:,} {name}" for name, number in data.counts[split].items())
    lines = [f"{data.title}, split {split}: {counts} videos", f"  home   {data.home}", f"  terms  {data.terms}"]
    lines += [f"  cite   {data.paper}", "  below DATA_ROOT, at any depth:", *(f"    {line}" for line in data.layout)]
    return "\n".join(lines)


def find(root: Path, pattern: str) -> dict[str, Path]:
    """Name -> file or folder, of all below `root` whose path ends as `pattern` says; its group is the name.

    Releases that come in parts may lie side by side, copies count once, and a file goes before a folder of frames of
    the same name.

    Raises:
        ZsadError: two different files of one name.
    """
    compiled, found, walked = re.compile(rf"(?:.*/)?{pattern}"), {}, set()
    for folder, folders, files in os.walk(root, followlinks=True):
        if (real := os.path.realpath(folder)) in walked:  # links may lead in a circle
            folders.clear()
            continue
        walked.add(real)
        folders[:] = sorted(name for name in folders if not why_no_video(name))
        for name in (*sorted(files), *folders):
            match = compiled.fullmatch((path := Path(folder, name)).relative_to(root).as_posix())
            if not match or why_no_video(name):
                continue
            first = found.setdefault(match[1], path)
            if first.is_file() and path.is_file() and not _same(first, path):
                raise ZsadError(f"{path}: differs from {first}, which has the same name; keep one of them")
            if first.is_dir() and path.is_file():
                found[match[1]] = path
    return found


def _same(one: Path, other: Path) -> bool:
    """Equal files; of videos their size tells enough."""
    size = one.stat().st_size
    return size == other.stat().st_size and (size > SMALL or one.read_bytes() == other.read_bytes())


def label_file(root: str | Path, *names: str) -> Path:
    """A label file anywhere below `root`, by its name, in small letters or in capitals; some have several public names.

    Raises:
        ZsadError: there is none, or there are two that do not say the same.
    """
    files = list(find(Path(root), f"(?i:({'|'.join(map(re.escape, names))}))").values())
    if not files:
        other = f" ({' or '.join(names[1:])} would do)" if names[1:] else ""
        raise ZsadError(f"{Path(root) / names[0]}: no such label file here or in a folder below{other}")
    for path in files[1:]:
        if (
            path.suffix.lower() == files[0].suffix.lower()
            and path.read_bytes().split() != files[0].read_bytes().split()
        ):
            raise ZsadError(f"{path}: differs from {files[0]}, which is the same file by its name; keep one of them")
    return min(files, key=lambda path: [name.lower() for name in names].index(path.name.lower()))


def videos(data: DataSet, root: Path) -> pd.DataFrame:
    """All videos below `root` that the patterns know: `part`, `video`, `path`; a path belongs to the first part that
    matches."""
    rows: dict[Path, tuple[str, str]] = {}
    for part, pattern in data.files.items():
        for name, path in sorted(find(root, pattern).items()):
            name = urllib.parse.unquote(name)  # a mirror's address as the file's name: %23 for #
            rows.setdefault(path, (part, f"{part}_{name}" if data.numbered else name))
    return pd.DataFrame([(*row, path) for path, row in rows.items()], columns=["part", "video", "path"])


def array_spans(values: np.ndarray, place: str) -> tuple[str, int]:
    """Spans and length of frame labels [T] of 0 and 1."""
    values = np.asarray(values)
    if values.ndim != 1 or not len(values) or values.dtype.kind not in "buif" or not np.isin(values, (0, 1)).all():
        raise ZsadError(f"{place}: expected a row of frame labels 0 and 1, got {values.dtype} {values.shape}")
    return labels_to_spans(values), len(values)


def scan(files: Mapping[str, Path], record: Path, jobs: int = 1) -> pd.DataFrame:
    """Decodes every video once: index video, `n_frames`, `fps` and `fault` ("" = sound).

    What has been decoded is noted in `record` by name, size and time of change, and not decoded again.
    """
    noted = paths.read_json(record) if record.exists() else {}
    marks = {video: _mark(path) for video, path in files.items()}
    todo = [video for video, mark in marks.items() if mark not in noted]
    if todo:
        print(f"decoding {len(todo)} of {len(files)} videos once, to count their frames", flush=True)
        try:
            decoded = parallel(_decoded, [(files[video],) for video in todo], jobs)
            results = report_progress(decoded, "videos decoded", len(todo))
            for number, (result, video) in enumerate(zip(results, todo), start=1):
                noted[marks[video]] = result
                if number % SAVED == 0:
                    paths.write_json(record, noted)
        finally:
            paths.write_json(record, noted)
    rows = [noted[mark] for mark in marks.values()]
    return pd.DataFrame(rows, index=list(marks), columns=["n_frames", "fps", "fault"])


def _mark(path: Path) -> str:
    stats = [file.stat() for file in (sorted(path.iterdir()) if path.is_dir() else [path])]
    latest = max((stat.st_mtime_ns for stat in stats), default=0)
    return f"{path.name}:{len(stats)}:{sum(stat.st_size for stat in stats)}:{latest}"


def _decoded(path: Path) -> tuple[int, float, str]:
    try:
        if path.suffix in FEATURE_SUFFIXES:
            return len(load_clip_features(path)), 0.0, ""
        if path.is_dir():
            return sum(1 for _ in iter_frames(path)), 0.0, ""
        info = probe(path)
    except ZsadError as error:
        return 0, 0.0, str(error)
    return info.n_frames, info.fps, ""


def reconcile(table: pd.DataFrame) -> list[str]:
    """Names of the videos whose label is one frame longer or shorter than what a decoder returns (`labelled`,
    `n_frames`).

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


def listed(data: DataSet, read: Reader, root: Path, split: str) -> pd.DataFrame:
    """The rows of `read` with the `path` of each video's file (None: missing), after every check that needs no
    decoding.

    Where there is no video, a file of frame features of its name does, below a folder with "features" in its name.

    Raises:
        ZsadError: see `label_file`, `find`, `check_no_leak` and the readers; the card is printed before.
    """
    try:
        found = videos(data, root)
        table = unique(read(root, split, found))
    except ZsadError:
        print(card(data, split))
        raise
    check_no_leak(table.video[table.split != "test"], table.video[table.split == "test"])
    if "val" not in set(table.split):
        normal = table.index[(table.split == "train") & (table.action == NORMAL)]
        table.loc[normal[HELD_OUT - 1 :: HELD_OUT], "split"] = "val"
    files = find(root, FEATURES) | dict(zip(found.video, found.path))
    return table.assign(path=[files.get(video) for video in table.video])


def prepare(data: DataSet, read: Reader, profile: Profile, folder: Path) -> dict:
    """Step `data` of the pipeline: prints the inventory, decodes every video once and writes the manifest into
    `folder`.

    Abnormal training videos have no spans where only their class is known: whoever learns normality takes `family`
    normal.

    Returns:
        metrics: counts, `split` and `split_sha256`, faults; artefacts: manifest, inventory.csv (every listed video with
            its fault).

    Raises:
        ZsadError: videos missing or broken (ALLOW_MISSING=1 goes on without them), or labels that do not fit.
    """
    root = locate(data, profile)
    table = listed(data, read, root, profile.split)
    there = table[table.path.notna()]
    scanned = scan(dict(zip(there.video, there.path)), paths.data() / "scans" / f"{data.key}.json", profile.jobs)
    absent = {"n_frames": 0, "fps": 0.0, "fault": "missing"}
    table = table.join(scanned, on="video").fillna(absent).astype({"n_frames": int})
    columns = ["video", "split", "action", "path", "n_frames", "fps", "fault"]
    inventory = paths.write_text(folder / "inventory.csv", table[columns].to_csv(index=False, lineterminator="\n"))
    print(card(data, profile.split))
    for name, rows in table.groupby("split", sort=False):
        print(f"  {name:6} {(rows.fault == '').sum():,} of {len(rows):,} listed videos are sound, below {root}")
    gaps, sound = _gaps(data, profile.split, table), table[table.fault == ""]
    for fault in table.fault[table.video.isin(gaps["broken"])]:
        print(f"  broken {fault}")
    if any(gaps.values()) and not profile.allow_missing:
        names = ", ".join(name for kind in gaps.values() for name in kind[:SHOWN])
        raise ZsadError(
            f"{root}: {len(gaps['missing'])} videos missing, {len(gaps['broken'])} broken ({names}; all in "
            f"{inventory}); get them from {data.home}, or go on without: ALLOW_MISSING=1"
        )
    if sound.empty:
        raise ZsadError(f"{root}: none of the {len(table)} listed videos is here; get them from {data.home}")
    print(f"  lists  sha256 {split_hash(sound)[:12]}")
    if off := reconcile(sound):
        print(f"{len(off)} videos have labels that are one frame off: {', '.join(off)}")
    manifest = save_manifest(_rows(data, sound), folder)
    collect(profile, folder)
    metrics = {f"n_{name}": int(number) for name, number in sound.split.value_counts().items()}
    metrics |= {"split": profile.split, "split_sha256": split_hash(sound), "off_by_one": off, **gaps}
    text = load_manifest(folder).drop(columns="path").to_csv(index=False)  # where the files lie changes no number
    artefacts = {"manifest": manifest, "inventory": inventory}
    return {"metrics": metrics, "artefacts": artefacts, "output_hash": hashlib.sha256(text.encode()).hexdigest()}


def _gaps(data: DataSet, split: str, table: pd.DataFrame) -> dict[str, list[str]]:
    """Videos that are missing or broken, and lists that are not as long as published."""
    held_out = {} if "val" in data.counts[split] else {"val": "train"}
    lists = table.split.replace(held_out).value_counts()
    counts = ((part, lists.get(part, 0), expected) for part, expected in data.counts[split].items())
    return {
        "missing": list(table.video[table.fault == "missing"]),
        "broken": list(table.video[~table.fault.isin(("", "missing"))]),
        "short": [f"{n} of {expected} {part} videos listed" for part, n, expected in counts if n != expected],
    }


def _rows(data: DataSet, table: pd.DataFrame) -> pd.DataFrame:
    """The manifest's columns."""
    scene = table.scene if "scene" in table else data.key
    family = np.where(table.action == NORMAL, "normal", data.family)
    fps = table.fps.where(table.fps > 0, data.fps)
    table = table.assign(path=table.path.map(str), scene=scene, site=scene, family=family, fps=fps)
    return table.assign(set="main", kinds="", caption="")[list(COLUMNS)]


def collect(profile: Profile, folder: Path) -> Path:
    """Writes ``data/manifests.parquet``: the manifests of all prepared real data sets in one table, with `data_set` and
    `list` in front."""
    folders = {folder: (profile.dataset, profile.split)}
    for result in sorted(paths.runs().glob("*/data/result.json")):
        settings = paths.read_json(result, "profile")["profile"]
        if settings["dataset"] != "scene_rules":  # rendered, not prepared
            folders.setdefault(result.parent, (settings["dataset"], settings.get("split", "official")))
    tables = []
    for prepared, (dataset, split) in folders.items():
        if (prepared / "manifest.csv").is_file():
            tables.append(load_manifest(prepared))
            tables[-1].insert(0, "data_set", dataset)
            tables[-1].insert(1, "list", split)
    target = paths.data() / "manifests.parquet"
    with paths.atomic(target, mode=None) as temporary:
        pd.concat(tables).drop_duplicates(["data_set", "list", "video"]).to_parquet(temporary, index=False)
    return target
