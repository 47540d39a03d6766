"""What a score looks like on its own video: files that open, a film with as many frames as were decoded, bars, truth
and cursor."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from zsad_lib.files.video import iter_frames, probe, read_video, write_video
from zsad_lib.own_video import pictures
from zsad_lib.results import film

FPS = 10.0


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("overlay") / "camera.mp4"
    write_video(path, np.full((30, 41, 64, 3), 128, np.uint8), FPS)  # an odd height, as some cameras have
    return path


def near(picture, colour):
    """How many pixels have about this colour; the film is compressed."""
    return int((np.abs(picture.astype(int) - colour).max(-1) < 40).sum())


def test_everything_is_written_and_opens(video, scored, tmp_path):
    table = scored(np.where(np.arange(30) == 20, 9.0, np.sin(np.arange(30))))
    table["p(a fire burns)"] = np.where(np.arange(30) < 15, 0.1, 0.9)
    table["truth"] = np.arange(30) >= 18
    made = pictures.write_all(video, table, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "events.csv", "curve.png", "curve.pdf", "peaks.png", "peaks.pdf", "overlay.mp4",
    }  # fmt: skip
    assert len(pd.read_csv(made["events"])) == 1 and Image.open(made["peaks"]).size[0] > 500
    info = probe(made["overlay"])
    assert info.n_frames == 30 and info.fps == pytest.approx(FPS) and info.width == film.WIDTHS[0]
    frames = list(iter_frames(made["overlay"]))
    picture = [frame[:205] for frame in frames]  # 41 x 64 at five times the size
    assert near(picture[20], film.ALARM) > 4000 and near(picture[5], film.ALARM) == 0
    below = [frame[205:] for frame in frames]
    assert near(below[25], film.PROMPT) > 5 * near(below[5], film.PROMPT) > 0  # the bar grows with the probability
    assert near(below[25], film.TRUTH) > near(below[5], film.TRUTH)  # it says so in words while it is labelled
    strip = [np.abs(below[n].astype(int) - below[0]).sum((0, 2)) for n in (10, 29)]
    assert np.argmax(strip[0]) < 200 and np.argmax(strip[1][200:]) + 200 > 300  # the cursor moves to the right


def test_an_alarm_frames_the_region_that_it_is_about(video, scored, tmp_path):
    plain = scored(np.where(np.arange(30) >= 15, 9.0, 0.0))
    table = plain.assign(region_x=0.75, region_y=np.where(plain.frame < 25, 0.5, np.nan))
    drawn = []
    for some in (table, plain):
        film.write_film(video, some, 4.0, "mine", tmp_path / "film.mp4", FPS)
        drawn.append(read_video(tmp_path / "film.mp4", [5, 20, 26])[:, 20:185, 20:300].astype(int))
    other = np.abs(drawn[0] - drawn[1]).max(-1) > 60
    assert not other[0].any() and other[1].sum() > 200 and not other[2].any()  # no alarm; an alarm; no region
    assert np.flatnonzero(other[1].any(0)).min() > 140  # right of the middle


def test_a_video_in_which_nothing_stands_out_has_no_peaks(video, scored, tmp_path):
    made = pictures.write_all(video, scored(np.zeros(30)), tmp_path / "out", play=False)
    assert set(made) == {"events", "curve"} and pd.read_csv(made["events"]).empty


def test_a_second_call_leaves_nothing_of_the_first(video, scored, tmp_path):
    for name in ("peaks.png", "peaks.pdf", "overlay.mp4"):
        (tmp_path / name).write_text("old")
    pictures.write_all(video, scored(np.zeros(30)), tmp_path, play=False)
    assert {path.name for path in tmp_path.iterdir()} == {"events.csv", "curve.png", "curve.pdf"}


def test_a_camera_that_changes_size_has_its_peaks(scored, tmp_path):
    for number, size in enumerate([(48, 64), (48, 64), (24, 32)]):
        Image.fromarray(np.zeros((*size, 3), np.uint8)).save(tmp_path / f"{number}.png")
    found = pictures.events(scored([9.0, 0.0, 0.0] + [0.0] * 20 + [9.0]), 1.0).assign(peak_frame=[0, 2])
    assert len(pictures.contact_sheet(tmp_path, found, "peaks").axes) == 2


def test_a_short_alarm_of_a_long_video_is_shaded(scored):
    score = np.random.default_rng(0).normal(size=9000)
    score[4321] = 50
    [shaded] = [c for c in pictures.curve(scored(score), 10.0, "").axes[0].collections if c.get_label() == "alarm"]
    assert [path.vertices[0, 0] for path in shaded.get_paths()] == [432.1]


def test_a_night_is_drawn_with_every_peak_in_few_points():
    score = np.random.default_rng(0).normal(size=300_000)
    score[123_456], score[234_567] = 50, -50
    kept = film.extremes(score, 1000)
    assert len(kept) <= 2000 and {123_456, 234_567} <= set(kept.tolist()) and (np.diff(kept) > 0).all()


def test_before_the_first_window_nothing_is_drawn(video, scored, tmp_path):
    table = scored(np.r_[np.zeros(20), np.full(10, 5.0)])
    table["warmup"] = np.arange(30) < 20
    line = pictures.curve(table, 4.0, "").axes[0].get_lines()[0]
    assert np.isnan(line.get_ydata()[:20]).all() and (line.get_ydata()[20:] == 5).all()
    strip = film._strip(table, 4.0, 300)
    assert near(strip[:, :190], film.SCORE) == 0 < near(strip[:, 210:], film.SCORE)


def test_odd_names_make_no_warning_and_no_cut_title(scored, recwarn):
    name = pictures.in_title("x" * 200 + " 監視 📹 $a$.mp4")
    assert len(name) <= pictures.TITLE + 1 and name.startswith("xxx") and name.endswith("□□ □ $a$.mp4")
    figure = pictures.curve(scored(np.arange(9)), 1.0, name)
    figure.draw_without_rendering()
    title = figure.axes[0].title.get_window_extent()
    assert not figure.axes[0].title.get_parse_math() and title.x0 > 0 and title.x1 < figure.bbox.x1 and not recwarn.list


def test_a_threshold_is_named_after_its_run(scored):
    table = scored(np.zeros(3))
    assert pictures.threshold_kind(table) == film.OWN_THRESHOLD
    table.attrs |= {"threshold": 1.0, "run": "runs/mine"}
    assert pictures.threshold_kind(table).startswith("threshold of mine,")
