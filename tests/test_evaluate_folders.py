"""`make evaluate` on folders: floors beside the scores, thresholds from normal video alone, and where memory ends."""

import json
import resource
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from zsad_lib import ram
from zsad_lib.__main__ import main
from zsad_lib.errors import ZsadError
from zsad_lib.evaluate.evaluation import evaluate
from zsad_lib.evaluate.floors import FLOORS, floor_scores
from zsad_lib.results import evaluation_memory
from zsad_lib.results.evaluate_folders import evaluate_folders


@pytest.fixture
def folders(tmp_path, run_home):
    """Folders scores, labels and normal of eight videos, three and two of them NPY; `write` makes others."""
    rng = np.random.default_rng(0)
    labels = {f"v{i}": np.repeat([0, i % 2, 0], (20 + i, 12, 9)) for i in range(8)}
    scores = {video: rng.normal(size=len(label)) + label for video, label in labels.items()}
    normal = {f"n{i}": rng.normal(size=50) for i in range(3)}

    def write(part, series, column, arrays=0):
        (tmp_path / part).mkdir(parents=True)
        for i, (video, numbers) in enumerate(series.items()):
            if i < arrays:
                np.save(tmp_path / part / f"{video}.npy", numbers)
            else:
                pd.DataFrame({"frame": range(len(numbers)), column: numbers}).to_csv(
                    tmp_path / part / f"{video}.csv", index=False
                )
        return tmp_path / part

    write("scores", scores, "score", arrays=3), write("labels", labels, "label"), write("normal", normal, "score", 2)
    write.scores, write.labels, write.normal, write.home = scores, labels, normal, run_home
    return write


def run(tmp_path, *options):
    return main(["evaluate", str(tmp_path / "scores"), str(tmp_path / "labels"), *options])


def test_the_floors_of_the_same_labels_stand_below_the_scores(folders, tmp_path, capsys):
    assert run(tmp_path, "--fps", "5", "--normal", str(tmp_path / "normal")) == 0
    table = pd.read_csv(folders.home / "runs" / "evaluated-scores" / "detection.csv")
    assert list(table.method.unique()) == ["scores", *FLOORS]
    own = evaluate(folders.scores, folders.labels, fps=5.0, normal_scores=folders.normal)
    pd.testing.assert_frame_equal(table[: len(own)], own.assign(method="scores"), atol=1e-8)
    lengths = {video: len(label) for video, label in folders.labels.items()}
    for name, floor in floor_scores(lengths, folders.labels).items():
        direct = evaluate(floor, folders.labels, fps=5.0).set_index("metric")
        rows = table[table.method == name].set_index("metric")
        assert set(rows.index) == set(direct.index) >= {"micro_auc", "ap", "macro_auc", "delay_s"}
        np.testing.assert_allclose(rows[["value", "low", "high"]], direct[["value", "low", "high"]], atol=1e-8)
    out = capsys.readouterr().out
    assert out.index("| scores") < out.index("content-free floors") < out.index("| video_label_centre")
    assert "Floors see no picture" in out and "left out" not in out


def test_it_says_what_it_read_and_where_it_writes(folders, tmp_path, capsys):
    (tmp_path / "scores" / "v7.csv").write_text(
        "".join(f"{x}\n" for x in folders.scores["v7"].tolist()), encoding="utf-8"
    )
    pd.DataFrame({"anomaly": folders.scores["v6"]}).to_csv(tmp_path / "scores" / "v6.csv")  # row numbers before it
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("[sln]*/*")}
    assert run(tmp_path) == 0
    out = capsys.readouterr().out
    read = "the array of 3 files, column 'score' of 3 files, column 'anomaly' of 1 file, the only column of 1 file"
    assert f"read: {read} in {tmp_path / 'scores'}\n" in out
    assert f"read: column 'label' of 8 files in {tmp_path / 'labels'}\n" in out
    target = folders.home / "runs" / "evaluated-scores" / "detection"
    assert out.endswith(f"written: {target}.csv, .md, .tex and .json\n")
    assert "left out: a threshold and what its alarms cost; they need --normal (make: NORMAL=)" in out
    assert "left out: alarms per hour and delays in seconds; they need --fps (make: FPS=)" in out
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("[sln]*/*")} == before, "only if asked"
    given = json.loads(target.with_suffix(".json").read_text(encoding="utf-8"))
    assert given == dict(scores=str(tmp_path / "scores"), labels=str(tmp_path / "labels"), normal=None, fps=None,
                         draws=2000)  # fmt: skip


