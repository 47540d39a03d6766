"""The same official file under another public name gives the same table; two that differ are one line."""

import shutil

import pytest
from test_data_sets import avenue, fill, shanghaitech, ucf_crime, xd_violence

from data_prep import avenue as avenue_set
from data_prep import inventory, ucsd_ped2
from data_prep import shanghaitech as shanghaitech_set
from data_prep import ucf_crime as ucf_set
from data_prep import xd_violence as xd_set
from zsad_lib.errors import ZsadError
from zsad_lib.files.annotations import read_captions, write_captions

SPANS = "Temporal_Anomaly_Annotation_for_Testing_Videos.txt"


@pytest.fixture
def root(tmp_path):
    (tmp_path / "set").mkdir()
    return tmp_path / "set"


def table(module, root, split="official"):
    found = inventory.videos(module.DATA, root)
    rows = module.read(root, split, found)
    assert set(rows.video) <= set(found.video)
    return rows.sort_values("video", ignore_index=True).drop(columns="place")


def rename(root, **names):
    for old, new in names.items():
        source = next(root.rglob(f"{old}*"))
        target = root / new
        target.parent.mkdir(parents=True, exist_ok=True)
        source.rename(target)


@pytest.mark.parametrize("name", ["Temporal_Anomaly_Annotation.txt", SPANS.replace("for", "For"), SPANS.upper()])
def test_ucf_crimes_annotation(root, name):
    ucf_crime(root, b"clip")
    before = table(ucf_set, root)
    text = (root / SPANS).read_text()
    fill(root, {f"Txt_formate/{name}": text.replace("  ", "\t")})
    assert table(ucf_set, root).equals(before)  # both are there and say the same
    (root / SPANS).unlink()
    assert table(ucf_set, root).equals(before)
    (root / SPANS).write_text(text.replace("4  6", "4  7"))
    with pytest.raises(ZsadError, match="differs from .*keep one of them"):
        table(ucf_set, root)
    for path in list(root.rglob("Temporal*")) + list(root.rglob(name)):
        path.unlink(missing_ok=True)
    with pytest.raises(ZsadError, match=r"no such label file .*Temporal_Anomaly_Annotation\.txt would do"):
        table(ucf_set, root)


def test_captions_of_ucf_crime_as_text(root):
    ucf_crime(root, b"clip")
    before = {split: table(ucf_set, root, split) for split in ("uca", "clean")}
    sentences = ucf_set.captions(root, before["clean"])
    for path in sorted((root / "uca").iterdir()):
        write_captions(path.with_suffix(".txt"), read_captions(path))
        assert ucf_set.captions(root, before["clean"]).equals(sentences)
        path.unlink()
    assert all(table(ucf_set, root, split).equals(before[split]) for split in before)
    assert ucf_set.captions(root, before["clean"]).equals(sentences)


def test_shanghaitech_as_released_for_the_weak_split(root):
    shanghaitech(root, b"clip")
    before = {split: table(shanghaitech_set, root, split) for split in ("weak", "one_class")}
    for old, new in (("test_frame_mask", "frame_masks"), ("frame_masks", "testframemask"), ("testframemask", "label")):
        rename(root, **{old: f"testing/{new}"})
        assert all(table(shanghaitech_set, root, split).equals(before[split]) for split in before)
    lists = {"train": ["01_001", "02_003", "02_0015"], "test": ["01_002", "01_0014"]}
    for part, names in lists.items():
        lines = "".join(f"SHANGHAI_TRAIN/frames/{name} 0 12 {int(len(name) == 7)}\n" for name in names)
        fill(root, {f"SHANGHAI/SHANGHAI_{part}.txt": lines})
    for path in root.glob("weak_split*"):
        path.unlink()
    rename(root, training="SHANGHAI/SHANGHAI_TRAIN")
    assert table(shanghaitech_set, root, "weak").equals(before["weak"])


def test_xd_violence_as_mirrors_name_it(root):
    xd_violence(root, b"clip")
    before = table(xd_set, root)
    for path in list(root.rglob("*.mp4")):
        path.rename(path.with_name(path.name.replace("#", "%23").replace("=", "%3D")))
    assert table(xd_set, root).equals(before)
    for old, new in (("test", "Test"), ("Test", "test_videos"), ("annotations.txt", "list/Annotations.txt")):
        rename(root, **{old: new})
        assert table(xd_set, root).equals(before)
    assert "City.of__#00_label_B2-G-0" in set(before.video)


def test_avenue_as_frames(root):
    avenue(root, b"clip")
    before = table(avenue_set, root)
    for part in ("training", "testing"):
        for path in sorted((root / f"{part}_videos").iterdir()):
            fill(root, {f"{part}/frames/{path.stem}/0000.jpg": b"jpg"})
        shutil.rmtree(root / f"{part}_videos")
    assert table(avenue_set, root).equals(before)


def test_ped2_in_an_archive_of_another_name(run_home, root, monkeypatch):
    (root / "UCSD_Anomaly_Dataset.v1p2" / "UCSDped2" / "Test").mkdir(parents=True)
    shutil.make_archive(str(root / "UCSD_Anomaly_Dataset.v1p2"), "zip", root, "UCSD_Anomaly_Dataset.v1p2")
    shutil.rmtree(root / "UCSD_Anomaly_Dataset.v1p2")
    assert ucsd_ped2.locate(root).name == "UCSDped2"
