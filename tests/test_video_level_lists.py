"""The official video-level lists: what the official ones hold, and that every fault names file and line."""

import re

import pytest

from data_prep import video_level_lists as w
from zsad_lib.errors import ZsadError
from zsad_lib.files.annotations import read_classes, read_temporal
from zsad_lib.models.anomaly_clip_recipes import UCF_CLASSES, XD_CLASSES

TRAIN = "Abuse/Abuse001_x264.mp4\nTraining_Normal_Videos_Anomaly/Normal_Videos001_x264.mp4\n"
TEST = "Arson/Arson002_x264.mp4\nTesting_Normal_Videos_Anomaly/Normal_Videos_003_x264.mp4\n"
SPANS = "Arson002_x264.mp4  Arson  10  20  -1  -1\nNormal_Videos_003_x264.mp4  Normal  -1  -1  -1  -1\n"
TEMPORAL = "Temporal_Anomaly_Annotation_for_Testing_Videos.txt"


def ucf(folder, train=TRAIN, test=TEST, spans=SPANS, counts=None):
    (folder / "Anomaly_Train.txt").write_text(train)
    (folder / "Anomaly_Test.txt").write_text(test)
    (folder / TEMPORAL).write_text(spans)
    if counts:
        (folder / "test_frame_counts.txt").write_text(counts)
    return w.ucf_crime(folder)


def test_ucf_crime(tmp_path):
    table = ucf(tmp_path)
    assert table[["video", "split", "action", "spans"]].to_numpy().tolist() == [
        ["Abuse001_x264", "train", "Abuse", ""],
        ["Normal_Videos001_x264", "train", "Normal", ""],
        ["Arson002_x264", "test", "Arson", "10-20"],
        ["Normal_Videos_003_x264", "test", "Normal", ""],
    ]


def test_late_spans_are_clipped_and_counted(tmp_path, capsys):
    table = ucf(tmp_path, counts="Arson002_x264 0 17 1\nNormal_Videos_003_x264 0 99 0\n")
    assert table.spans[2] == "10-17" and "1 videos have spans that end 1 to 3 frames late" in capsys.readouterr().out


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(train="Abusse/A.mp4\n"), r"Anomaly_Train\.txt:1: class 'Abusse' is unknown"),
        (
            dict(train=TRAIN + "Abuse/Abuse001_x264.mp4\n"),
            r"Train\.txt:3: Abuse001_x264 stands already at .*Train\.txt:1",
        ),
        (
            dict(train=TRAIN + "Arson/Arson002_x264.mp4\n"),
            r"Test\.txt:1: Arson002_x264 stands already at .*Train\.txt:3",
        ),
        (
            dict(test=TEST + "Arson/Arson009.mp4\n"),
            r"Test\.txt:3: Arson009 is in the test list, and the annotation lacks it",
        ),
        (dict(spans=SPANS + "B.mp4 Arson 1 2\n"), TEMPORAL + r":3: B is annotated, and the test list lacks it"),
        (
            dict(spans=SPANS.replace("  Arson ", "  Abuse ")),
            TEMPORAL + r":1: .* is Abuse there and Arson in .*Test\.txt:1",
        ),
        (dict(spans=SPANS.replace("10  20", "-1  -1")), TEMPORAL + r":1: .* is Arson and has no span"),
        (dict(spans=SPANS.replace("Normal  -1  -1", "Normal  1  5")), TEMPORAL + r":2: .* is normal and has a span"),
        (dict(spans=SPANS.replace("10  20", "20  10")), TEMPORAL + r":1: span 20 10 is reversed"),
        (dict(spans=SPANS.replace("-1  -1\nN", "15  30\nN")), TEMPORAL + r":1: spans overlap"),
        (dict(spans=SPANS * 2), TEMPORAL + r":3: Arson002_x264 stands already at .*:1"),
        (
            dict(counts="Arson002_x264 0 15 0\n"),
            TEMPORAL + r":1: Arson002_x264: span 10-20 lies outside the video's 16 frames",
        ),
        (dict(counts="Other 0 15 0\n"), r"Test\.txt:1: Arson002_x264 has no frame count"),
        (dict(counts="Arson002_x264\n"), r"counts\.txt:1: expected `name first last`"),
        (dict(test="\n"), r"Anomaly_Test\.txt: the label file is empty"),
    ],
)
def test_faults_name_file_and_line(tmp_path, change, message):
    with pytest.raises(ZsadError, match=message) as error:
        ucf(tmp_path, **change)
    assert "\n" not in str(error.value)


