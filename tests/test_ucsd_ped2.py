"""The Ped2 step on a small tree in the official layout, on the same tree with each fault, and on the real one."""

import re
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep import ucsd_ped2
from data_prep.ucsd_ped2 import locate, prepare, read_masks, read_spans
from zsad_lib.__main__ import main
from zsad_lib.config import get_profile
from zsad_lib.errors import ZsadError
from zsad_lib.files import pixel_masks
from zsad_lib.files.manifest import frame_labels, load_manifest

SPANS = ["2:3", "1:4, 6:6"]


def write_images(folder, count, suffix, marked=()):
    folder.mkdir(parents=True)
    for i in range(1, count + 1):
        image = np.zeros((12, 18), np.uint8)
        image[2:4, 3:6] = 255 * (i in marked) if suffix == ".bmp" else i
        Image.fromarray(image).save(folder / f"{i:03d}{suffix}")


@pytest.fixture
def tree(tmp_path, run_home, monkeypatch):
    """Three training and two test clips: abnormal frames 2-3 of Test001 and 1-4, 6 of Test002."""
    monkeypatch.setattr(ucsd_ped2, "FRAMES", {"Train": (3, 4, 3), "Test": (5, 6)})
    monkeypatch.setattr(ucsd_ped2, "ABNORMAL", 7)
    monkeypatch.setattr(ucsd_ped2, "SIZE", (12, 18))
    monkeypatch.setattr(ucsd_ped2, "N_FIT", 2)
    root = tmp_path / "download" / "UCSDped2"
    for part, counts in ucsd_ped2.FRAMES.items():
        for number, count in enumerate(counts, start=1):
            write_images(root / part / f"{part}{number:03d}", count, ".tif")
    write_images(root / "Test" / "Test001_gt", 5, ".bmp", marked=(2, 3))
    write_images(root / "Test" / "Test002_gt", 6, ".bmp", marked=(1, 2, 3, 4, 6))
    lines = ["TestVideoFile = {};", *(f"TestVideoFile{{end+1}}.gt_frame = [{span}];" for span in SPANS)]
    (root / "Test" / "UCSDped2.m").write_text("\n".join(lines) + "\n")
    return root


def run(root, folder):
    return prepare(get_profile("ped2", data_root=str(root)), folder)


def test_good_tree(tree, tmp_path):
    result = run(tree.parent, tmp_path / "step")
    table = load_manifest(tmp_path / "step")
    assert result["metrics"]["n_abnormal_frames"] == 7 and result["metrics"]["mask_exceptions"] == []
    assert table["split"].tolist() == ["train", "train", "val", "test", "test"]
    assert table["spans"].tolist() == ["", "", "", "1-2", "0-3;5-5"]
    assert table["family"].tolist() == ["normal"] * 3 + ["semantic"] * 2
    assert table["path"][4] == str(tree / "Test" / "Test002")
    assert not list((tmp_path / "step").rglob("*.tif"))
    for row in table[table["split"] == "test"].itertuples():
        masks = read_masks(row.path)
        assert masks.shape == (row.n_frames, 12, 18) and masks.dtype == bool
        assert np.array_equal(masks.any((1, 2)), frame_labels(row))
        assert np.array_equal(pixel_masks.read_masks(tmp_path / "step" / "masks" / f"{row.video}.npz"), masks)


def test_the_content_is_checked_ever_after(tree, tmp_path):
    first = run(tree, tmp_path / "step")
    copy = shutil.copytree(tree, tmp_path / "copy" / "UCSDped2")
    assert run(copy, tmp_path / "other")["output_hash"] == first["output_hash"]  # not where it lies, what it holds
    Image.fromarray(np.ones((12, 18), np.uint8)).save(tree / "Train" / "Train002" / "003.tif")
    with pytest.raises(ZsadError, match="Train/Train002: changed since"):
        run(tree, tmp_path / "step")


def test_png_masks_and_jpg_frames_are_taken_too(tree, tmp_path):
    for file in [*tree.rglob("*.tif"), *tree.rglob("*.bmp")]:
        Image.open(file).save(file.with_suffix(".png" if file.suffix == ".bmp" else ".jpg"))
        file.unlink()
    assert run(tree, tmp_path / "step")["metrics"]["n_abnormal_frames"] == 7


def test_contradicting_masks_are_reported(tree, tmp_path):
    Image.fromarray(np.zeros((12, 18), np.uint8)).save(tree / "Test" / "Test002_gt" / "006.bmp")
    assert run(tree, tmp_path / "step")["metrics"]["mask_exceptions"] == ["Test002/006"]


def spans_file(tree, text):
    (tree / "Test" / "UCSDped2.m").write_text(text)


