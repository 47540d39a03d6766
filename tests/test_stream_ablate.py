"""The ablation on streams: arrays, trials, frame scores, tables. The numbers of tiny runs mean nothing; what is tested
is the machinery."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from zsad_lib.ablations import engine, grids, run, stream_arrays, stream_grid, stream_trial
from zsad_lib.ablations.grids import FUSED, StreamRow, grid
from zsad_lib.ablations.stream_arrays import LOCAL
from zsad_lib.ablations.stream_grid import Streams
from zsad_lib.errors import ZsadError
from zsad_lib.features.cache import cache_folder, feature_file, load_features
from zsad_lib.files.manifest import frame_labels
from zsad_lib.methods.context_aware import train
from zsad_lib.methods.context_aware.scorer import load_scorer

NAMES = ("none", "shuffled", "relevance_global", "local_memory_alone", "prediction_steps_200")
FEW = [
    *(row for row in grid("stream") if row.name in NAMES and not (row.name != "none" and row.tuned and row.passes > 1)),
    StreamRow("relevance", "gate", terms=("s_sem",), control="none/plain/semantic"),
    StreamRow("relevance", "gate", passes=0, control="none/plain/full"),
    StreamRow("relevance", "gate", terms=FUSED, passes=0, control="none/plain/fused"),
]
FEW = [dataclasses.replace(row, passes=min(row.passes, 1)) for row in FEW]


@pytest.fixture(scope="module")
def table(tiny_run):
    """The table of `FEW` as the command writes it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(grids.GRIDS, "stream", lambda: FEW)
        path = run.ablate(["stream"], tiny_run[0])["stream"]
    return pd.read_csv(path), path


@pytest.fixture(scope="module")
def method(tiny_run, table):
    return Streams(tiny_run[0])


def row_of(name, score="semantic"):
    return next(row for row in FEW if (row.name, row.score) == (name, score))


def arrays_of(method):
    return stream_arrays.freeze(method.profile, method.told, method.table)


def test_the_grid_has_every_gate_control_and_term_once():
    keys = {row.key for row in grid("stream")}
    wanted = {"none/plain", "zero/swap", "shuffled/swap", "relevance_global/swap"}
    wanted |= {f"{gate}/{objective}" for gate in ("silu", "ln", "film", "relevance") for objective in ("plain", "swap")}
    assert {f"{key}/{score}" for key in wanted for score in ("semantic", "full", "fused")} <= keys
    left_out = {row.name: set(FUSED) - set(row.terms) for row in grid("stream") if row.name.startswith("no_")}
    assert sorted(left_out) == ["no_global_memory", "no_local_memory", "no_prediction", "no_text"]
    assert {term for missing in left_out.values() for term in missing} == set(FUSED)
    assert {row.name for row in grid("stream") if row.variant.readout == "global"} == {
        "relevance_global",
        "old_stand_ins",
    }


def test_terms_that_nothing_trains_are_those_of_the_run(method, tiny_run):
    scorer, _ = load_scorer(tiny_run[1] / "score" / "full" / "0" / "scorer.safetensors")
    streams = stream_arrays.load(arrays_of(method), "test")
    one = method.table[method.table.split == "test"].iloc[1]
    features = load_features(feature_file(cache_folder(tiny_run[0]), one))
    [terms] = scorer.terms([features])
    for name in ("s_mem", "s_mem_global"):  # the scorer's memory is in half precision
        np.testing.assert_allclose(streams.split(streams.terms[name])[one.video], terms[name], atol=2e-3)
    number = streams.videos.index(one.video)
    own = streams.windows.clip_and_block[streams.at[:, 0], 0] == number
    torch.testing.assert_close(streams.region[own], features.region.float())
    torch.testing.assert_close(streams.windows.clip_and_block[streams.at[own, 0], 1], features.region_at[:, 0].long())


