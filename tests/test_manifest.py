"""The manifest and the published label formats; every bad line is named."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from zsad_lib.errors import ZsadError
from zsad_lib.files import annotations as files
from zsad_lib.files import manifest as m
from zsad_lib.files import spans


def table(**changes) -> pd.DataFrame:
    row = {
        "video": "a", "path": "clips/a.mp4", "split": "test", "set": "main", "scene": "park", "site": "park0",
        "family": "semantic", "action": "fall", "n_frames": 40, "fps": 10.0, "spans": "3-5;10-39",
        "caption": 'somebody, "falls"',
    }  # fmt: skip
    other = {"video": "NA", "spans": "", "family": "normal", "path": "/else/where/NA", "caption": ""}
    return pd.DataFrame([{**row, **changes}, {**row, **other}])


def test_round_trip_keeps_types_and_resolves_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = m.save_manifest(table(path=str(tmp_path / "clips" / "a.mp4")), "")
    loaded = m.load_manifest(tmp_path)
    assert file.read_text().splitlines()[1].startswith("a,clips/a.mp4,test,main")
    assert loaded["path"].tolist() == [str(tmp_path / "clips" / "a.mp4"), "/else/where/NA"]
    assert loaded["video"].tolist() == ["a", "NA"] and loaded["caption"].tolist() == ['somebody, "falls"', ""]
    assert loaded["n_frames"].dtype == int and loaded["fps"].dtype == float
    labels = m.frame_labels(loaded.iloc[0])
    assert labels.dtype == np.uint8 and labels.shape == (40,) and labels.sum() == 3 + 30
    assert labels[[2, 3, 5, 6, 9, 10, 39]].tolist() == [0, 1, 1, 0, 0, 1, 1]
    assert m.frame_labels(next(loaded.iloc[1:].itertuples())).sum() == 0


def test_spans_past_the_end_are_clipped_and_told_or_refused(tmp_path, capsys):
    m.save_manifest(table(spans="38-42"), tmp_path)
    assert "1 videos have spans that end 1 to 3 frames late, clipped: a" in capsys.readouterr().out
    assert m.load_manifest(tmp_path)["spans"][0] == "38-39"
    for late in ("38-43", "40-41"):
        with pytest.raises(ZsadError, match="a: span .* lies outside the video's 40 frames"):
            m.save_manifest(table(spans=late), tmp_path)
        with pytest.raises(ZsadError, match="lies outside"):
            m.frame_labels(SimpleNamespace(video="a", n_frames=40, spans=late))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"video": "NA"}, "video 'NA' occurs twice"),
        ({"split": "dev"}, "a: split 'dev' is unknown; use before, test, train, val"),
        ({"family": "odd"}, "family 'odd' is unknown"),
        ({"set": ""}, "set '' is unknown"),
        ({"n_frames": 0, "spans": ""}, "n_frames is 0"),
        ({"n_frames": "many"}, "n_frames must be whole numbers"),
        ({"spans": "5-3"}, "span '5-3' is not readable"),
        ({"spans": "x"}, "span 'x' is not readable"),
    ],
)
def test_wrong_rows_are_refused_and_nothing_is_written(tmp_path, changes, line):
    with pytest.raises(ZsadError, match=line):
        m.save_manifest(table(**changes), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_wrong_files(tmp_path):
    with pytest.raises(ZsadError, match="manifest.csv: no such manifest; `make data`"):
        m.load_manifest(tmp_path)
    for text, line in (
        ("", "not a readable table"),
        ("video\na\n", "column 'path' is missing"),
        (",".join(m.COLUMNS) + "\n", "no rows"),
        ('"a\nb,c', "not a readable table|is missing"),
    ):
        (tmp_path / "manifest.csv").write_text(text)
        with pytest.raises(ZsadError, match=line):
            m.load_manifest(tmp_path)


def test_labels_and_spans_are_inverse():
    labels = np.random.default_rng(0).integers(0, 2, 200)
    row = SimpleNamespace(video="a", n_frames=200, spans=spans.labels_to_spans(labels))
    assert np.array_equal(m.frame_labels(row), labels)
    assert spans.labels_to_spans(np.zeros(3)) == "" and spans.parse_spans("") == []
    assert spans.labels_to_spans(np.array([1, 1])) == "0-1"


def test_ucf_annotation(tmp_path):
    path = tmp_path / "temporal.txt"
    path.write_text("A_x264.mp4  Abuse  165  240  -1  -1  \n\nB.avi  Arson  1  2  7  9\nN.mp4 Normal -1 -1 -1 -1\n")
    read = files.read_temporal(path)
    assert read.drop(columns="place").to_numpy().tolist() == [
        ["A_x264", "Abuse", "165-240"], ["B", "Arson", "1-2;7-9"], ["N", "Normal", ""]
    ]  # fmt: skip
    assert read.place[1] == f"{path}:3"
    files.write_ucf_annotation(tmp_path / "again.txt", read)
    assert files.read_temporal(tmp_path / "again.txt").drop(columns="place").equals(read.drop(columns="place"))
    assert (tmp_path / "again.txt").read_text().startswith("A_x264.mp4  Abuse  165  240  -1  -1  \n")


@pytest.mark.parametrize(
    "line",
    [
        "A.mp4 Abuse",
        "A.mp4 Abuse 1",
        "A.mp4 Abuse 5 3",
        "A.mp4 Abuse -1 3",
        "A.mp4",
        "A B 1 x",
        "A B 1 5 4 9",
        "B.avi Arson 1 2",
    ],
)
def test_bad_ucf_lines_are_named(tmp_path, line):
    path = tmp_path / "temporal.txt"
    path.write_text("B.mp4 Arson 1 2\n" + line + "\n")
    with pytest.raises(ZsadError, match=r"temporal\.txt:2: "):
        files.read_temporal(path)


def test_captions_as_lines_and_json(tmp_path):
    path = tmp_path / "captions.txt"
    path.write_text("N1 00:00.0 00:12.5 ##A man ## waits\nN2 0:59.9 01:00:01.0 ##A dog\n", encoding="utf-8")
    read = files.read_captions(path)
    assert read.to_numpy().tolist() == [["N1", 0.0, 12.5, "A man ## waits"], ["N2", 59.9, 3601.0, "A dog"]]
    for name in ("again.txt", "again.json"):
        files.write_captions(tmp_path / name, read)
        assert files.read_captions(tmp_path / name).equals(read)
    assert (tmp_path / "again.txt").read_text().splitlines()[1] == "N2 00:59.9 01:00:01.0 ##A dog"


@pytest.mark.parametrize(
    "line", ["N1 00:00.0 ##A", "N1 00:05.0 00:01.0 ##A", "N1 0 1 ##A", "N1 00:00.0 00:01.0 ##", "x"]
)
def test_bad_caption_lines_are_named(tmp_path, line):
    (tmp_path / "c.txt").write_text("N1 00:00.0 00:12.5 ##A man\n" + line)
    with pytest.raises(ZsadError, match=r"c\.txt:2: expected"):
        files.read_captions(tmp_path / "c.txt")


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"a": {}}',
        '{"a": {"timestamps": [[0, 1]], "sentences": []}}',
        '{"a": {"timestamps": [[2, 1]], "sentences": ["x"]}}',
    ],
)
def test_bad_caption_json_is_named(tmp_path, text):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(ZsadError, match=r"c\.json: .*expected"):
        files.read_captions(tmp_path / "c.json")


def test_missing_empty_and_binary_label_files(tmp_path):
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    for name, line in (
        ("absent", "no such label file"),
        ("empty", "label file is empty"),
        ("binary", "expected UTF-8"),
    ):
        for read in (files.read_temporal, files.read_captions):
            with pytest.raises(ZsadError, match=rf"{name}\.txt: .*{line}"):
                read(tmp_path / f"{name}.txt")


@pytest.mark.data
def test_official_files(annotations):
    """Counts as published: 290 test videos, 84,331 of 1,111,808 frames abnormal; UCA's sentences per part."""
    counts = pd.read_csv(annotations / "ucf_crime" / "test_frame_counts.txt", sep=" ", header=None, index_col=0)[2] + 1
    read = files.read_temporal(annotations / "ucf_crime" / "Temporal_Anomaly_Annotation_for_Testing_Videos.txt")
    labels = [m.frame_labels(row) for row in read.assign(n_frames=read["video"].map(counts)).itertuples()]
    assert len(read) == 290 and sum(map(len, labels)) == 1_111_808 and sum(map(np.sum, labels)) == 84_331
    for part, videos, sentences in (("Train", 1165, 15677), ("Val", 379, 3534), ("Test", 310, 4331)):
        captions = files.read_captions(annotations / "uca" / f"UCFCrime_{part}.json")
        assert (captions["video"].nunique(), len(captions)) == (videos, sentences)
    for part, videos in (("Train", 589), ("Val", 217), ("Test", 104)):
        assert files.read_captions(annotations / "uca_normal_lists" / f"{part}.txt")["video"].nunique() == videos
