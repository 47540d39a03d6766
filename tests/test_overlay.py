"""What a score looks like on its own video: events by hand, files that open, a film with as many frames as were decoded."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from zsad_lib import overlay
from zsad_lib.video import iter_frames, probe, write_video

FPS = 10.0


def scored(score):
    score = np.asarray(score, float)
    table = pd.DataFrame({"frame": np.arange(len(score)), "time_s": np.arange(len(score)) / FPS, "score": score})
    return table.assign(caption=[f"caption {i}" for i in range(len(score))])


def test_events_join_over_short_gaps_and_name_their_peak():
    score = np.zeros(60)
    score[5:8], score[12], score[40:42] = [1, 3, 2], 5, 4  # the first two are 0.5 s apart
    found = overlay.events(scored(score), 0.5)
    assert found[["first_frame", "last_frame", "peak_frame", "peak_score"]].values.tolist() == [
        [5, 12, 12, 5],
        [40, 41, 40, 4],
    ]
    assert found.start_s.tolist() == [0.5, 4.0] and found.nearest_normal_caption.tolist() == [
        "caption 12",
        "caption 40",
    ]
    assert overlay.events(scored(np.zeros(5)), 0.5).empty


def test_the_own_threshold_is_robust_to_the_event_it_marks():
    rng = np.random.default_rng(0)
    quiet = rng.normal(size=1000)
    loud = np.where(np.arange(1000) < 100, 50.0, quiet)
    assert overlay.own_threshold(quiet) == pytest.approx(4, abs=0.4)
    assert overlay.own_threshold(loud) == pytest.approx(overlay.own_threshold(quiet), abs=0.8)


@pytest.fixture
def video(tmp_path):
    frames = np.full((30, 41, 64, 3), 128, np.uint8)  # an odd height, as some cameras have
    write_video(tmp_path / "camera.mp4", frames, FPS)
    return tmp_path / "camera.mp4"


def test_everything_is_written_and_opens(video, tmp_path):
    table = scored(np.where(np.arange(30) == 20, 9.0, np.sin(np.arange(30))))
    made = overlay.write_all(video, table, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "events.csv", "curve.png", "curve.pdf", "peaks.png", "peaks.pdf", "overlay.mp4",
    }  # fmt: skip
    assert len(pd.read_csv(made["events"])) == 1 and Image.open(made["peaks"]).size[0] > 500
    info = probe(made["overlay"])
    assert info.n_frames == 30 and info.fps == pytest.approx(FPS) and info.height > 41 + 39
    frames = list(iter_frames(made["overlay"]))
    assert np.abs(frames[20][2, 2].astype(int) - overlay.ALARM).max() < 60  # a broad border at the alarm
    assert np.abs(frames[5][3, 3].astype(int) - 128).max() < 30  # none elsewhere
    cursor = [np.argmin(np.abs(frame[-3].astype(int) - overlay.ALARM).sum(1)) for frame in (frames[2], frames[27])]
    assert cursor[0] < 10 and cursor[1] > 50


def test_a_video_in_which_nothing_stands_out_has_no_peaks(video, tmp_path):
    made = overlay.write_all(video, scored(np.zeros(30)), tmp_path / "out", play=False)
    assert set(made) == {"events", "curve"} and pd.read_csv(made["events"]).empty
