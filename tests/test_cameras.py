"""Several cameras calibrated together: what their gate learns, and what a folder of cameras must hold."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from data_prep.scene_rules.prompts import prompts
from zsad_lib.__main__ import main
from zsad_lib.config import get_profile
from zsad_lib.errors import ZsadError
from zsad_lib.files.manifest import frame_labels, load_manifest
from zsad_lib.files.spans import format_spans, parse_spans
from zsad_lib.files.weights import load_weights
from zsad_lib.models.gates import ContextGate
from zsad_lib.own_video import cameras
from zsad_lib.own_video.cameras import calibrate_cameras
from zsad_lib.own_video.detector import own_detector
from zsad_lib.own_video.scoring import frame_table, score_video, score_windows, seen_frames
from zsad_lib.own_video.ticks import Seen
from zsad_lib.own_video.words import Words
from zsad_lib.pipeline.run_step import ensure, run_folder


@pytest.fixture(scope="module")
def site(tmp_path_factory, tiny_run):
    """A folder of three cameras: two normal videos each, rendered, and what is normal there."""
    folder = tmp_path_factory.mktemp("site")
    rows = load_manifest(tiny_run[1] / "data").query("split == 'before'")
    for place in ("road", "corridor", "park"):
        of_place = rows[rows.scene == place]
        (folder / place).mkdir()
        for number, path in enumerate(of_place.path):
            (folder / place / f"{number}.mp4").symlink_to(path)
        seen = sorted({action for actions in of_place.action for action in actions.split("+")})
        (folder / place / "captions.txt").write_text("\n".join(prompts(seen)), encoding="utf-8")
    return folder


@pytest.fixture
def quick(monkeypatch, run_home):
    monkeypatch.setattr(cameras, "STEPS", 120)
    monkeypatch.setattr(cameras, "CHECKPOINT_EVERY", 40)
    return run_home


def test_the_gate_opens_sentences_where_they_belong(site, quick, monkeypatch, capsys):
    descend, taken = cameras.descend, []

    def stop_once(*arguments):
        taken.append(1)
        if len(taken) == 100:
            raise KeyboardInterrupt
        descend(*arguments)

    monkeypatch.setattr(cameras, "descend", stop_once)
    command = ["calibrate", "--cameras", str(site), "--name", "site", "--far", "0.3"]
    assert main(command) == 130
    assert main(command) == 0 and len(taken) == 100 + 40, "80 steps were kept, 40 go on"
    told = capsys.readouterr().out
    assert "how far the gate opens each sentence at each camera" in told and told.count("score with --run site-") == 3
    table = pd.read_csv(quick / "runs" / "site" / "gate.csv", index_col="sentence")
    assert list(table) == ["corridor", "park", "road"]
    own = {place: (site / place / "captions.txt").read_text(encoding="utf-8").splitlines() for place in table}
    belongs = np.array([[sentence in own[place] for place in table] for sentence in table.index])
    assert table.to_numpy()[belongs].mean() - table.to_numpy()[~belongs].mean() > 0.4
    for place in table:
        one = own_detector(f"site-{place}")
        assert one.scorer.captions == list(table.index) and one.scorer.detector.gate.kind == "relevance"
        assert len(one.meta["normal"]) == 2 and one.meta["threshold"] > 0
        assert np.isfinite(score_video(site / place / "0.mp4", f"site-{place}").score).all()
    again, targets = calibrate_cameras(site, "site", far=0.3)
    np.testing.assert_allclose(again, table, atol=1e-3)  # the file has three places
    assert len(taken) == 140 and load_weights(targets["road"])[1]["variant"]["gate"] == "relevance"


def test_what_a_folder_of_cameras_must_hold(site, quick, tmp_path, capsys):
    (tmp_path / "one").mkdir()
    with pytest.raises(ZsadError, match="1 folders; a gate needs two cameras or more"):
        calibrate_cameras(tmp_path, "x")
    (tmp_path / "two").mkdir()
    with pytest.raises(ZsadError, match=r"one/captions.txt: missing; write what is normal there"):
        calibrate_cameras(tmp_path, "x")
    with pytest.raises(ZsadError, match="one: no video"):
        calibrate_cameras(tmp_path, "x", words=Words(normal=["a man walks by"]))
    with pytest.raises(ZsadError, match="absent: no such folder"):
        calibrate_cameras(tmp_path / "absent", "x")
    for arguments in ([], ["normal", "--cameras", "site"]):
        assert main(["calibrate", *arguments]) == 2
        assert (
            "give a folder of one camera's normal videos, or --cameras a folder of cameras" in capsys.readouterr().err
        )
    assert not (quick / "runs").exists() or not list((quick / "runs").iterdir())


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """(manifest of normal videos and test streams of two minutes, one camera in each of six scenes)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZSAD_HOME", str(tmp_path_factory.mktemp("home")))
        few = dict(train_clips=2, normal_clips=1, family_clips=1, weak_clips=1, stream_frames=1200, before_frames=1200)
        profile = get_profile("smoke", **few)
        ensure("data", profile)
        yield load_manifest(run_folder(profile) / "data")


