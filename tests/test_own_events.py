"""Events by hand, the rule of the guessed family, and label files."""

import numpy as np
import pytest

from zsad_lib.errors import ZsadError
from zsad_lib.evaluate.events import own_threshold
from zsad_lib.own_video import events


def test_events_join_over_short_gaps_and_name_their_peak(scored):
    score = np.zeros(60)
    score[5:8], score[12], score[40:42] = [1, 3, 2], 5, 4  # the first two are 0.5 s apart
    found = events.events(scored(score), 0.5)
    assert found[["first_frame", "last_frame", "peak_frame", "peak_score"]].values.tolist() == [
        [5, 12, 12, 5],
        [40, 41, 40, 4],
    ]
    assert found.start_s.tolist() == [0.5, 4.0]
    assert found.nearest_normal_caption.tolist() == ["caption 12", "caption 40"]
    assert found.best_abnormal_prompt.tolist() == ["a fire burns"] * 2 and (found.prompt_probability == 0.3).all()
    assert events.events(scored(np.zeros(5)), 0.5).empty


def test_nothing_alarms_before_the_first_score(scored):
    table = scored(np.r_[np.zeros(30), np.full(30, -5.0), -1.0])
    table["warmup"] = np.arange(61) < 30
    assert events.threshold_of(table) == pytest.approx(-5.0)  # the zeros of the warm-up do not raise it
    assert events.events(table, events.threshold_of(table)).first_frame.tolist() == [60]
    assert events.threshold_of(table[:30]) == np.inf


@pytest.mark.parametrize(
    "terms, abnormal, family",
    [
        ((1.0, 3.0, 2.0), 0.9, "temporal"),
        ((3.0, 1.0, 2.0), 0.5, "semantic"),
        ((1.0, 2.0, 3.0), 0.49, "contextual"),
        ((4.0, 9.0, 0.0), 0.9, "semantic"),  # the largest raw term is not the one furthest above normal
    ],
)
def test_the_guessed_family_follows_its_rule(scored, terms, abnormal, family):
    table = scored(np.array([0.0, 1.0]))
    table[["s_sem", "s_pred", "s_mem"]] = terms
    table["p(a fire burns)"], table["p(a man falls)"] = abnormal - 0.2, 0.2
    table.attrs["statistics"] = {
        "s_sem": (0.0, 1.0),
        "s_pred": (0.0, 10.0 if terms[1] == 9 else 1.0),
        "s_mem": (0.0, 1.0),
    }
    assert events.events(table, 0.5).family_guess.tolist() == [family]


def test_the_own_threshold_is_robust_to_the_event_it_marks():
    rng = np.random.default_rng(0)
    quiet = rng.normal(size=1000)
    loud = np.where(np.arange(1000) < 100, 50.0, quiet)
    assert own_threshold(quiet) == pytest.approx(4, abs=0.4)
    assert own_threshold(loud) == pytest.approx(own_threshold(quiet), abs=0.8)


def test_truth_is_read_from_spans_labels_and_ucf_crimes_lines(tmp_path):
    texts = {
        "spans.csv": "event,first_frame,last_frame\n1,2,3\n2,8,9\n",
        "labels.csv": "label\n0\n0\n1\n1\n0\n0\n0\n0\n1\n1\n",
        "ucf.txt": "Other.mp4  Abuse  1  2  -1  -1\ncamera.mp4  Abuse  2  3  8  9\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        found = events.read_truth(tmp_path / name, "videos/camera.mp4")(10)
        assert np.flatnonzero(found).tolist() == [2, 3, 8, 9], name
    np.save(tmp_path / "column.npy", np.eye(10)[:, [3]])
    assert np.flatnonzero(events.read_truth(tmp_path / "column.npy", "camera.mp4")(10)).tolist() == [3]
    (tmp_path / "spans.csv").write_text("event,first_frame,last_frame\n")  # an events.csv of a quiet video
    assert not events.read_truth(tmp_path / "spans.csv", "camera.mp4")(10).any()
    for name, video, frames, message in (
        ("labels.csv", "camera.mp4", 11, r"of shape \[10\] for 11 frames"),
        ("ucf.txt", "absent.mp4", 10, "no line on absent"),
        ("ucf.txt", "camera.mp4", 5, "lies outside the video's 5 frames"),
        ("absent.csv", "camera.mp4", 5, "no such file"),
    ):
        with pytest.raises(ZsadError, match=message):
            events.read_truth(tmp_path / name, video)(frames)
    for value in ("0.5", "nan", "-1", "2"):
        (tmp_path / "labels.csv").write_text(f"label\n0\n{value}\n")
        with pytest.raises(ZsadError, match="labels other than 0 and 1"):  # before any frame is scored
            events.read_truth(tmp_path / "labels.csv", "camera.mp4")


def test_the_closing_line_says_what_was_found(scored):
    table = scored(np.r_[np.sin(np.arange(40)), 9.0, 9.5])
    assert events.in_words(table).startswith("events above ") and ": 1, the highest (9.50) at 4.1 s" in events.in_words(
        table
    )
    assert events.in_words(table[:40]).startswith("no event: no score above ")
    assert "flat" in events.in_words(scored(np.full(40, 1.25)))
    assert "no window has ended" in events.in_words(table.assign(warmup=True))
