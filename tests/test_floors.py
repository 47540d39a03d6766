"""The content-free floors, by hand and on the official UCF-Crime test annotation."""

import numpy as np
import pytest

from zsad_lib.evaluate import evaluate
from zsad_lib.floors import FLOORS, floor_scores
from zsad_lib.manifest import frame_labels, read_temporal


def test_floors_by_hand():
    floors = floor_scores({"a": 4, "b": 2}, {"a": np.zeros(4), "b": np.array([0, 1])}, seed=3)
    assert tuple(floors) == FLOORS
    assert floors["shorter"]["a"].tolist() == [-4] * 4 and floors["shorter"]["b"].tolist() == [-2] * 2
    centre = [np.exp(-0.5 * (d / 2) ** 2) for d in (1.5, 0.5, 0.5, 1.5)]  # deviation: half of 4 frames
    np.testing.assert_allclose(floors["centre"]["a"], centre)
    assert floors["video_label"]["a"].tolist() == [0] * 4 and floors["video_label"]["b"].tolist() == [1, 1]
    np.testing.assert_array_equal(floors["video_label_centre"]["b"], floors["centre"]["b"])
    again = floor_scores({"b": 2, "a": 4}, {"a": np.zeros(4), "b": np.array([0, 1])}, seed=3)
    np.testing.assert_array_equal(floors["random"]["b"], again["random"]["b"])
    assert (floor_scores({"a": 4}, {"a": np.zeros(4)}, seed=4)["random"]["a"] != floors["random"]["a"]).all()


@pytest.mark.data
def test_floors_on_ucf_crime(shared):
    """Spans are 0-based with inclusive ends: 84,331 abnormal frames; the values below are rounded to one decimal."""
    folder = shared / "data" / "annotations" / "ucf_crime"
    if not folder.is_dir():
        pytest.skip("no UCF-Crime annotation in ../shared")
    lines = (folder / "test_frame_counts.txt").read_text().split("\n")
    lengths = {name: int(last) + 1 for name, _, last, _ in (line.split() for line in lines if line)}
    table = read_temporal(folder / "Temporal_Anomaly_Annotation_for_Testing_Videos.txt")
    table["n_frames"] = table["video"].map(lengths)
    labels = {row.video: frame_labels(row) for row in table.itertuples()}
    assert (len(labels), sum(map(len, labels.values())), sum(y.sum() for y in labels.values())) == (290, 1111808, 84331)
    floors = floor_scores(lengths, labels, seed=0)
    for name, auc, ap in zip(FLOORS, (49.9, 65.2, 61.9, 81.6, 86.5), (7.6, 10.4, 10.0, 18.2, 24.1)):
        found = evaluate(floors[name], labels, metrics=["micro_auc", "ap"], draws=1).set_index("metric")["value"]
        tolerance = 0.15 if name == "random" else 0.051
        assert 100 * found["micro_auc"] == pytest.approx(auc, abs=tolerance), name
        assert 100 * found["ap"] == pytest.approx(ap, abs=tolerance), name