@pytest.mark.thorough
@pytest.mark.parametrize("places", [("road", "park", "corridor"), ()], ids=["three", "six"])
def test_acts_that_are_normal_elsewhere_are_found_by_the_gate_alone(rendered, places, run_home, tmp_path):
    before, streams = rendered.query("split == 'before'"), rendered.query("split == 'test' and set == 'stream'")
    places = places or tuple(streams.scene.unique())
    for place in places:
        rows = before[before.scene == place]
        seen = sorted({action for actions in rows.action for action in actions.split("+")})
        (tmp_path / place).mkdir()
        (tmp_path / place / "captions.txt").write_text("\n".join([*prompts(seen), "nothing moves"]), encoding="utf-8")
        for number, path in enumerate(rows.path):
            (tmp_path / place / f"{number}.mp4").symlink_to(path)
    calibrate_cameras(tmp_path, "site")
    scored = {gate: [] for gate in ("relevance", "none")}
    contextual, normal = [], []
    for row in streams[streams.scene.isin(places)].itertuples():
        kinds = zip(parse_spans(row.spans), row.kinds.split(";"), strict=True)
        spans = format_spans(span for span, kind in kinds if kind.startswith("contextual"))
        contextual.append(frame_labels(row._replace(spans=spans)) > 0)
        normal.append(frame_labels(row) == 0)
        for gate, scores in scored.items():
            own, frames = own_detector(f"site-{row.scene}"), Seen()
            if gate == "none":
                own.scorer.detector.gate = ContextGate("none", 64, 32)
            windows = score_windows(seen_frames(row.path, frames, own.size), own)
            scores.append(frame_table(windows, frames).s_sem.to_numpy())

    def auc(gate, drawn):
        kept = [contextual[i] | normal[i] for i in drawn]
        labels = np.concatenate([contextual[i][some] for i, some in zip(drawn, kept)])
        return roc_auc_score(labels, np.concatenate([scored[gate][i][some] for i, some in zip(drawn, kept)]))

    rng, whole = np.random.default_rng(0), range(len(contextual))
    draws = [rng.integers(len(contextual), size=len(contextual)) for _ in range(500)]
    differences = [auc("relevance", drawn) - auc("none", drawn) for drawn in draws]
    low, high = np.quantile(differences, (0.025, 0.975))
    found = auc("relevance", whole), auc("none", whole)
    print(f"{len(whole)} cameras, contextual AUC of s_sem: {found[0]:.3f} with the gate, {found[1]:.3f} without,")
    print(f"difference {found[0] - found[1]:.3f}, 95 % interval {low:.3f} to {high:.3f}")
    assert found[0] - found[1] > 0.15 and (len(whole) < 6 or low > 0.1)
