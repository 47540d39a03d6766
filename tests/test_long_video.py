"""A video of a day: what is held in memory hardly grows with its length, and its table is written and read in parts."""

import gc
import os
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from zsad_lib.__main__ import main
from zsad_lib.errors import ZsadError
from zsad_lib.features import window_plan
from zsad_lib.features.window_plan import BLOCK_LEN, NUM_BLOCKS, WINDOW
from zsad_lib.files.clock import Clock
from zsad_lib.files.score_files import read_folder, read_frames
from zsad_lib.files.score_tables import write_table
from zsad_lib.files.video import write_video
from zsad_lib.own_video import events, frame_scores, pictures, scoring
from zsad_lib.own_video.detector import OwnDetector, own_detector
from zsad_lib.own_video.frame_by_frame import LiveScorer
from zsad_lib.own_video.frame_scores import score_frames
from zsad_lib.own_video.output_folder import output_for
from zsad_lib.own_video.scoring import score_video, score_windows, seen_frames
from zsad_lib.own_video.ticks import Seen
from zsad_lib.results import film
from zsad_lib.results.evaluate_folders import evaluate_folders

FPS = 25
FRAME = np.zeros((48, 64, 3), np.uint8)
RNG = np.random.default_rng(0)


def numbers(windows):
    """Terms of so many windows, as towers would give them."""
    names = {"s_sem": (8,), "s_mem": (8,), "s_pred": (2,), "s_mem_global": (), "region": (8, 2)}
    terms = {name: RNG.random((windows, *shape)) for name, shape in names.items()}
    seen = RNG.random(windows) < 0.9
    return terms | {"caption": seen - 1.0, "prompts": RNG.random((windows, 3)) / 3 * seen[:, None]}


def window(live, small):
    """What `LiveScorer.window` gives, without towers."""
    live.seen += 1
    if live.seen % BLOCK_LEN or live.seen < WINDOW:
        return None
    return numbers(1) | {"score": RNG.random(1)}


