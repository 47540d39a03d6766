"""Score and label files as other tools write them: the one right reading, or a line with the place; never another
number."""

import gzip
import io
import os
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from zsad_lib.errors import ZsadError
from zsad_lib.evaluate.evaluation import evaluate
from zsad_lib.files import csv_columns
from zsad_lib.files.score_files import read_folder, read_frames, read_series, write_frames
from zsad_lib.own_video.events import read_truth
from zsad_lib.results.evaluate_folders import evaluate_folders

VALUES = [0.38, 0.16, 0.02, 0.5, 1.25]
ROWS = [f"{frame},{value}" for frame, value in enumerate(VALUES)]
FRAME = pd.DataFrame({"frame": range(5), "caption": "a car, 3 m", "score": VALUES})


def text(heading, rows, end="\n"):
    return end.join([*([heading] if heading else []), *rows, ""])


def saved(save, *values, **options):
    """The bytes that a `save(file, ...)` writes."""
    file = io.BytesIO()
    save(file, *values, **options)
    return file.getvalue()


VALUES_TEXT = [str(value) for value in VALUES]
READ = {
    "plain": text("score", VALUES_TEXT),
    "headless": text("", VALUES_TEXT),
    "headless integers": text("", ["0", "1", "3"]),
    "a name of its own": text("anomaly score", VALUES_TEXT),
    "capitals and spaces": text(" Frame , SCORE ", ROWS),
    "quoted heading": text('"frame","score"', ROWS),
    "quoted numbers": text("frame,score", [f'"{frame}","{value}"' for frame, value in enumerate(VALUES)]),
    "caption with a comma": FRAME.to_csv(index=False),
    "caption after a space": text("frame, caption, score", [f'{t}, "a, 3", {x}' for t, x in enumerate(VALUES)]),
    "caption over two lines": FRAME.assign(caption="a\nb").to_csv(index=False),
    "caption in another encoding": FRAME.assign(caption="Straße").to_csv(index=False).encode("cp1252"),
    "shuffled": text("frame,score", [ROWS[t] for t in (3, 0, 4, 1, 2)]),
    "from 1": text("frame,score", [f"{frame},{value}" for frame, value in enumerate(VALUES, 1)]),
    "another name for frame": text("Frame_ID,score", ROWS[::-1]),
    "floats as frames": text("frame,score", [f"{frame}.0,{value}" for frame, value in enumerate(VALUES)]),
    "semicolons": text("frame;score", [row.replace(",", ";") for row in ROWS]),
    "decimal commas": text("frame;score", [row.replace(",", ";").replace(".", ",") for row in ROWS]),
    "Excel's first line": text("sep=;\nframe;score", [row.replace(",", ";").replace(".", ",") for row in ROWS]),
    "tabs": text("frame\tscore", [row.replace(",", "\t") for row in ROWS]),
    "byte order mark": b"\xef\xbb\xbf" + text("frame,score", ROWS).encode(),
    "Windows": text("frame,score", ROWS, "\r\n"),
    "old Mac": text("frame,score", ROWS, "\r"),
    "blank lines after": text("score", VALUES_TEXT) + "\n  \n",
    "commas at the end": text("frame,score,", [row + "," for row in ROWS]) + ",,\n",
    "comments": text("# a tool, 1.0\n#\nframe,score", ROWS),
    "NumPy's heading": text("# frame,score", ROWS),
    "NumPy's one column": saved(np.savetxt, np.array(VALUES), header="score"),
    "pandas": FRAME.sort_values("score").to_csv(),
    "pandas, row numbers": FRAME[["score"]].to_csv(),
    "pandas, row numbers again": text("Unnamed: 0,score", ROWS),
    "pandas, no name": pd.Series(VALUES).to_csv(),
    "R": text('"","x"', [f'"{number}",{value}' for number, value in enumerate(VALUES, 1)]),
}  # fmt: skip