def test_a_trial_scores_pictures_by_their_three_oddest_regions(method):
    [folder, _] = method.trials(row_of("relevance"))
    detector, streams = (
        train.load_detector(folder / "detector.safetensors"),
        stream_arrays.load(arrays_of(method), "val"),
    )
    bank = stream_arrays.load_training(arrays_of(method))[0].pairs.bank
    window, picture = streams.at[len(streams.at) // 2, :2].tolist()
    here = (streams.at[:, 0] == window) & (streams.at[:, 1] == picture)
    with torch.no_grad():
        gated = detector.gate(bank, detector.context(streams.windows.scene[window][None]))
        scores = 1 - (streams.region[here] @ gated[0].T).amax(1)
    with np.load(folder / "val.npz") as terms:
        expected = scores.topk(min(3, len(scores))).values.mean()
        assert terms["s_sem"][window, picture] == pytest.approx(expected.item(), abs=1e-5)
        assert np.isnan(terms["s_sem"]).sum() == np.isnan(streams.terms["s_mem"]).sum()


def test_a_global_read_out_has_one_score_per_window(method):
    [folder, _] = method.trials(row_of("relevance_global"))
    with np.load(folder / "test.npz") as terms:
        assert terms["s_sem"].shape == (len(stream_arrays.load(arrays_of(method), "test").windows.scene),)
    assert folder.parent.name == "relevance-swap-readout=global"


def test_a_predictive_stream_is_tuned_per_seed_and_the_gate_not_at_all_by_it(method):
    arrays, row = arrays_of(method), row_of("prediction_steps_200", "full")
    of_seeds = [stream_arrays.predicted(arrays, "test", seed, row.passes) for seed in (0, 1)]
    pretrained = stream_arrays.load(arrays, "test").terms["s_pred"]
    assert of_seeds[0].shape == of_seeds[1].shape == pretrained.shape
    assert not np.allclose(*of_seeds) and not np.allclose(of_seeds[0], pretrained)
    assert method.trials(row_of("none")) == [] and method.trials(row_of("local_memory_alone", "fused")) == []


def test_a_predictive_stream_tuned_in_full_is_the_runs_own(method, tiny_run):
    arrays = arrays_of(method)
    stream_arrays.tune(method.profile, method.told, method.table, arrays, 1, stream_arrays.PASSES)
    found = stream_arrays.load(arrays, "test").split(stream_arrays.predicted(arrays, "test", 1, stream_arrays.PASSES))
    scorer, _ = load_scorer(tiny_run[1] / "score" / "full" / "1" / "scorer.safetensors")
    one = method.table[method.table.split == "test"].iloc[0]
    [terms] = scorer.terms([load_features(feature_file(cache_folder(tiny_run[0]), one))])
    np.testing.assert_allclose(found[one.video], terms["s_pred"], atol=1e-6)
    assert not (arrays / f"stream-{stream_arrays.PASSES}-1" / "detector.safetensors").exists()


def test_frame_scores_are_those_of_the_run_and_labels_of_the_test_streams_reach_none(method, tiny_run):
    row, rows = row_of("local_memory_alone", "fused"), method.table[method.table.split == "test"]
    scores = method.frame_scores(row, "test")
    for one in rows.itertuples():
        of_run = pd.read_csv(tiny_run[1] / "scores" / "knn" / "0" / f"{one.video}.csv").score
        np.testing.assert_allclose(scores[one.video], np.stack([of_run, of_run]), atol=0.05)
    other = Streams(tiny_run[0])
    test = other.table.split == "test"
    other.table = other.table.assign(spans=other.table.spans.mask(test, "0-3"), scene=other.table.scene.mask(test, "x"))
    again = other.frame_scores(row_of("relevance", "fused"), "test")
    assert all(
        np.array_equal(again[v], s) for v, s in method.frame_scores(row_of("relevance", "fused"), "test").items()
    )


def test_the_table_counts_events_and_compares_with_the_control(table, method):
    frame, path = table
    assert set(frame.group) == {"set:stream"} and set(frame.metric) == {"micro_auc", "macro_auc"}
    assert set(frame.score) == {"semantic", "full", "fused"} and (frame.seeds == 2).all()
    known = frame.set_index(["variant", "score", "metric", "family"])
    for r in frame[frame.variant == "shuffled"].itertuples():
        gap = r.value - known.value["relevance", r.score, r.metric, r.family]
        assert r.delta == pytest.approx(gap, abs=1e-8) and r.delta_low <= r.delta <= r.delta_high
    rows, scores = method.table[method.table.split == "test"], method.frame_scores(row_of("relevance"), "test")
    labels = np.concatenate([frame_labels(one) for one in rows.itertuples()])
    joined = np.concatenate([scores[video] for video in rows.video], 1)
    by_hand = np.mean([roc_auc_score(labels, one) for one in joined])
    assert known.value["relevance", "semantic", "micro_auc", "all"] == pytest.approx(by_hand, abs=1e-8)
    validation = pd.read_csv(path.with_name("ablation_stream_validation.csv"))
    assert list(validation.variant.unique()) == list(frame.variant.unique()) and not validation.value.equals(
        frame.value
    )
    for suffix in (".md", ".tex"):
        text = path.with_suffix(suffix).read_text(encoding="utf-8")
        assert "relevance (swap)" in text and "Macro AUC of frames" in text and "NOT RESULTS" in text


def test_a_second_run_trains_and_evaluates_nothing(table, tiny_run, monkeypatch, capsys):
    monkeypatch.setitem(grids.GRIDS, "stream", lambda: FEW)
    for module, name in ((stream_trial, "train_detector"), (stream_arrays, "train_detector"), (engine, "tabulate")):
        monkeypatch.setattr(module, name, None)
    before = table[1].read_bytes()
    run.ablate(["stream"], tiny_run[0])
    assert "6 of 6 are done already" in capsys.readouterr().out and table[1].read_bytes() == before
    changed = stream_trial.trial_key(tiny_run[0], LOCAL, 1, tiny_run[1])
    assert changed != stream_trial.trial_key(tiny_run[0], LOCAL, 0, tiny_run[1])


def test_former_stand_ins_are_rows_where_their_weights_are(tiny_run, tmp_path, monkeypatch):
    with monkeypatch.context() as without:
        without.setattr(grids, "SHIPPED", tmp_path)
        assert not any(row.former for row in grid("stream"))
    rows = [dataclasses.replace(row, passes=1) for row in grid("stream") if row.former]
    assert [(row.key, row.control) for row in rows] == [
        (f"old_stand_ins/swap/{score}", f"relevance_global/swap/{score}") for score in ("semantic", "full", "fused")
    ]
    method = Streams(dataclasses.replace(tiny_run[0], seeds=(0,)))
    method.table = method.table.groupby(["split", "family"]).head(1)
    method.told = method.told[method.told.video.isin(method.told.video.unique()[:2])]
    method.train(rows)
    assert len(pd.read_csv(tiny_run[1] / "ablation" / "former" / "data" / "manifest.csv")) == 6  # a remembered clip
    for row in rows:
        assert {estimate.group for estimate in method.estimates(row, "test")} == {"set:stream"}


def test_a_benchmark_without_streams_is_told_in_one_line(tiny_run, monkeypatch):
    whole = stream_grid.load_manifest(tiny_run[1] / "data")
    monkeypatch.setattr(stream_grid, "load_manifest", lambda _: whole[whole.set == "main"])
    with pytest.raises(ZsadError, match="profile smoke: has no streams to ablate; set streams=1"):
        Streams(tiny_run[0])