def without_towers(setattr):
    """Features of a piece become its number of windows, and terms are drawn by chance."""
    setattr(OwnDetector, "features", lambda own, piece: (len(piece) - 1) // BLOCK_LEN - NUM_BLOCKS + 1)
    setattr(OwnDetector, "window_terms", lambda own, features, *_, **__: numbers(features))
    setattr(LiveScorer, "window", window)


def stream(seconds, pauses=()):
    """A decoder of so long a video, 25 frames per second, with pauses of seven seconds."""

    def timed_frames(path, wanted=None, tell=True):
        for number in range(int(seconds * FPS)):
            now = number / FPS + 7 * sum(number / FPS >= pause for pause in pauses)
            yield now, FRAME if wanted is None or wanted(now) else None

    return timed_frames


@pytest.fixture(scope="module")
def own():
    return own_detector(None)


def test_no_feature_outlives_its_piece(own, monkeypatch):
    alive, most = weakref.WeakSet(), []

    def features(own, piece):
        alive.add(held := torch.zeros((len(piece) - 1) // BLOCK_LEN - NUM_BLOCKS + 1))
        most.append(len(alive))
        return held

    monkeypatch.setattr(window_plan, "CHUNK_BLOCKS", 12)
    monkeypatch.setattr(OwnDetector, "features", features)
    monkeypatch.setattr(OwnDetector, "window_terms", lambda own, features, *_, **__: numbers(len(features)))
    windows = score_windows(((0, FRAME) for _ in range(2000)), own)
    assert len(most) > 40 and max(most) <= 2
    assert {name: len(values) for name, values in windows.terms.items()} == dict.fromkeys(numbers(0), 395)


@pytest.mark.parametrize("causal", [False, True])
def test_rows_in_blocks_are_those_of_the_whole_table(own, monkeypatch, causal):
    without_towers(monkeypatch.setattr)
    monkeypatch.setattr(scoring, "timed_frames", stream(90, (20, 21, 55)))
    seen = Seen()
    windows = score_windows(seen_frames("long.mp4", seen, own.size), own, causal)
    [*whole] = score_frames(windows, seen, causal).rows()
    assert [len(block) for block in whole] == [500, 25, 850, 875]  # a stretch each
    monkeypatch.setattr(frame_scores, "TICKS", 40)
    table, rows = score_frames(windows, seen, causal)
    blocks = list(rows())
    assert max(map(len, blocks)) == 100 and [block.index[0] for block in blocks][:3] == [0, 100, 200]
    pd.testing.assert_frame_equal(pd.concat(blocks), pd.concat(whole), rtol=1e-12)
    for name in table:
        np.testing.assert_array_equal(table[name], pd.concat(blocks)[name])
    assert seen.filled() == 0 and table["warmup"].any() == causal


def test_blended_ticks_are_counted():
    seen = Seen()
    seen.at.extend([0, 2, 4, 4, 4, 5, 9, 9])
    assert seen.filled() == 3


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("long") / "camera.mp4"
    place = np.random.default_rng(0).integers(0, 200, (48, 64, 3), np.uint8)
    write_video(path, (np.roll(place, i * (1 + 5 * (i > 100)), axis=1) for i in range(150)), FPS)
    return path


def test_a_table_in_parquet_is_that_in_csv(video, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("truth.csv").write_text("label\n" + "0\n" * 100 + "1\n" * 50, encoding="utf-8")
    for kind in ("csv", "parquet"):
        assert main(["score", str(video), "--no-overlay", "--format", kind, "--truth", "truth.csv"]) == 0
    assert "written to camera.scores.parquet" in capsys.readouterr().out
    table, other = pd.read_csv("camera.scores.csv"), pd.read_parquet("camera.scores.parquet")
    pd.testing.assert_frame_equal(table, other, check_dtype=False, check_categorical=False, check_exact=True)
    assert other.attrs["threshold"] is None and "s_sem" in other.attrs["statistics"]
    one, two = (read_frames(f"camera.scores.{kind}", "score") for kind in ("csv", "parquet"))
    assert one.values.tolist() == two.values.tolist() and two.first == 0 and not two.warmup.any()
    assert main(["score", str(video), "--no-overlay", "--output", "c.PARQUET", "--causal"]) == 0
    assert read_frames("c.PARQUET", "score").warmup.sum() == pd.read_parquet("c.PARQUET")["warmup"].sum() > 60
    assert main(["score", str(video), "--output", "c.csv", "--format", "parquet"]) == 2
    assert "c.csv: scores are a table; give a file that ends in .parquet, as c.parquet" in capsys.readouterr().err


def test_a_parquet_file_of_somebody_is_not_overwritten(video, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pd.DataFrame({"mine": [1.0]}).to_parquet("camera.scores.parquet")
    with pytest.raises(ZsadError, match=r"camera\.scores\.parquet: exists and is no score table of this kit"):
        output_for(video, None, "parquet")


def test_scores_in_parquet_are_evaluated(tmp_path):
    rng, results = np.random.default_rng(0), []
    scores, labels = {f"v{i}": rng.random(80) for i in range(4)}, np.arange(80) >= 60
    for kind in ("csv", "parquet"):
        for name, series in scores.items():
            table = pd.DataFrame({"frame": np.arange(80), "score": series, "label": labels.astype(int)})
            (tmp_path / kind).mkdir(exist_ok=True)
            (tmp_path / f"{kind}-labels").mkdir(exist_ok=True)
            write_table(tmp_path / kind / f"{name}.scores.{kind}", [table[:50], table[50:]])
            write_table(tmp_path / f"{kind}-labels" / f"{name}.{kind}", [table.iloc[::-1]])  # put in order by `frame`
        evaluate_folders(tmp_path / kind, tmp_path / f"{kind}-labels", tmp_path / f"{kind}-out", draws=20)
        results.append((tmp_path / f"{kind}-out" / "detection.csv").read_text(encoding="utf-8"))
    assert results[0] == results[1].replace("parquet", "csv")
    write_table(tmp_path / "csv" / "v0.parquet", [table])
    with pytest.raises(ZsadError, match="v0 is there twice"):
        read_folder(tmp_path / "csv", "score")


@pytest.mark.parametrize(
    "columns, told",
    [
        ({"frame": [0, 2], "score": [1.0, 2.0]}, "frame 2, but there is no row for frame 1"),
        ({"score": [1.0, None]}, "row 2: expected a number in column 'score', got none"),
        ({"score": ["1", "2"]}, "column 'score' holds"),
        ({"frame": [0, 1], "value": [1.0, 2.0]}, "no column 'score' among frame, value"),
        ({"score": []}, "column 'score' holds null|no rows"),
        ({"time_s": [1.0, 0.5], "score": [1.0, 2.0]}, "time_s 0.5 follows a higher one"),
    ],
)
def test_a_parquet_file_without_one_right_reading_is_refused(tmp_path, columns, told):
    pd.DataFrame(columns).to_parquet(tmp_path / "v.parquet")
    with pytest.raises(ZsadError, match=told):
        read_frames(tmp_path / "v.parquet", "score")


def test_what_is_no_parquet_file_is_named_in_a_line(tmp_path):
    (tmp_path / "v.parquet").write_text("frame,score\n0,1\n", encoding="utf-8")
    for name, told in (("v.parquet", "not readable"), ("w.parquet", "no such file")):
        with pytest.raises(ZsadError, match=rf"{name}: {told}"):
            read_frames(tmp_path / name, "score")


def test_a_table_is_written_whole_or_not_at_all(scored, tmp_path):
    def broken():
        yield scored(np.zeros(3))
        raise KeyboardInterrupt

    for kind in ("csv", "parquet"):
        write_table(target := tmp_path / f"a.{kind}", [scored(np.zeros(3))])
        before = target.read_bytes()
        with pytest.raises(KeyboardInterrupt):
            write_table(target, broken())
        assert target.read_bytes() == before and len(list(tmp_path.glob("*"))) == 1 + (kind == "parquet")


def test_events_and_film_of_blocks_are_those_of_the_table(video, scored, tmp_path):
    table = scored(np.where(np.arange(150) % 40 == 20, 9.0, 0.0)).assign(region_x=0.3, region_y=0.6)
    table["p(a fire burns)"], table["p(a man falls)"] = np.linspace(0, 0.4, 150), 0.3
    few, rows = table[["time_s", "score", "warmup"]], lambda: (table[begin : begin + 40] for begin in range(0, 150, 40))
    found = events.events(few, 1.0, rows)
    pd.testing.assert_frame_equal(found, events.events(table, 1.0))
    assert found.nearest_normal_caption.tolist() == [f"caption {i}" for i in (20, 60, 100, 140)]
    for name, *given in (("whole", table), ("blocks", few, rows)):
        film.write_film(video, given[0], 1.0, "mine", tmp_path / f"{name}.mp4", FPS, rows=(*given, None)[1])
    assert (tmp_path / "whole.mp4").read_bytes() == (tmp_path / "blocks.mp4").read_bytes()


def test_a_day_of_short_alarms_is_drawn_in_as_many_spans_as_can_be_seen(scored):
    table = scored(np.where(np.arange(60_000) % 3 == 0, 9.0, 0.0))
    table["truth"] = np.arange(60_000) % 5 == 0
    axes = pictures.curve(table, 1.0, "").axes[0]
    [shaded] = [found for found in axes.collections if found.get_label() == "alarm"]
    assert len(shaded.get_paths()) <= pictures.PIECES and len(axes.patches) <= pictures.PIECES
    assert len(axes.get_lines()[0].get_xdata()) <= 2 * pictures.PIECES
    assert shaded.get_paths()[-1].vertices[:, 0].max() == pytest.approx(5999.7)


def test_a_long_film_is_told_beforehand(video, scored, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pictures, "LONG", 10.0)
    monkeypatch.setattr(pictures, "write_film", lambda *_: None)
    pictures.write_all(video, scored(np.zeros(150)), tmp_path, progress=True)
    assert "a film of 0.0 hours, which takes longest; all else is written" in capsys.readouterr().err


def test_many_events_say_how_many_are_shown(video, scored, tmp_path, monkeypatch):
    titles = []
    monkeypatch.setattr(pictures, "contact_sheet", lambda path, listed, title, decoded: titles.append(title))
    for every in (40, 11):
        pictures.write_all(video, scored(np.where(np.arange(1500) % every == 10, 9.0, 0.0)), tmp_path, play=False)
    assert titles == [f"{video.name}: the 12 highest of {len(range(10, 1500, 40))} events"] + [
        f"{video.name}: the 12 highest of {len(range(10, 1500, 11))} events"
    ]


def test_a_live_scorer_holds_no_more_after_an_hour(own, monkeypatch):
    """Everything that a frame leaves behind would be counted: a day has 2 million of them."""
    monkeypatch.setattr(OwnDetector, "window_terms", lambda *_, **__: {"s_sem": RNG.random((1, 8))} | numbers(1))
    tool = own.tool
    windows = tool.windows(torch.zeros(1 + WINDOW, *own.size, 3, dtype=torch.uint8))
    stem = tuple(None if part is None else part[:1] for part in windows)
    monkeypatch.setattr(type(tool), "windows", lambda *_: stem)
    live, clock, counts = LiveScorer(own), Clock(1 / FPS), []
    for number in range(3000):
        live.push(FRAME, clock.time(number / FPS + 60 * (number % 500 == 0)))
        if number % 750 == 749:
            gc.collect()
            counts.append(len(gc.get_objects()))
    assert max(counts[1:]) - min(counts[1:]) < 50 and live.looked_at > 1000


@pytest.mark.thorough
@pytest.mark.parametrize("options", ["", "--causal", "--format parquet"])
def test_memory_hardly_grows_from_ten_minutes_to_six_hours(options, tmp_path):
    """The command without its film, with a decoder and towers that cost nothing; about a minute and a half each."""
    peaks = {}
    for minutes in (10, 60, 360):
        place = tmp_path / str(minutes)
        place.mkdir()
        (place / "v.mp4").write_bytes(b"video")
        code = f"import test_long_video as t; t.score_a_stream({minutes}, {options.split()})"
        env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
        out = subprocess.run([sys.executable, "-c", code], cwd=place, env=env, check=True, stdout=subprocess.PIPE)
        peaks[minutes] = int(out.stdout.split()[-1]) / 1024
    print(options or "csv", {minutes: f"{peak:.0f} MB" for minutes, peak in peaks.items()})
    assert max(peaks.values()) < 1.1 * peaks[10]


def score_a_stream(minutes: int, options: list[str]) -> None:
    """In a process of its own: scores so long a stream and prints the peak of memory in kB."""
    without_towers(setattr)
    for module in (scoring, pictures):
        module.timed_frames = stream(60 * minutes)
    scoring.declared_seconds = lambda path: 60.0 * minutes
    pictures.read_video = lambda path, indices, **_: np.stack([FRAME] * len(indices))
    assert main(["score", "v.mp4", "--no-overlay", *options]) == 0
    [table] = Path().glob("v.scores.*[!s]")
    assert table.stat().st_size > 100 * minutes
    print(Path("/proc/self/status").read_text(encoding="utf-8").partition("VmHWM:")[2].split()[0])


@pytest.mark.thorough
def test_memory_with_towers_hardly_grows(tmp_path):
    """The shipped detector on rendered frames: ten minutes against thirty."""
    peaks = []
    for minutes in (10, 30):
        place = np.random.default_rng(0).integers(0, 200, (48, 64, 3), np.uint8)
        pictures_ = (np.roll(place, i % 64, axis=1) for i in range(minutes * 60 * 10))
        write_video(tmp_path / f"{minutes}.mp4", pictures_, 10)
        command = [sys.executable, "-m", "zsad_lib", "score", f"{minutes}.mp4", "--no-overlay"]
        code = f"import resource, subprocess; subprocess.run({command}, check=True); "
        code += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
        env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
        out = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, check=True, stdout=subprocess.PIPE)
        peaks.append(int(out.stdout.split()[-1]) / 1024)
    print(f"10 and 30 minutes: {peaks[0]:.0f} and {peaks[1]:.0f} MB")
    assert peaks[1] < 1.1 * peaks[0]


def test_score_video_gives_the_whole_table(video):
    table = score_video(video)
    assert len(table) == 150 and table.index.equals(pd.RangeIndex(150)) and table.attrs["backbones"] == "stand_in"