@pytest.mark.parametrize("kind", READ)
def test_a_table_with_one_right_reading_is_read(tmp_path, kind):
    path, content = tmp_path / "X.CSV", READ[kind]
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    expected = [0, 1, 3] if "integers" in kind else VALUES
    np.testing.assert_array_equal(read_series(path, "score"), expected)


REFUSED = {
    "R, heading one short": (text("score", [f"{n},{x}" for n, x in enumerate(VALUES, 1)]), ":2: 2 cells where"),
    "decimal commas": (text("score", ["0,38", "0,16"]), ":2: 2 cells where the heading has 1"),
    "decimal commas, headless": (text("", ["0,38", "0,16"]), ":1: no column 'score' among 0, 38"),
    "decimal commas under a comma": (text("score,", ["0,38", "0,16"]), ":2: '38' in a column without a name"),
    "decimal comma in quotes": (text("score", ['"0,38"']), ":2: expected a number"),
    "decimals or thousands": (text("frame;score", ["0;1,234", "1;2,345"]), ":2: expected a number .* got '1,234'"),
    "thousands": (text("score", ['"1,234.5"']), ":2: expected a number"),
    "underscores": (text("score", ["1_000"]), ":2: expected a number"),
    "spaces": (text("frame score", ["0 0.38"]), ":2: expected a number"),
    "another separator": (text("frame|score", ["0|0.38"]), ":2: expected a number"),
    "a comma without quotes": (text("frame,score,caption", ["0,1,a car", "1,2,a car, red"]), ":3: 4 cells where"),
    "a short row": (text("frame,score,caption", ["0,1,a", "1,2"]), ":3: 2 cells where the heading has 3"),
    "two of one name": (text("score,Score", ["1,2"]), ":1: 2 columns are named 'score'"),
    "two numbers of frames": (text("frame,frame,score", ["0,1,2"]), ":1: 2 columns are named 'frame'"),
    "row twice": (text("frame,score", ["0,1", "1,2", "0,1"]), ":4: frame 0 stands already in line 2"),
    "row missing": (text("frame,score", ["0,1", "3,2", "1,1"]), ":3: frame 3, but there is no row for frame 2"),
    "begins later": (text("frame,score", ["16,1", "17,2"]), ":2: frame 16, but there is no row for frame 0"),
    "negative frame": (text("frame,score", ["-1,1", "0,2"]), ":2: '-1' in column 'frame' is no frame"),
    "half a frame": (text("frame,score", ["0,1", "0.5,2"]), ":3: '0.5' in column 'frame' is no frame"),
    "file names": (text("frame,score", ["img_1.png,1", "img_10.png,2"]), ":2: expected a number in column 'frame'"),
    "sorted by score": (FRAME[["score"]].sort_values("score").to_csv(), ":3: row number 1 follows a higher one"),
    "times": (text("time_s,score", ["0,1", "0.2,1", "0.1,1"]), ":4: time_s 0.1 follows a higher one"),
    "videos in one file": (text("video,frame,score", ["a,0,1", "b,0,1"]), ":3: frame 0 stands already"),
    "missing value": (pd.DataFrame({"score": [1, np.nan, 2]}).to_csv(index=False), ":3: expected a number"),
    "missing at the end": (pd.DataFrame({"score": [1, np.nan]}).to_csv(index=False), ":3: expected a number"),
    "missing at the beginning": (text("", ["NA", "0.5"]), ":1: no column 'score' among NA"),
    "empty line at the beginning": (text("", ["", "score", "0.5"]), ":1: an empty line"),
    "empty line": (text("frame,score", ["0,1", "", "1,2"]), ":3: an empty line between rows"),
    "no score": (text("frame", ["0", "1"]), ":1: no column 'score' among frame"),
    "labels": (text("label", ["0", "1"]), ":1: no column 'score' among label"),
    "open quote": (text("frame,caption,score", ['0,"a,1', "1,b,2"]), ":3: no CSV"),
    "a quote over many lines": ('score,c\n0.1,"' + "a\n" * 70_000, "no CSV .field larger"),
    "a quoted letter": (text("score", ["'1'"]), ":2: expected a number"),
    "JSON": ("[0.1, 0.2]", ":1: no column"),
    "web page": ("<!DOCTYPE html>\n<html>", "web page"),
    "UTF-16": ("score\n1\n".encode("utf-16"), "UTF-16"),
    "UTF-16 without a mark": ("score\n1\n".encode("utf-16-le"), "no text"),
    "gzip": (gzip.compress(b"score\n1\n"), "gzip"),
    "Git LFS": ("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "git lfs pull"),
    "an array": (saved(np.save, np.zeros(3)), "NumPy array, whose name ends in .npy"),
    "endless line": (b"1" * (3 << 20), ":1: a line of more than"),
    "endless line further on": (b"score\n0.1\n" + b"1" * (3 << 20), ":3: a line of more than"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_a_table_that_may_be_misread_is_refused_with_its_place(tmp_path, kind):
    path, (content, message) = tmp_path / "x.csv", REFUSED[kind]
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ZsadError, match=r"x\.csv.*" + message) as caught:
        read_series(path, "score")
    assert "\n" not in str(caught.value)


def test_an_endless_line_is_not_read_to_its_end(tmp_path):
    path = tmp_path / "x.csv"
    with open(path, "wb") as file:
        file.write(b"score,0.1")
        file.truncate(1 << 40)  # takes no space on disk, and reading it would take no end
    with pytest.raises(ZsadError, match="no text"):
        read_series(path, "score")
    lines = csv_columns._lines(path, endless := io.StringIO("1" * (5 << 20)))
    with pytest.raises(ZsadError, match=r":1: a line of more"):
        next(lines)
    assert endless.tell() == csv_columns.LONGEST


@pytest.mark.parametrize(
    "content, message",
    [
        (saved(np.savez, a=np.zeros(3)), "zip archive"),
        (saved(lambda file: torch.save(torch.zeros(3), file)), "zip archive"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "pickle"),  # how torch's older files begin
        (pickle.dumps([1]), "pickle"),
        (b"", "empty"),
        (b"0.1\n0.2\n", "no NumPy array"),
        (b"<html></html>", "web page"),
        (saved(np.save, np.array([1, None]), allow_pickle=True), "Object arrays"),
        (saved(np.save, np.arange(99.0))[:300], "not readable"),
        (saved(np.save, np.arange(99.0)).replace(b"(99,)", b"(99,\x00"), "not readable"),
        (saved(np.save, np.arange(99.0)).replace(b"(99,), }      ", b"(99999999,), }"), "not readable"),
        (saved(np.save, np.array(["a"])), r"<U1 \[1\]"),
        (saved(np.save, np.zeros(3, complex)), r"complex128 \[3\]"),
        (saved(np.save, np.zeros((5, 2))), r"an array \[5, 2\]"),
        (saved(np.save, np.zeros((5, 1, 1))), r"an array \[5, 1, 1\]"),
        (saved(np.save, np.zeros(0)), r"an array \[0\]"),
        (saved(np.save, np.array(1.0)), r"an array \[\]"),
    ],
)
def test_what_is_no_array_of_numbers_is_refused_in_a_line(tmp_path, content, message):
    (tmp_path / "x.NPY").write_bytes(content)
    with pytest.raises(ZsadError, match=r"x\.NPY: .*" + message) as caught:
        read_series(tmp_path / "x.NPY", "score")
    assert "\n" not in str(caught.value)


def test_a_column_of_an_array_is_a_series_and_seeds_stay(tmp_path):
    for shape, expected in (((5, 1), (5,)), ((2, 5), (2, 5)), ((1, 5), (1, 5)), ((1, 1), (1,))):
        np.save(tmp_path / "x.npy", np.zeros(shape))
        assert read_series(tmp_path / "x.npy", "label").shape == expected


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.csv")
    with pytest.raises(ZsadError, match="no regular file"):
        read_series(tmp_path / "x.csv", "score")


def test_the_kits_own_files_come_back_as_written(tmp_path):
    score = np.random.default_rng(0).normal(size=48)
    write_frames(tmp_path / "x.csv", 10.0, {"score": score, "s_sem": -score})
    read = read_frames(tmp_path / "x.csv", "score")
    assert read.values.tolist() == [float(f"{value:.6g}") for value in score]
    assert (read.first, read.untitled, read.warmup.any()) == (0, False, False)


# --- folders ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def folders(tmp_path, run_home):
    """Writes two videos' scores and labels, from functions of (numbers, name of the column)."""
    rng = np.random.default_rng(0)
    labels = {"a": np.repeat([0, 1, 0], 20), "b": np.zeros(30, int)}
    scores = {video: np.round(rng.normal(size=len(label)) + label, 3) for video, label in labels.items()}

    def write(part, table, name="{}.csv"):
        (tmp_path / part).mkdir(exist_ok=True)
        for video, numbers in (labels if part == "labels" else scores).items():
            content = table(numbers)
            (tmp_path / part / name.format(video)).write_text(content, encoding="utf-8")
        return tmp_path / part

    write.auc = roc_auc_score(np.concatenate(list(labels.values())), np.concatenate(list(scores.values())))
    write.labels, write.scores = labels, scores
    return write


def micro_auc(scores, labels, **options):
    return evaluate_folders(scores, labels, draws=2, **options).set_index("metric").loc["micro_auc"]


def framed(column, first=0, shuffled=False):
    def table(numbers):
        frame = pd.DataFrame({"frame": np.arange(len(numbers)) + first, column: numbers})
        return (frame.sample(frac=1, random_state=0) if shuffled else frame).to_csv(index=False)

    return table


def test_shuffled_sides_give_the_right_number(folders, capsys):
    labels = folders("labels", framed("label", shuffled=True))
    for shuffled in (False, True):
        scores = folders("scores", framed("score", shuffled=shuffled))
        assert micro_auc(scores, labels).value == pytest.approx(folders.auc, abs=1e-12)
    assert capsys.readouterr().err == ""


def test_frames_counted_from_1_are_told_and_not_mixed_with_those_from_0(folders, capsys, tmp_path):
    scores = folders("scores", framed("score", 1))
    labels = folders("labels", framed("label", 1, shuffled=True))
    assert micro_auc(scores, labels).value == pytest.approx(folders.auc, abs=1e-12)
    assert capsys.readouterr().err.count("frames are counted from 1") == 2  # once for each folder
    folders("labels", framed("label"))
    with pytest.raises(ZsadError, match=r"scores.a\.csv: counts frames from 1, .*labels.a\.csv from 0"):
        evaluate_folders(scores, labels)
    (scores / "b.csv").write_text(framed("score")(folders.scores["b"]))
    with pytest.raises(ZsadError, match=r"scores.a\.csv: counts frames from 1, and b\.csv from 0"):
        read_folder(scores, "score")


def test_a_heading_that_may_be_a_number_is_settled_by_the_other_side(folders):
    pandas = lambda numbers: pd.Series(numbers).to_csv(index=False)  # its heading is "0"
    headless = lambda numbers: "".join(f"{number}\n" for number in numbers)
    scores, labels = folders("scores", pandas), folders("labels", pandas)
    with pytest.raises(ZsadError, match=r"scores.a\.csv:1: a score or a heading, as in .*labels.a\.csv"):
        evaluate_folders(scores, labels)
    folders("labels", framed("label"))
    with pytest.raises(ZsadError, match=r"scores.a\.csv: 61 scores but 60 labels .* is a first line 0 a heading"):
        evaluate_folders(scores, labels)
    folders("scores", headless), folders("labels", headless)  # labels begin with 0, scores with a decimal
    assert micro_auc(scores, labels).value == pytest.approx(folders.auc, abs=1e-12)
    (normal := scores.parent / "normal").mkdir()
    (normal / "n.csv").write_text("0\n0.5\n")
    with pytest.raises(ZsadError, match=r"n\.csv:1: a score or a heading"):
        evaluate_folders(scores, labels, normal=normal)


def test_arrays_of_one_column_count_as_series(folders, tmp_path):
    for part, series in (("scores", folders.scores), ("labels", folders.labels)):
        (tmp_path / part).mkdir()
        for video, numbers in series.items():
            np.save(tmp_path / part / f"{video}.npy", numbers[:, None])
    assert micro_auc(tmp_path / "scores", tmp_path / "labels").value == pytest.approx(folders.auc, abs=1e-12)
    columns = ({video: array[:, None] for video, array in side.items()} for side in (folders.scores, folders.labels))
    table = evaluate(*columns, draws=2, metrics=["micro_auc"])
    assert table["value"].tolist() == pytest.approx([folders.auc]) and table["n_frames"].tolist() == [90]


def test_scores_of_a_name_with_scores_find_their_labels(folders):
    labels, scores = folders("labels", framed("label")), folders("scores", framed("score"), "{}.scores.csv")
    (scores / "a.scores").mkdir()  # pictures that `score` writes beside them
    (scores / "@eaDir").mkdir()
    (scores / ".hidden.csv").write_text("x")
    (scores / ".b.csv").mkdir()
    (scores / "c.csv").mkdir()
    assert micro_auc(scores, labels).value == pytest.approx(folders.auc, abs=1e-12)
    np.save(scores / "b.npy", folders.scores["b"])
    with pytest.raises(ZsadError, match=r"b\.scores\.csv: b is there twice, b\.npy is of it too"):
        evaluate_folders(scores, labels)


def test_frames_of_the_warm_up_are_left_out_and_counted(folders, capsys):
    def causal(numbers):
        table = pd.DataFrame({"frame": range(len(numbers)), "time_s": 0.1, "score": numbers, "s_sem": 0.0})
        return table.assign(warmup=table.index < 25, caption="a, b").to_csv(index=False)

    labels, scores = folders("labels", framed("label")), folders("scores", causal)
    row = micro_auc(scores, labels, normal=folders("normal", lambda numbers: causal(numbers + 1)))
    sides = ([side[video][25:] for video in "ab"] for side in (folders.labels, folders.scores))
    assert row.value == pytest.approx(roc_auc_score(*map(np.concatenate, sides)), abs=1e-12)
    assert (row.n_frames, row.prevalence) == (90 - 50, 15 / 40)
    assert capsys.readouterr().err.count("50 frames of 2 videos are the causal scorer's warm-up") == 2  # and of normal
    (labels / "a.csv").write_text(framed("label")(folders.labels["a"][25:]))
    with pytest.raises(ZsadError, match="60 scores but 35 labels"):  # compared before anything is left out
        evaluate_folders(scores, labels)
    folders("labels", framed("label"))
    (scores / "b.csv").write_text(causal(folders.scores["b"]).replace("False", "True"))
    with pytest.raises(ZsadError, match=r"b\.csv: all its frames are warm-up"):
        evaluate_folders(scores, labels)


@pytest.mark.parametrize("marks", [[1, 0], ["yes", "no"], ["", "True"], [True, False]])
def test_a_column_warmup_of_another_tool_drops_nothing(folders, marks, capsys):
    def other(numbers):
        table = pd.DataFrame({"frame": range(len(numbers)), "score": numbers, "warmup": marks[1]})
        table.loc[:4, "warmup"] = marks[0]
        if marks[0] is not True:  # as the kit's own but for what it says
            table.insert(1, "time_s", 0.1)
        return table.to_csv(index=False)

    row = micro_auc(folders("scores", other), folders("labels", framed("label")))
    assert row.value == pytest.approx(folders.auc, abs=1e-12) and row.n_frames == 90
    assert capsys.readouterr().err == ""


# --- evaluate --------------------------------------------------------------------------------------------------------


def videos_as(*names):
    return dict(zip(names, ([0.1, 0.9], [0.2, 0.3]))), dict(zip(names, ([0, 1], [0, 0])))


def test_videos_may_be_named_by_any_one_kind(tmp_path):
    for names in (("a", "b"), (0, 1), (tmp_path / "a", tmp_path / "b"), (("a", 0), ("b", 1))):
        assert evaluate(*videos_as(*names), draws=2)["value"].iloc[0] == 1


@pytest.mark.parametrize(
    "scores, labels, options, message",
    [
        (videos_as("a", 1)[0], videos_as("a", 1)[1], {}, "scores: videos are named by int, str"),
        (videos_as("a", None)[0], videos_as("a", "b")[1], {}, "scores: videos are named by NoneType, str"),
        (videos_as("0", "1")[0], videos_as(0, 1)[1], {}, "named str '0' here and int 0 there|str '1' here and int 1"),
        (videos_as("a", "b")[0], videos_as("a", 1)[1], {}, "labels: videos are named by int, str"),
        (videos_as(0, 1)[0], videos_as(0, 2)[1], {}, "scores: none for 2"),
        (*videos_as(0, 1), {"fps": {"0": 1.0, "1": 1.0}}, "fps: videos are named"),
        ({"a": [[1, 2], [3]]}, {"a": [0, 1]}, {}, "scores of a: no array"),
        ({"a": torch.zeros(2, requires_grad=True)}, {"a": [0, 1]}, {}, "scores of a: no array"),
        ({"a": np.zeros((2, 1))}, {"a": [[0, 1], [1]]}, {}, "labels of a: no array"),
    ],
)
def test_names_and_arrays_that_do_not_fit_are_one_line(scores, labels, options, message):
    with pytest.raises(ZsadError, match=message) as caught:
        evaluate(scores, labels, draws=2, **options)
    assert "\n" not in str(caught.value)


# --- the truth of one video ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, content",
    [
        ("t.csv", text("frame,label", ["4,0", "2,1", "0,0", "1,0", "3,1"])),
        ("t.CSV", text('"Frame";"Label"', ["0;0", "1;0", "2;1", "3;1", "4;0"])),
        ("t.csv", text("frame,label", ["1,0", "2,0", "3,1", "4,1", "5,0"])),
        ("t.csv", text('"event","first_frame","last_frame","caption"', ['1,2,3,"a, 1"'])),
        ("T.CSV", text("First_Frame;Last_Frame", ["2,0;3"])),
        ("t.NPY", saved(np.save, np.array([[0], [0], [1], [1], [0]]))),
    ],
)
def test_truth_is_read_as_scores_are(tmp_path, name, content):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert read_truth(tmp_path / name, "x.mp4")(5).tolist() == [False, False, True, True, False]


@pytest.mark.parametrize(
    "content, message",
    [
        (text("first_frame,last_frame", ["2,3", "3,2"]), r":3: span 3-2 is reversed"),
        (text("first_frame,last_frame", ["2.5,3"]), r":2: '2.5' in column 'first_frame' is no frame"),
        (text("first_frame,last_frame", ["-2,3"]), r":2: '-2' in column 'first_frame' is no frame"),
        (text("first_frame,last_frame", ["2,nan"]), r":2: 'nan' in column 'last_frame' is no frame"),
        (text("first_frame,last_frame", ["1,2,3"]), r":2: 3 cells where the heading has 2"),
        (text("first_frame", ["1"]), r":1: no column 'last_frame'"),
        (text("first_frame,first_frame,last_frame", ["1,2,3"]), r":1: 2 columns are named 'first_frame'"),
        (text("frame,label", ["0,0", "0,1"]), r":3: frame 0 stands already"),
        (text("", ["0"] * 6), "for 5 frames of x.mp4; .* is its first line, 0, a heading"),
    ],
)
def test_truth_that_may_be_misread_is_refused(tmp_path, content, message):
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(ZsadError, match=r"t\.csv.*" + message):
        read_truth(tmp_path / "t.csv", "x.mp4")(5)
