"""UCSD Ped2, a walkway seen from a fixed camera, bicycles, skateboards and carts: Mahadevan, Li, Bhalodia, Vasconcelos,
"Anomaly Detection in Crowded Scenes", CVPR 2010. Below UCSDped2/: Train/Train001..016/NNN.tif, 2,550 normal frames;
Test/Test001..012/NNN.tif, 2,010 frames, 1,648 abnormal (82 %); Test/Test001..012_gt/NNN.bmp, pixel masks;
Test/UCSDped2.m, abnormal spans, 1-based and inclusive. Used by `make reproduce PROFILE=ped2 DATA_ROOT=...`.

Notebook: 01_prepare_data
"""

import hashlib
import re
from pathlib import Path

import numpy as np
import pandas as pd

from zsad_lib.config import Profile
from zsad_lib.errors import ZsadError
from zsad_lib.files import paths
from zsad_lib.files.annotations import lines
from zsad_lib.files.downloads import sha256_file, unpack
from zsad_lib.files.frame_folders import list_frames
from zsad_lib.files.manifest import save_manifest
from zsad_lib.files.pixel_masks import FOLDER, write_masks
from zsad_lib.files.spans import format_spans
from zsad_lib.files.video import iter_frames

HOME = "http://www.svcl.ucsd.edu/projects/anomaly/dataset.htm"
ARCHIVE = "UCSD_Anomaly_Dataset.tar.gz"
FRAMES = {  # per clip, in order: 2,550 and 2,010
    "Train": (120, 150, 150, 180, 180, 150, 150, 120, 180, 180, 180, 180, 180, 150, 150, 150),
    "Test": (180, 180, 150, 180, 150, 180, 180, 180, 120, 150, 180, 180),
}
ABNORMAL = 1648  # test frames
SIZE = (240, 360)  # height, width in pixels
FPS = 10.0  # about; the frames carry no time
N_FIT = 13  # training clips that are fitted on; the rest is held-out normal video


def prepare(profile: Profile, folder: Path) -> dict:
    """Checks the data set and writes its manifest into `folder` (step `data` of the pipeline).

    Args:
        profile: `data_root` names the folder with UCSDped2/, UCSDped2/ itself, or the official archive (or its folder).
            An archive is unpacked to data/ucsd_ped2 once.
        folder: the step's folder.

    Returns:
        metrics: counts, content hash, and `mask_exceptions`: frames (Test001/012, 1-based) whose mask contradicts
        their label; artefacts: the manifest and the masks of the test clips; output_hash: of all that later steps
        depend on.

    Raises:
        ZsadError: the data set is missing, incomplete, damaged, or not what it was when it was first seen.
    """
    root = locate(profile.data_root)
    spans = read_spans(root / "Test" / "UCSDped2.m")
    rows, hashes, exceptions = [], {}, []
    for part, counts in FRAMES.items():
        for number, count in enumerate(counts, start=1):
            clip = root / part / f"{part}{number:03d}"
            hashes[f"{part}/{clip.name}"] = _check_frames(clip, count)
            span = []
            if part == "Test":
                span = [(first - 1, last - 1) for first, last in spans[number - 1]]
                masks = clip.with_name(clip.name + "_gt")
                hashes[f"{part}/{masks.name}"] = _check_frames(masks, count)
                truth = read_masks(clip)
                exceptions += [f"{clip.name}/{i + 1:03d}" for i in _contradictions(truth, span)]
                write_masks(folder / FOLDER / f"{clip.name}.npz", truth)
            split = "test" if part == "Test" else "train" if number <= N_FIT else "val"
            rows.append((clip.name, str(clip), split, span, count))
    n_abnormal = sum(last - first + 1 for row in rows for first, last in row[3])
    if n_abnormal != ABNORMAL:
        raise ZsadError(f"{root}/Test/UCSDped2.m: {n_abnormal} abnormal frames, expected {ABNORMAL}; fetch it again")
    hashes["Test/UCSDped2.m"] = sha256_file(root / "Test" / "UCSDped2.m")
    table, content = _table(rows), _verify_content(root, hashes)
    manifest = save_manifest(table, folder)
    metrics = {
        "n_train_frames": sum(FRAMES["Train"]),
        "n_test_frames": sum(FRAMES["Test"]),
        "n_abnormal_frames": n_abnormal,
        "mask_exceptions": exceptions,
        "content_sha256": content,
    }
    text = table.drop(columns="path").to_csv(index=False) + content  # where the frames lie changes no number
    artefacts = {"manifest": manifest, "masks": folder / FOLDER}
    return {"metrics": metrics, "artefacts": artefacts, "output_hash": hashlib.sha256(text.encode()).hexdigest()}