def test_the_threshold_rests_on_normal_videos_alone(folders, tmp_path):
    """Other labels move no alarm: the threshold stays, and with it the share of all frames that alarm."""
    shares = []
    for name, swapped in (("labels", False), ("others", True)):
        labels = {video: 1 - label if swapped else label for video, label in folders.labels.items()}
        if swapped:
            folders(name, labels, "label")
        table = evaluate_folders(tmp_path / "scores", tmp_path / name, normal=tmp_path / "normal", draws=2)
        value = table.set_index("metric").value
        positive = table.set_index("metric").prevalence["far"]
        shares.append(value["far"] * (1 - positive) + value["recall"] * positive)
    assert shares[0] == pytest.approx(shares[1], abs=1e-12) and 0 < shares[0] < 1


def test_a_tested_video_is_not_held_out(folders, tmp_path, capsys):
    np.save(tmp_path / "normal" / "v0.npy", folders.scores["v0"])
    assert run(tmp_path, "--normal", str(tmp_path / "normal")) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "v0.npy: the same scores as" in error
    assert not (folders.home / "runs").exists()


def test_scores_of_one_name_from_two_folders_both_stay(folders, tmp_path):
    other = folders("other/scores", {video: -values for video, values in folders.scores.items()}, "score")
    for _ in range(2):
        for scores in (tmp_path / "scores", other):
            evaluate_folders(scores, tmp_path / "labels", draws=2)
    values = {}
    for folder in (folders.home / "runs").iterdir():
        table = pd.read_csv(folder / "detection.csv")
        values[folder.name] = table[(table.method == "scores") & (table.metric == "micro_auc")].value.item()
    assert set(values) == {"evaluated-scores", "evaluated-other-scores"}
    assert values["evaluated-scores"] + values["evaluated-other-scores"] == pytest.approx(1, abs=1e-8)


def test_scores_in_a_folder_named_as_a_floor_stay_apart(folders, tmp_path):
    folders("random", folders.scores, "score")
    evaluate_folders(tmp_path / "random", tmp_path / "labels", tmp_path / "out", draws=2)
    assert list(pd.read_csv(tmp_path / "out" / "detection.csv").method.unique()) == ["random (scores)", *FLOORS]


def test_a_file_of_another_kind_is_left(folders, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "detection.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ZsadError, match=r"detection\.json: exists and is no table of this kit"):
        evaluate_folders(tmp_path / "scores", tmp_path / "labels", tmp_path / "out", draws=2)


# --- memory -----------------------------------------------------------------------------------------------------------


def sparse(path, shape):
    """An NPY file whose numbers take no room on the disk."""
    np.lib.format.open_memmap(path, "w+", np.float64, shape).flush()


def test_a_hundred_million_frames_are_refused_before_one_is_read(tmp_path, run_home, monkeypatch):
    for part in ("scores", "labels"):
        (tmp_path / part).mkdir()
        for video in "abcd":
            sparse(tmp_path / part / f"{video}.npy", (25_000_000,))
    monkeypatch.setattr(evaluation_memory, "machine_bytes", lambda: int(16e9))
    monkeypatch.setattr("zsad_lib.results.evaluate_folders.read_folder", None)
    found = "100,000,000 frames in 4 videos need about 15.5 GB of memory, and the limit is 8.0 GB"
    remedy = "leave out videos, or keep every n-th frame of scores and labels"
    with pytest.raises(ZsadError, match=rf"scores: {found} \(50% of this machine's\); {remedy}$"):
        evaluate_folders(tmp_path / "scores", tmp_path / "labels")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems do not hold a process to this limit")
@pytest.mark.parametrize(("frames", "status"), [(30_000_000, 2), (2_000, 0)])
def test_under_a_small_limit_it_works_or_is_refused(tmp_path, run_home, frames, status):
    labels = np.repeat([0, 1], 1_000)
    for part in ("scores", "labels"):
        (tmp_path / part).mkdir()
        np.save(tmp_path / part / "a.npy", labels)
        sparse(tmp_path / part / "b.npy", (frames,))
    done = subprocess.run(
        [sys.executable, "-m", "zsad_lib", "evaluate", str(tmp_path / "scores"), str(tmp_path / "labels")],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30)),
    )
    assert done.returncode == status, done.stderr
    if status:
        assert done.stderr.count("\n") == 1 and "limit is 1.2 GB (`ulimit -v`); leave out videos" in done.stderr


