"""The content-free floors, by hand and on the official UCF-Crime test annotation."""

import numpy as np
import pandas as pd
import pytest

from zsad_lib.__main__ import main
from zsad_lib.evaluate.evaluation import COLUMNS
from zsad_lib.evaluate.floors import FLOORS, floor_scores


def test_floors_by_hand():
    made = floor_scores({"a": 4, "b": 2}, {"a": np.zeros(4), "b": np.array([0, 1])}, seed=3)
    assert tuple(made) == FLOORS
    assert made["shorter"]["a"].tolist() == [-4] * 4 and made["shorter"]["b"].tolist() == [-2] * 2
    centre = [np.exp(-0.5 * (d / 2) ** 2) for d in (1.5, 0.5, 0.5, 1.5)]  # deviation: half of 4 frames
    np.testing.assert_allclose(made["centre"]["a"], centre)
    assert made["video_label"]["a"].tolist() == [0] * 4 and made["video_label"]["b"].tolist() == [1, 1]
    np.testing.assert_array_equal(made["video_label_centre"]["b"], made["centre"]["b"])
    again = floor_scores({"b": 2, "a": 4}, {"a": np.zeros(4), "b": np.array([0, 1])}, seed=3)
    np.testing.assert_array_equal(made["random"]["b"], again["random"]["b"])
    assert (floor_scores({"a": 4}, {"a": np.zeros(4)}, seed=4)["random"]["a"] != made["random"]["a"]).all()


@pytest.mark.data
def test_floors_of_ucf_crime_need_no_video(annotations, run_home, capsys):
    """Spans are 0-based with inclusive ends: 84,331 abnormal frames; the values below are rounded to one decimal."""
    assert (
        main(["floors", "--profile", "ucf_crime", f"DATA_ROOT={annotations}", "bootstrap_draws=50", "seeds=0,1"]) == 0
    )
    table = pd.read_csv(run_home / "runs" / "ucf_crime" / "floors.csv")
    assert tuple(table.columns) == COLUMNS and not table.duplicated(["method", "metric"]).any()
    value = table.set_index(["metric", "method"]).value
    expected = {"micro_auc": (49.9, 65.2, 61.9, 81.6, 86.5), "ap": (7.6, 10.4, 10.0, 18.2, 24.1)}
    for metric, percents in expected.items():
        for name, percent in zip(FLOORS, percents):
            assert 100 * value[metric, name] == pytest.approx(percent, abs=0.1), (metric, name)
    text = capsys.readouterr().out
    assert "290 test videos, 1,111,808 frames, 84,331 abnormal" in text and "7 videos have spans that end" in text
    for words in ("214 of 290 test videos, 128 of 150 normal ones, in list UCA train", "22 of 290 test videos, 9 of"):
        assert words in text
    assert "50 of 290" in text and "128 of 290 test videos, 128 of 150 normal ones, in list released train" in text


def test_floors_without_the_data_say_where_to_get_it(run_home, capsys):
    assert main(["floors", "--profile", "ucf_crime"]) == 2
    shown = capsys.readouterr()
    assert "1,610 train, 290 test videos" in shown.out and "Anomaly_Test.txt" in shown.out
    assert shown.err.startswith("error: ") and "crcv.ucf.edu" in shown.err and shown.err.count("\n") == 1
    assert main(["floors", "--profile", "demo"]) == 2 and "make reproduce PROFILE=demo" in capsys.readouterr().err