def test_xd_violence(tmp_path):
    (tmp_path / "annotations.txt").write_text("v=a.b__#1_label_B2-G-0.mp4 5 9 20 30\n")
    table = w.xd_violence(tmp_path, train=["m_label_A.mp4"], test=["v=a.b__#1_label_B2-G-0.mp4", "v=c_label_A"])
    assert table[["video", "split", "action", "spans"]].to_numpy().tolist() == [
        ["m_label_A", "train", "Normal", ""],
        ["v=a.b__#1_label_B2-G-0", "test", "Shooting", "5-9;20-30"],
        ["v=c_label_A", "test", "Normal", ""],
    ]
    with pytest.raises(ZsadError, match="test folder: x_label_G is in the test list, and the annotation lacks it"):
        w.xd_violence(tmp_path, test=["v=a.b__#1_label_B2-G-0", "x_label_G"])
    with pytest.raises(ZsadError, match="names no class"):
        w.xd_violence(tmp_path, train=["video.mp4"])


def test_class_files(tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_text("id,name\n")
    with pytest.raises(ZsadError, match="no class below"):
        read_classes(labels)
    labels.write_text("id,name\n0,fall\n1,normal\n")
    assert read_classes(labels) == ["fall", "normal"]
    for text, message in (
        ("name\n", r":1: expected the heading id,name"),
        ("id,name\n1,fall\n", r":2: expected `0,name`"),
        ("id,name\n0,fall\n1,fall\n", r":3: class 'fall' stands there already, as id 0"),
    ):
        labels.write_text(text)
        with pytest.raises(ZsadError, match=message):
            read_classes(labels)


def test_shanghaitech(tmp_path):
    for name, videos in (("training", "01_001\n01_0014\n"), ("testing", "02_003\n")):
        (tmp_path / f"weak_split_shanghaitech.{name}.csv").write_text("video-id\n" + videos)
    table = w.shanghaitech(tmp_path)
    assert table.action.tolist() == ["Normal", "Abnormal", "Normal"] and table.split.tolist() == [
        "train",
        "train",
        "test",
    ]
    (tmp_path / "weak_split_shanghaitech.testing.csv").write_text("video-id\n01_001\n")
    with pytest.raises(ZsadError, match=r"testing\.csv:2: 01_001 stands already at .*training\.csv:2"):
        w.shanghaitech(tmp_path)
    (tmp_path / "weak_split_shanghaitech.testing.csv").write_text("video-id\nNormal\n")
    with pytest.raises(ZsadError, match=r"testing\.csv:2: expected a video id"):
        w.shanghaitech(tmp_path)


def test_frame_counts_and_lengths(tmp_path):
    counts = tmp_path / "counts.txt"
    counts.write_text("a.mp4 0 9\nb 5 9 x\n")
    assert w.read_frame_counts(counts) == {"a": 10, "b": 5}
    for text, message in (("a 0 9\na.mp4 0 8\n", r":2: a stands there already"), ("b 9 0\n", r":1: b ends before")):
        counts.write_text(text)
        with pytest.raises(ZsadError, match=message):
            w.read_frame_counts(counts)

    (tmp_path / "annotations.txt").write_text("x_label_G-0-0 5 99\n")
    assert w.xd_violence(tmp_path, lengths={"x_label_G-0-0": 99}).spans.tolist() == ["5-98"]
    with pytest.raises(
        ZsadError, match=r"annotations\.txt:1: x_label_G-0-0: span 5-99 lies outside the video's 50 frames"
    ):
        w.xd_violence(tmp_path, lengths={"x_label_G-0-0": 50})


@pytest.mark.data
def test_official_files(annotations):
    """Counts as published; no fault in any of them."""
    table = w.ucf_crime(annotations / "ucf_crime")
    assert table.groupby("split").size().to_dict() == {"test": 290, "train": 1610}
    assert sorted(set(table.action)) == sorted(UCF_CLASSES)
    xd = w.xd_violence(annotations / "xd_violence")
    assert len(xd) == 500 and set(xd.action) == set(XD_CLASSES) - {"Normal"}
    table = w.shanghaitech(annotations / "shanghaitech")
    assert table.groupby(["split", "action"]).size().to_dict() == {
        ("train", "Normal"): 175, ("train", "Abnormal"): 63, ("test", "Normal"): 155, ("test", "Abnormal"): 44
    }  # fmt: skip
    assert not any(
        re.search(r"\.mp4$", video) for video in read_temporal(annotations / "xd_violence/annotations.txt", False).video
    )