def locate(data_root: str | Path) -> Path:
    """Finds UCSDped2/ from DATA_ROOT, unpacking the official archive where that is what is there.

    Raises:
        ZsadError: it is not there; says what it is, where to get it and how to pass it.
    """
    home = paths.data() / "ucsd_ped2"
    given = Path(data_root).expanduser().resolve() if data_root else home
    archives = [given] if given.is_file() else sorted(given.glob("UCSD_Anomaly_Dataset*.[tz]*"))  # .v1p2.zip, .tar
    archive, unpacked = archives[0] if archives else given / ARCHIVE, home / "unpacked"
    if archive.is_file() and not unpacked.exists():
        unpack(archive, unpacked, keep=lambda name: "UCSDped2" in Path(name).parts)
    for parent in (given, unpacked) if archive.is_file() else (given,):
        for pattern in ("UCSDped2", "*/UCSDped2", "*/*/UCSDped2"):
            for root in (parent, *sorted(parent.glob(pattern))):
                if root.name == "UCSDped2" and (root / "Test").is_dir():
                    return root
    raise ZsadError(
        f"{given}: no UCSD Ped2 here; get {ARCHIVE} (0.7 GB, research use) from {HOME} and pass "
        "DATA_ROOT=<folder that holds it, or UCSDped2/>"
    )


def read_spans(path: str | Path) -> list[list[tuple[int, int]]]:
    """Abnormal spans of the twelve test clips from UCSDped2.m: (first, last), 1-based and inclusive as in the file.

    Raises:
        ZsadError: missing or empty file, a line that does not fit, another number of clips, or a span outside its clip.
    """
    clips = []
    for place, line in lines(path):
        if re.match(r"%|TestVideoFile\s*=\s*\{\s*\}", line):
            continue
        match = re.fullmatch(r"TestVideoFile\{end\+1\}\.gt_frame\s*=\s*\[([\d:,;\s]+)\]\s*;?\s*(%.*)?", line)
        texts = re.split(r"[,;\s]+", match[1].strip()) if match else [""]
        spans = [re.fullmatch(r"(\d+):(\d+)", text) for text in texts]
        if None in spans:
            raise ZsadError(f"{place}: expected `TestVideoFile{{end+1}}.gt_frame = [first:last];`, got {line!r}")
        clips.append([(int(span[1]), int(span[2])) for span in spans])
    if len(clips) != len(FRAMES["Test"]):
        raise ZsadError(f"{path}: labels of {len(clips)} clips, expected {len(FRAMES['Test'])}; fetch it again")
    for number, (spans, count) in enumerate(zip(clips, FRAMES["Test"]), start=1):
        for first, last in spans:
            if not 1 <= first <= last <= count:
                raise ZsadError(f"{path}: Test{number:03d}: span {first}:{last} lies outside the frames 1..{count}")
    return clips


def read_masks(clip: str | Path) -> np.ndarray:
    """Pixel truth of a test clip from the folder beside it: bool [T, H, W], True = abnormal."""
    clip = Path(clip)
    return np.stack([frame[..., 0] > 0 for frame in iter_frames(clip.with_name(clip.name + "_gt"))])


def _table(rows: list[tuple]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["video", "path", "split", "spans", "n_frames"])
    abnormal = table["spans"].map(bool)
    return table.assign(
        spans=table["spans"].map(format_spans),
        set="main",
        scene="walkway",
        site="ped2",
        family=np.where(abnormal, "semantic", "normal"),  # what moves there is no pedestrian
        action=np.where(abnormal, "not walking", "walking"),
        fps=FPS,
        caption="",
    )


def _check_frames(folder: Path, count: int) -> str:
    """Hash over the frames' bytes; ZsadError unless they are numbered 1..count, readable and of the right size."""
    if not folder.is_dir():
        raise ZsadError(f"{folder}: this folder of frames is missing; unpack {ARCHIVE} again")
    files = list_frames(folder)
    numbers = {int(file.stem) for file in files if file.stem.isdecimal()}
    if absent := sorted(set(range(1, count + 1)) - numbers):
        raise ZsadError(f"{folder}: frame {absent[0]:03d} is missing ({count} expected); unpack {ARCHIVE} again")
    if len(files) != count:
        raise ZsadError(f"{folder}: {len(files)} frames, expected {count}; remove what does not belong there")
    for file, frame in zip(files, iter_frames(folder)):
        if frame.shape[:2] != SIZE:
            raise ZsadError(f"{file}: {frame.shape[1]} x {frame.shape[0]} pixels, expected {SIZE[1]} x {SIZE[0]}")
    digest = hashlib.sha256()
    for file in files:
        digest.update(bytes.fromhex(sha256_file(file)))
    return digest.hexdigest()


def _contradictions(masks: np.ndarray, spans: list[tuple[int, int]]) -> np.ndarray:
    """Frames, 0-based, that are labelled abnormal with an empty mask, or normal with marked pixels."""
    labels = np.zeros(len(masks), bool)
    for first, last in spans:
        labels[first : last + 1] = True
    return np.flatnonzero(masks.any((1, 2)) != labels)


def _verify_content(root: Path, hashes: dict[str, str]) -> str:
    """Records the hash of each part of this copy when it is first seen and compares ever after; hash of all parts."""
    record = paths.data() / "checksums" / "ucsd_ped2.json"
    recorded = paths.read_json(record) if record.exists() else {}
    first_hashes = recorded.setdefault(str(root), hashes)
    for name, digest in hashes.items():
        if first_hashes.get(name) != digest:
            advice = f"restore it, or delete {record} to accept it"
            raise ZsadError(f"{root / name}: changed since it was first seen; {advice}")
    paths.write_json(record, recorded)
    return hashlib.sha256("".join(hashes[name] for name in sorted(hashes)).encode()).hexdigest()
