"""Per-class metrics against scikit-learn, and the table of confusions."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from zsad_lib.errors import ZsadError
from zsad_lib.evaluate.class_metrics import METRICS, Truth, confusion, recognition, truth
from zsad_lib.files.annotations import write_classes
from zsad_lib.files.manifest import save_manifest

NAMES = ["fire", "normal", "fight", "never shown"]


@pytest.fixture
def known():
    frames = {f"v{i}": np.full(10, 1) for i in range(6)}
    frames["v0"][2:6], frames["v1"][5:], frames["v2"][:4] = 0, 2, 2
    return Truth(frames, NAMES, 1)


@pytest.fixture
def probabilities(known):
    rng = np.random.default_rng(0)
    return {video: rng.dirichlet(np.ones(4), (2, len(ids))) for video, ids in known.frames.items()}


def test_classes_equal_scikit_learn(known, probabilities):
    found = {(e.metric, e.group): e for e in recognition(probabilities, known, draws=20)}
    truth = np.concatenate(list(known.frames.values()))
    joined = np.concatenate([probabilities[video] for video in known.frames], axis=1)  # [S, T, K]
    for metric, function in (("class_auc", roc_auc_score), ("class_ap", average_precision_score)):
        values = []
        for number, name in ((0, "fire"), (2, "fight")):
            expected = np.mean([function(truth == number, one[:, number]) for one in joined])
            assert found[metric, f"class:{name}"].draws[0] == pytest.approx(expected)
            values.append(expected)
        mean = found["mauc" if metric == "class_auc" else "map", "all"]
        assert mean.draws[0] == pytest.approx(np.mean(values)) and len(mean.draws) == 21
        assert mean.prevalence == pytest.approx(13 / 60)
    assert len(found) == 6 and {e.metric for e in found.values()} == set(METRICS)  # a class without frames has no row


def test_confusion_counts_frames_by_their_largest_probability(known):
    sure = {video: np.eye(4)[ids] for video, ids in known.frames.items()}
    sure["v0"] = sure["v0"][:, [1, 0, 2, 3]]  # fire and normal exchanged in one video
    shares = confusion(sure, known)
    assert shares.loc["fire", "normal"] == 1 and shares.loc["fight", "fight"] == 1
    assert shares.loc["normal", "fire"] == pytest.approx(6 / 47)
    assert shares.loc["never shown"].sum() == 0 and shares.index.name == "true"


def test_what_does_not_fit_is_refused(known, probabilities):
    with pytest.raises(ZsadError, match="class probabilities: none for v0"):
        recognition({v: p for v, p in probabilities.items() if v != "v0"}, known)
    with pytest.raises(ZsadError, match="v3: 2 class probabilities, 4 classes"):
        recognition(probabilities | {"v3": np.ones((2, 10, 2))}, known)
    with pytest.raises(ZsadError, match="mAUC is undefined"):
        recognition(probabilities, known._replace(frames={v: np.full(10, 1) for v in known.frames}))


def test_truth_is_the_class_inside_the_spans(tmp_path):
    common = dict(path="v.mp4", scene="road", site="s", n_frames=6, fps=10.0, caption="")
    rows = [
        dict(common, video="a", split="test", set="main", family="semantic", action="fire", spans="2-3"),
        dict(common, video="b", split="test", set="main", family="normal", action="normal", spans=""),
        dict(common, video="c", split="test", set="stream", family="mixed", action="mixed", spans="0-1"),
        dict(common, video="d", split="val", set="main", family="semantic", action="fight", spans="0-5"),
    ]
    save_manifest(pd.DataFrame(rows), tmp_path)
    write_classes(tmp_path / "classes.csv", NAMES)
    known = truth(tmp_path)
    assert {video: ids.tolist() for video, ids in known.frames.items()} == {"a": [1, 1, 0, 0, 1, 1], "b": [1] * 6}
    assert known.normal_id == 1 and list(truth(tmp_path, "val").frames) == ["d"]