@pytest.mark.parametrize(
    "fault, message",
    [
        (lambda t: shutil.rmtree(t / "Train" / "Train002"), "Train002: this folder of frames is missing"),
        (lambda t: shutil.rmtree(t / "Test" / "Test001_gt"), "Test001_gt: this folder"),
        (lambda t: (t / "Test" / "Test002" / "004.tif").unlink(), "Test002: frame 004 is missing"),
        (lambda t: shutil.copy(t / "Train" / "Train001" / "001.tif", t / "Train" / "Train001" / "009.tif"), "4 frames"),
        (lambda t: (t / "Train" / "Train001" / "002.tif").write_bytes(b"II*"), "002.tif: not a readable image"),
        (lambda t: Image.new("L", (9, 9)).save(t / "Train" / "Train003" / "001.tif"), "9 x 9 pixels"),
        (lambda t: (t / "Test" / "UCSDped2.m").unlink(), "UCSDped2.m: no such label file"),
        (lambda t: spans_file(t, ""), "UCSDped2.m: the label file is empty"),
        (lambda t: spans_file(t, "TestVideoFile{end+1}.gt_frame = [two];"), "UCSDped2.m:1: expected"),
        (lambda t: spans_file(t, "TestVideoFile{end+1}.gt_frame = [1-2];"), "UCSDped2.m:1: expected"),
        (lambda t: spans_file(t, "TestVideoFile{end+1}.gt_frame = [0:2];\n" * 2), "Test001: span 0:2 lies outside"),
        (lambda t: spans_file(t, "TestVideoFile{end+1}.gt_frame = [1:6];\n" * 2), "Test001: span 1:6 lies outside"),
        (lambda t: spans_file(t, "TestVideoFile{end+1}.gt_frame = [1:2];\n" * 2), "4 abnormal frames, expected 7"),
    ],
)
def test_each_fault_is_one_clear_line(tree, tmp_path, fault, message):
    fault(tree)
    with pytest.raises(ZsadError, match=message.replace("[", r"\[")) as error:
        run(tree, tmp_path / "step")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "step" / "manifest.csv").exists()


@pytest.mark.parametrize("inside", ["UCSDped2", "UCSD_Anomaly_Dataset.v1p2/UCSDped2"])
def test_the_official_archive_is_unpacked_once(tree, tmp_path, run_home, inside):
    archive = tmp_path / "mirror" / ucsd_ped2.ARCHIVE
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as file:
        file.add(tree, inside)
        file.add(tree / "Train" / "Train001" / "001.tif", inside.replace("ped2", "ped1") + "/001.tif")
    shutil.rmtree(tree)
    root = locate(archive)
    assert root == run_home / "data" / "ucsd_ped2" / "unpacked" / inside
    assert not list((run_home / "data").rglob("UCSDped1"))
    archive.write_bytes(b"no longer read")
    assert locate(archive.parent) == root and run(archive, tmp_path / "step")["metrics"]["n_train_frames"] == 10


def test_without_the_data_it_says_what_to_do(run_home, tmp_path):
    for given in ("", str(tmp_path), str(tmp_path / "nowhere")):
        with pytest.raises(ZsadError, match=r"UCSD Ped2.*svcl\.ucsd\.edu.*DATA_ROOT=") as error:
            locate(given)
        assert "\n" not in str(error.value)


def test_the_published_counts():
    assert sum(ucsd_ped2.FRAMES["Train"]) == 2550 and len(ucsd_ped2.FRAMES["Train"]) == 16
    assert sum(ucsd_ped2.FRAMES["Test"]) == 2010 and len(ucsd_ped2.FRAMES["Test"]) == 12


@pytest.mark.data
def test_the_real_tree(shared, run_home, tmp_path):
    result = run(shared / "data" / "ucsd_ped2", tmp_path / "step")
    assert result["metrics"]["n_abnormal_frames"] == 1648 and result["metrics"]["mask_exceptions"] == []
    table = load_manifest(tmp_path / "step")
    assert table["split"].value_counts().to_dict() == {"train": 13, "test": 12, "val": 3}
    labels = {row.video: frame_labels(row) for row in table.itertuples()}
    assert sum(map(len, labels.values())) == 4560
    assert [v for v in labels if labels[v].all()] == ["Test008", "Test009", "Test010", "Test011"]
    assert read_spans(shared / "data" / "ucsd_ped2" / "UCSDped2" / "Test" / "UCSDped2.m")[1] == [(95, 180)]


@pytest.mark.data
@pytest.mark.thorough
def test_every_notebook_of_the_profile_runs(shared, run_home):
    """The other tests run notebooks on the benchmark, and so never their lines for this camera."""
    home = Path(__file__).parents[1]
    listed = re.search(r"^NOTEBOOKS_ped2 := ((?:.*\\\n)*.*)", (home / "Makefile").read_text(encoding="utf-8"), re.M)[1]
    books = [str(home / "notebooks" / f"{name}.ipynb") for name in listed.replace("\\", "").split()]
    settings = [f"DATA_ROOT={shared / 'data' / 'ucsd_ped2'}", "seeds=0,1", "train_steps=1"]
    assert len(books) > 5 and main(["run", "--profile", "ped2", *settings, *books]) == 0