def test_one_long_table_is_counted_as_it_is_read(folders, tmp_path, monkeypatch):
    (tmp_path / "scores" / "v7.csv").write_text("score\n" + "0.5\n" * 400_000, encoding="utf-8")
    monkeypatch.setattr(evaluation_memory, "machine_bytes", lambda: int(6e7))
    with pytest.raises(ZsadError, match=r"limit is 0\.0 GB .*; save the file of 400,001 rows as \.npy$"):
        evaluate_folders(tmp_path / "scores", tmp_path / "labels")


def test_seeds_and_videos_count(tmp_path, monkeypatch):
    sparse(tmp_path / "a.npy", (4, 1_000_000))
    monkeypatch.setattr(evaluation_memory, "machine_bytes", lambda: int(2 * 0.2e9))
    with pytest.raises(ZsadError, match=r"1,000,000 frames in 1 video need about 0\.3 GB"):
        evaluation_memory.refuse_too_much(tmp_path, tmp_path, None, 2000)
    for i in range(1_000):
        (tmp_path / f"{i}.csv").write_text("score\n1\n", encoding="utf-8")
    (tmp_path / "a.npy").unlink()
    monkeypatch.setattr(evaluation_memory, "machine_bytes", lambda: int(2 * 0.1e9))
    with pytest.raises(ZsadError, match=r"2,000 frames in 1000 videos need about 0\.2 GB"):
        evaluation_memory.refuse_too_much(tmp_path, tmp_path, None, 2000)
    monkeypatch.setattr(ram, "reservable", lambda: 9.0)
    evaluation_memory.refuse_too_much(tmp_path, tmp_path, None, 20)


@pytest.mark.thorough
@pytest.mark.skipif(sys.platform == "win32", reason="no resource usage there")
def test_the_published_size_takes_less_than_half_a_minute_and_two_gigabytes(tmp_path, run_home):
    """As UCF-Crime's test: 290 videos, 1.1 million frames, all metrics, intervals, events and floors."""
    rng = np.random.default_rng(0)
    for part in ("scores", "labels", "normal"):
        (tmp_path / part).mkdir()
    for i in range(290):
        label = np.repeat([0, int(i < 140), 0], (2_000, 400, 1_434))
        score = rng.normal(size=len(label)) + label
        for part, column, numbers in (("scores", "score", score), ("labels", "label", label)):
            table = pd.DataFrame({"frame": range(len(numbers)), column: numbers})
            table.to_csv(tmp_path / part / f"v{i}.csv", index=False)
    np.save(tmp_path / "normal" / "n.npy", rng.normal(size=100_000))
    code = (
        "import resource, sys; from zsad_lib.__main__ import main; status = main(sys.argv[1:]);"
        " used = resource.getrusage(resource.RUSAGE_SELF);"
        " print(status, used.ru_utime + used.ru_stime, used.ru_maxrss, file=sys.stderr)"
    )
    folders = [str(tmp_path / part) for part in ("scores", "labels")]
    words = ["evaluate", *folders, "--normal", str(tmp_path / "normal"), "--fps", "30"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    status, seconds, most = map(float, done.stderr.splitlines()[-1].split())
    assert status == 0 and seconds < 30 and most * (1 if sys.platform == "darwin" else 1024) < 2e9, done.stderr
    table = pd.read_csv(run_home / "runs" / "evaluated-scores" / "detection.csv")
    assert table.n_frames.max() == 290 * 3_834 and {"event_f1", "delay_s", "far"} <= set(table.metric)
