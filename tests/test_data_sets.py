"""Every real data set as a tiny tree in its official layout: whole, incomplete, mislabelled, damaged."""

import dataclasses
import importlib
import json
from shutil import copy

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.io import savemat

from data_prep import inventory
from zsad_lib.__main__ import main
from zsad_lib.config import PROFILES, get_profile
from zsad_lib.errors import ZsadError
from zsad_lib.files.manifest import load_manifest
from zsad_lib.files.video import write_video
from zsad_lib.pipeline import run_step

FRAMES = 12  # of every video
EVENT = [0] * 4 + [1] * 3 + [0] * 5  # spans "4-6"
SCENES = {"avenue": ["avenue"], "shanghaitech": ["01", "02"], "nwpu_campus": ["D001", "D002"], "ubnormal": ["1", "2"]}


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "clip.avi"
    write_video(path, (np.full((32, 32, 3), 9 * i, np.uint8) for i in range(FRAMES)), fps=10)
    return path.read_bytes()


def fill(root, files):
    """Writes name -> bytes, text or JSON."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        content = json.dumps(content) if isinstance(content, dict) else content
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def ucf_crime(root, clip):
    train = [
        "Abuse/Abuse001",
        "Training_Normal_Videos_Anomaly/Normal_Videos001",
        "Training_Normal_Videos_Anomaly/Normal_Videos002",
    ]
    test = ["Arson/Arson002", "Testing_Normal_Videos_Anomaly/Normal_Videos_003"]
    fill(root, {f"Part-{i % 2}/{name}_x264.mp4": clip for i, name in enumerate(train + test)})
    fill(root, {"Part-9/Normal_Videos_event/Normal_Videos001_x264.mp4": clip})  # the release holds copies
    fill(root / "lists", {f"Anomaly_{part}.txt": "".join(f"{n}_x264.mp4\n" for n in names) for part, names in
                          (("Train", train), ("Test", test))})  # fmt: skip
    spans = "Arson002_x264.mp4  Arson  4  6  -1  -1\nNormal_Videos_003_x264.mp4  Normal  -1  -1  -1  -1\n"
    said = lambda *names: {f"{n}_x264": {"timestamps": [[0, 1]], "sentences": [f"about {n}"]} for n in names}
    uca = {
        "Train": ("Abuse001", "Normal_Videos001", "Normal_Videos_003"),
        "Val": ("Normal_Videos002",),
        "Test": ("Arson002",),
    }
    fill(root, {"Temporal_Anomaly_Annotation_for_Testing_Videos.txt": spans})
    fill(root / "uca", {f"UCFCrime_{part}.json": said(*names) for part, names in uca.items()})


def shanghaitech(root, clip):
    fill(root / "training" / "videos", {f"01_00{i}.avi": clip for i in (1, 2)} | {"02_003.avi": clip})
    for video in ("01_0014", "02_0015"):
        folder = root / "testing" / "frames" / video
        folder.mkdir(parents=True)
        for i in range(FRAMES):
            Image.new("RGB", (16, 16), (i, i, i)).save(folder / f"{i:03d}.jpg")
        (root / "testing" / "test_frame_mask").mkdir(exist_ok=True)
        np.save(root / "testing" / "test_frame_mask" / f"{video}.npy", np.array(EVENT, np.uint8))
    fill(root, {"weak_split_shanghaitech.training.csv": "video-id\n01_001\n02_003\n02_0015\n"})
    fill(root, {"weak_split_shanghaitech.testing.csv": "video-id\n01_002\n01_0014\n"})


def xd_violence(root, clip):
    fill(
        root,
        {f"{n}/v={i}.x__#1_label_{c}.mp4": clip for i, (n, c) in enumerate((("1-1004", "A"), ("1005-2004", "B1-0-0")))},
    )
    fill(root, {"test/City.of__#00_label_B2-G-0.mp4": clip, "test/v=c__#1_label_A.mp4": clip})
    fill(root, {"annotations.txt": "City.of__#00_label_B2-G-0 4 6\n"})


def avenue(root, clip):
    fill(
        root,
        {f"training_videos/{i:02d}.avi": clip for i in (1, 2)} | {f"testing_videos/{i:02d}.avi": clip for i in (1, 2)},
    )
    folder = root / "ground_truth_demo" / "testing_label_mask"
    folder.mkdir(parents=True)
    for number, labels in ((1, EVENT), (2, [0] * FRAMES)):
        savemat(folder / f"{number}_label.mat", {"volLabel": cells([np.full((4, 6), v, np.uint8) for v in labels])})


def cells(items):
    row = np.empty((1, len(items)), object)
    row[0, :] = items
    return row


def nwpu_campus(root, clip):
    fill(
        root,
        {f"videos/Train/D00{i}_07.avi": clip for i in (1, 2)} | {f"videos/Test/D00{i}_07.avi": clip for i in (1, 2)},
    )
    np.savez(root / "NWPU_Campus_gt.npz", D001_07=np.array(EVENT), D002_07=np.zeros(FRAMES))


def ubnormal(root, clip):
    parts = {"training": (1, 1), "validation": (2, 1), "test": (2, 2)}
    for part, (scene, scenario) in parts.items():
        for kind in ("normal", "abnormal"):
            video = f"{kind}_scene_{scene}_scenario_{scenario}"
            fill(root, {f"Scene{scene}/{video}.mp4": clip, f"scripts/{kind}_{part}_video_names.txt": video + "\n"})
        fill(root, {f"Scene{scene}/{video}_annotations/{video}_tracks.txt": "0.0,4.0,5.0\n1,5,6\n"})


BUILD = {f.__name__: f for f in (ucf_crime, shanghaitech, xd_violence, avenue, nwpu_campus, ubnormal)}
LISTS = {  # data set, split -> videos per list of the tiny tree
    ("ucf_crime", "official"): {"train": 3, "test": 2},
    ("ucf_crime", "uca"): {"train": 3, "val": 1, "test": 1},
    ("ucf_crime", "clean"): {"train": 2, "val": 1, "test": 2},
    ("shanghaitech", "weak"): {"train": 3, "test": 2},
    ("shanghaitech", "one_class"): {"train": 3, "test": 2},
    ("xd_violence", "official"): {"train": 2, "test": 2},
    ("avenue", "official"): {"train": 2, "test": 2},
    ("nwpu_campus", "official"): {"train": 2, "test": 2},
    ("ubnormal", "official"): {"train": 2, "val": 2, "test": 2},
}


@pytest.fixture
def step(tmp_path, run_home, monkeypatch, clip):
    """Builds a tree and returns (root, function that runs the data step on it)."""

    def make(name, split=None):
        module = importlib.import_module(f"data_prep.{name}")
        counts = {s: lists for (n, s), lists in LISTS.items() if n == name}
        monkeypatch.setattr(module, "DATA", dataclasses.replace(module.DATA, counts=counts))
        root = tmp_path / "download"
        BUILD[name](root, clip)
        settings = {"data_root": str(root), "jobs": 1} | ({"split": split} if split else {})
        folder = run_home / "runs" / name / "data"
        folder.mkdir(parents=True)
        return root, lambda **more: module.prepare(get_profile(name, **settings, **more), folder)

    return make


@pytest.fixture
def in_this_process(monkeypatch):
    """Steps run here: what they print is tested, and a process of their own loads all libraries anew."""
    for module in ("commands", "run_notebooks"):
        monkeypatch.setattr(
            f"zsad_lib.pipeline.{module}.ensure_apart",
            lambda steps, profile: [run_step.ensure(s, profile) for s in steps],
        )


@pytest.mark.parametrize(("name", "split"), LISTS)
def test_a_whole_tree_becomes_a_manifest(step, run_home, capsys, name, split):
    root, run = step(name, split)
    result = run()
    table = load_manifest(run_home / "runs" / name / "data")
    assert table.split.value_counts().to_dict() == LISTS[name, split]
    assert (table.n_frames == FRAMES).all() and (table.fps > 0).all() and not result["metrics"]["off_by_one"]
    test = table[table.split == "test"]
    assert set(test.spans) <= {"", "4-6"} and (test.family == "normal").tolist() == (test.spans == "").tolist()
    assert (test.spans == "4-6").sum() == 1 or split == "one_class"
    assert sorted(set(table.scene)) == SCENES.get(name, [name])
    everything = pd.read_parquet(run_home / "data" / "manifests.parquet")
    assert set(zip(everything.data_set, everything.list)) == {(name, split)} and len(everything) == len(table)
    text = capsys.readouterr().out
    assert f"split {split}" in text and result["metrics"]["split_sha256"][:12] in text
    if name == "ucf_crime":
        sentences = pd.read_csv(result["artefacts"]["captions"])
        assert (
            sorted(sentences.caption)
            == {
                "official": ["about Normal_Videos001", "about Normal_Videos002"],
                "uca": ["about Normal_Videos001", "about Normal_Videos002", "about Normal_Videos_003"],
                "clean": ["about Normal_Videos001", "about Normal_Videos002"],
            }[split]
        )


@pytest.mark.parametrize("name", BUILD)
def test_missing_and_broken_videos_are_named_and_can_be_left_out(step, run_home, name):
    root, run = step(name)
    read = importlib.import_module(f"data_prep.{name}").read
    data = importlib.import_module(f"data_prep.{name}").DATA
    there = inventory.listed(data, read, root, PROFILES[name].split)
    gone, bad = there[there.split == "test"].iloc[0], there[there.split == "train"].iloc[0]
    (gone.path.rename(root.parent / "away"), bad.path.write_bytes(bad.path.read_bytes()[:700]))
    with pytest.raises(ZsadError, match="1 videos missing, 1 broken .*ALLOW_MISSING=1") as error:
        run()
    assert gone.video in str(error.value) and bad.video in str(error.value) and "\n" not in str(error.value)
    listed = pd.read_csv(run_home / "runs" / name / "data" / "inventory.csv", index_col="video").fault
    assert listed[gone.video] == "missing" and bad.path.name in listed[bad.video]
    result = run(allow_missing=True)
    assert (result["metrics"]["missing"], result["metrics"]["broken"]) == ([gone.video], [bad.video])
    assert not {gone.video, bad.video} & set(load_manifest(run_home / "runs" / name / "data").video)


def test_folders_are_lists_too(step):
    root, run = step("avenue")
    (root / "training_videos" / "02.avi").unlink()
    with pytest.raises(ZsadError, match="0 videos missing, 0 broken .1 of 2 train videos listed"):
        run()


def relabel(name, values):
    return lambda root: np.save(root / "testing" / "test_frame_mask" / name, np.array(values, np.uint8))


def replaced(name, old, new):
    return lambda root: (root / name).write_text((root / name).read_text().replace(old, new))


MASK = "ground_truth_demo/testing_label_mask/1_label.mat"
TRACKS = "Scene2/abnormal_scene_2_scenario_2_annotations/abnormal_scene_2_scenario_2_tracks.txt"
# A row of labels as numpy writes it, which claims to be longer than any memory.
HUGE = (
    b"\x93NUMPY\1\0\x76\0"
    + b"{'descr': '|u1', 'fortran_order': False, 'shape': (99999999999999,), }".ljust(117)
    + b"\n0"
)
FAULTS = [
    ("shanghaitech", relabel("01_0014", EVENT + [0, 0]), "01_0014 has labels for 14 frames, and 12 are decoded"),
    ("shanghaitech", relabel("01_0014", EVENT[:-2]), "01_0014 has labels for 10 frames, and 12 are decoded"),
    ("shanghaitech", relabel("01_0014", [2] * FRAMES), "01_0014.npy: expected a row of frame labels 0 and 1"),
    ("shanghaitech", relabel("01_0014", [0] * FRAMES), "01_0014.npy: marks no frame"),
    ("shanghaitech", lambda root: np.save(root / "testing/test_frame_mask/01_0014", np.array([{}])),
     "not a readable array"),
    ("shanghaitech", lambda root: (root / "testing/test_frame_mask/01_0014.npy").unlink(),
     "testing.csv:3: 01_0014 has no test_fr"),
    *(("shanghaitech", lambda root, text=text: fill(root, {"testing/test_frame_mask/01_0014.npy": text}),
       "01_0014.npy: not a readable array")
      for text in (b"", b"PK\3\4" + bytes(50), b"\x93NUMPY\1\0\x76\0{'descr': '|u1' (", HUGE)),
    ("ucf_crime", replaced("lists/Anomaly_Test.txt", "Arson002", "Arson009"), "txt:1: Arson002_x264 is annotated, and"),
    ("ucf_crime", replaced("lists/Anomaly_Train.txt", "Abuse/", "Abusse/"), "Anomaly_Train.txt:1: class 'Abusse'"),
    ("ucf_crime", lambda root: fill(root, {"other/Arson002_x264.mp4": b"x"}), "differs from .*same name; keep one"),
    ("ucf_crime", lambda root: fill(root, {"other/Anomaly_Test.txt": b"x"}), "differs from .*same name; keep one"),
    ("ucf_crime", lambda root: fill(root, {"test_frame_counts.txt": "Arson002_x264 0 9\nNormal_Videos_003_x264 0 9\n"}),
     "10 frames"),
    ("xd_violence", replaced("annotations.txt", " 4 6", " 4 60"), "span 4-60 lies outside the video's 12 frames"),
    ("xd_violence", lambda root: fill(root, {"annotations.txt": ""}), "annotations.txt: the label file is empty"),
    ("xd_violence", lambda root: copy(root / "1-1004/v=0.x__#1_label_A.mp4", root / "test"), "stands already at"),
    ("avenue", lambda root: fill(root, {MASK: b"MATLAB 5.0"}), "1_label.mat: no readable volLabel"),
    ("avenue", lambda root: savemat(root / MASK, {"volLabel": cells(["rm", "-rf"])}),
     "must be a row of matrices of numbers"),
    ("avenue", lambda root: savemat(root / MASK, {"volLabel": cells([np.ones((2, 2))] * 9)}),
     "test_01 has labels for 9"),
    ("nwpu_campus", lambda root: fill(root, {"NWPU_Campus_gt.npz": b"PK"}), "gt.npz: not a readable archive"),
    *(("nwpu_campus", lambda root, text=text: fill(root, {"NWPU_Campus_gt.npz": text}),
       "gt.npz: not a readable archive")
      for text in (b"PK\3\4" + bytes(50), HUGE, b"\x93NUMPY\1\0\x76\0{'descr': '|u1' (")),
    ("nwpu_campus", lambda root: np.savez(root / "NWPU_Campus_gt.npz", D001_07=np.ones((3, 3))),
     "gt.npz: D001_07: expected a row"),
    ("nwpu_campus", lambda root: copy(root / "videos/Test/D001_07.avi", root / "videos/Test/D003_01.avi"),
     "no labels of D003_01"),
    ("nwpu_campus", lambda root: (root / "NWPU_Campus_gt.npz").rename(root / "x"), "no NWPU_Campus_gt.npz below it"),
    ("ubnormal", lambda root: fill(root, {TRACKS: "0,6,4\n"}), "tracks.txt:1: expected `object,first,last`"),
    ("ubnormal", lambda root: fill(root, {TRACKS: "0,4,5\n1,8,99999999999999999\n"}), "outside the video's 12 frames"),
    ("ubnormal", lambda root: (root / TRACKS).unlink(), "video_names.txt:1: abnormal_scene_2_scenario_2 has no"),
    ("ubnormal", replaced("scripts/normal_test_video_names.txt", "normal", "odd"),
     "names.txt:1: expected normal_scene_N"),
    ("ubnormal", lambda root: (root / "scripts/normal_test_video_names.txt").unlink(), "no such label file"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "fault", "message"), FAULTS)
def test_each_fault_is_one_clear_line(step, run_home, name, fault, message):
    root, run = step(name)
    fault(root)
    with pytest.raises(ZsadError, match=message) as error:
        run()
    assert "\n" not in str(error.value)
    assert not (run_home / "runs" / name / "data" / "manifest.csv").exists()


def test_one_frame_off_is_named(step, run_home, capsys):
    root, run = step("shanghaitech")
    relabel("01_0014", EVENT[:-1])(root)
    assert run()["metrics"]["off_by_one"] == ["01_0014"]
    assert "1 videos have labels that are one frame off: 01_0014" in capsys.readouterr().out


def test_a_data_set_that_nothing_is_trained_on_says_so(step, run_home, in_this_process, capsys):
    root, run = step("avenue")
    result = run()
    assert (run_home / "runs" / "avenue" / "data" / "manifest.csv").exists() and result["metrics"][
        "split"
    ] == "official"
    assert main(["run", "--profile", "avenue", f"DATA_ROOT={root}", "ALLOW_MISSING=1", "JOBS=1"]) == 1
    assert "the kit trains nothing on avenue" in capsys.readouterr().err


def test_other_captions_are_another_result(step):
    root, run = step("ucf_crime")
    before = run()["output_hash"]
    assert run()["output_hash"] == before
    replaced("uca/UCFCrime_Val.json", "about", "on")(root)
    assert run()["output_hash"] != before


def test_floors_take_decoded_lengths_where_videos_are_at_hand(step, run_home, capsys):
    root, _ = step("ubnormal")  # whose labels say nothing of a length
    command = ["--profile", "ubnormal", f"DATA_ROOT={root}", "bootstrap_draws=20", "jobs=1"]
    assert main(["floors", *command]) == 0 and "2 test videos, 24 frames, 3 abnormal" in capsys.readouterr().out
    assert (run_home / "runs" / "ubnormal" / "floors.csv").is_file()
    (root / "Scene2" / "normal_scene_2_scenario_2.mp4").unlink()
    assert main(["floors", *command]) == 2 and "the length of" in capsys.readouterr().err


def test_a_scan_goes_on_where_it_was(tmp_path, clip, monkeypatch):
    files = {name: tmp_path / f"{name}.avi" for name in "abc"}
    for path in files.values():
        path.write_bytes(clip)
    first = inventory.scan(dict(list(files.items())[:2]), tmp_path / "scan.json")
    decoded = []
    monkeypatch.setattr(inventory, "_decoded", lambda path: decoded.append(path.name) or (FRAMES, 10.0, ""))
    again = inventory.scan(files, tmp_path / "scan.json")
    assert decoded == ["c.avi"] and again.n_frames.tolist() == [FRAMES] * 3 and again[:2].equals(first)
    files["b"].write_bytes(clip + b"\0")
    inventory.scan(files, tmp_path / "scan.json")
    assert decoded == ["c.avi", "b.avi"]


@pytest.mark.parametrize("command", [["step", "data"], ["run", "JOBS=1"]])
@pytest.mark.parametrize("name", ["ucf_crime", "ubnormal"])
def test_an_empty_folder_is_told_what_belongs_there(run_home, in_this_process, capsys, command, name):
    (run_home / "empty").mkdir()
    data = importlib.import_module(f"data_prep.{name}").DATA
    for given in ([], ["DATA_ROOT=" + str(run_home / "empty")]):
        code = main([command[0], "--profile", name, *command[1:], *given])
        out, err = capsys.readouterr()
        assert code == (2 if command[0] == "step" else 1)
        assert all(text in out for text in (data.title, data.home, *data.layout))
        assert err.splitlines()[-1].startswith(f"error: {run_home}") and "Traceback" not in err


def test_splits_are_named_and_have_folders_of_their_own():
    assert get_profile("shanghaitech").split == "weak" and get_profile("shanghaitech").run_name == "shanghaitech"
    assert get_profile("shanghaitech", SPLIT="one_class").run_name == "shanghaitech-one_class"
    for name in BUILD:
        data = importlib.import_module(f"data_prep.{name}").DATA
        assert next(iter(data.counts)) == PROFILES[name].split and data.key == name
        assert {get_profile(name, split=split).split for split in data.counts} == set(data.counts)
    with pytest.raises(
        ZsadError, match="split='weak' is unknown for profile ucf_crime; choose from official, uca, clean"
    ):
        get_profile("ucf_crime", split="weak")
