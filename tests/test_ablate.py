"""Ablations: grids, frozen windows, trials, tables. The numbers of tiny runs mean nothing; what is tested is the
machinery."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from matplotlib import pyplot as plt

from zsad_lib.__main__ import main
from zsad_lib.ablations import context_aware_grid, engine, frozen_windows, grids, run, trial
from zsad_lib.ablations.context_aware_grid import videos
from zsad_lib.ablations.grids import GRIDS, Row, grid
from zsad_lib.config import get_profile
from zsad_lib.errors import ZsadError
from zsad_lib.evaluate.protocol import estimates
from zsad_lib.features.backbones import stand_ins
from zsad_lib.features.cache import cache_folder, feature_file, load_features
from zsad_lib.files.manifest import load_manifest, save_manifest
from zsad_lib.files.weights import load_weights
from zsad_lib.methods.context_aware import score_step, train
from zsad_lib.methods.context_aware.scorer import Scorer, with_memory
from zsad_lib.methods.context_aware.training_windows import with_context
from zsad_lib.models.gates import GATES
from zsad_lib.processes import parallel
from zsad_lib.results import ablation_plots

FEW = [
    Row("none", "no context", dataclasses.replace(trial.BASE, gate="none", objective="plain"), ("s_sem",)),
    Row("relevance", "gate", trial.BASE, ("s_sem",), control="none/plain/semantic"),
    Row("memory", "and neighbours", trial.BASE, ("s_sem", "s_mem"), control="none/plain/semantic"),
    Row("mixture", "fused by scene", trial.BASE, ("s_sem",), fusion="mixture", control="none/plain/semantic"),
]


@pytest.fixture(scope="module")
def windows(tiny_run):
    profile, folder = tiny_run
    table = videos(profile)
    assert set(load_manifest(folder / "data").set) - set(table.set) == {"stream"} and "before" not in set(table.split)
    arrays = frozen_windows.freeze(profile, table)
    for seed in profile.seeds:
        frozen_windows.tune(profile, table, arrays, seed)
    return profile, table, arrays


@pytest.fixture(scope="module")
def one_trial(windows, tmp_path_factory):
    profile, table, arrays = windows
    folder = tmp_path_factory.mktemp("trial") / "0"
    return trial.run_trial(profile, trial.BASE, 0, table, arrays, folder)


# --- grids -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GRIDS)
def test_every_row_has_a_name_of_its_own_and_a_control_of_its_grid(name):
    rows = grid(name)
    keys = [row.key for row in rows]
    assert len(set(keys)) == len(keys)
    assert all(row.control in keys for row in rows if row.control) and sum(not row.control for row in rows) <= 3
    assert all(row.says for row in rows)


def test_the_gate_grid_crosses_gates_with_objectives_and_both_scores():
    keys = {row.key for row in grid("gate")}
    wanted = {f"{g}/{o}/{s}" for g in GATES for o in ("plain", "swap", "reject") for s in ("semantic", "full")}
    assert {key for key in wanted if not key.startswith("none/")} | {"none/plain/full"} <= keys
    assert {f"{name}/swap/semantic" for name in ("shuffled", "zero", "global")} <= keys


def test_an_unknown_grid_names_the_nearest():
    with pytest.raises(ZsadError, match="grid 'gates' is unknown; did you mean 'gate'"):
        grid("gates")


# --- frozen windows --------------------------------------------------------------------------------------------------


def test_frozen_windows_are_those_of_the_videos(windows):
    profile, table, arrays = windows
    split = frozen_windows.load(arrays, "test", 0)
    row = table[table.split == "test"].iloc[3]
    clip = split.videos.index(row.video)
    own = split.windows.clip_and_block[:, 0] == clip
    read = lambda one: load_features(feature_file(cache_folder(profile), one))
    features, clips = read(row), [read(one) for one in table[table.split == "train"].itertuples()]
    torch.testing.assert_close(split.windows.scene[own], features.scene)
    detector = train.load_detector(arrays / "stream-0" / "detector.safetensors")
    scorer = Scorer(detector, frozen_windows.load(arrays, "train").bank, [], torch.empty(0))
    [terms] = with_memory(scorer, clips).terms([features])
    for name in ("s_mem", "s_pred", "s_all", "s_peak", "s_motion"):
        expected = torch.from_numpy(terms["s_mem_global" if name == "s_mem" else name]).float()
        torch.testing.assert_close(split.terms[name][own], expected, atol=1e-5, rtol=1e-5, msg=name)


def test_freezing_again_computes_nothing(windows, monkeypatch):
    profile, table, arrays = windows
    monkeypatch.setattr(frozen_windows, "load_features", None)
    assert frozen_windows.freeze(profile, table) == arrays
    assert frozen_windows.tune(profile, table, arrays, 0).is_file()


def test_captions_of_look_alike_scenes_by_loops(windows):
    _, _, arrays = windows
    known, seen = frozen_windows.load(arrays, "train"), frozen_windows.load(arrays, "val")
    alike = trial.look_alike(known, seen, 0.7)
    mean, deviation = known.windows.scene.mean(0), known.windows.scene.std(0).clamp_min(1e-6)
    for w in (0, 7):
        cosine = F.cosine_similarity(
            (seen.windows.scene[w] - mean) / deviation, (known.windows.scene - mean) / deviation
        )
        expected = {int(c) for c, near in zip(known.windows.caption, cosine) if near >= 0.7}
        expected = expected or set(range(len(known.bank)))
        assert set(alike[w].nonzero().flatten().tolist()) == expected
    assert trial.look_alike(known, seen, 1.1).all()  # nothing is alike: all captions


@pytest.mark.parametrize("source", ["scene", "shuffled", "zero", "global"])
def test_controls_change_the_context_alone(windows, source):
    before = frozen_windows.load(windows[2], "train").windows
    after = with_context(before, source, 0)
    for name in before._fields:
        if name not in ("context", "stem", "cell_motion"):
            assert getattr(after, name) is getattr(before, name)
    if source == "shuffled":
        assert torch.equal(after.context.sort(0).values, before.scene.sort(0).values)
        assert not torch.equal(after.context, before.scene)
    else:
        expected = {"scene": before.scene, "zero": torch.zeros_like(before.scene), "global": before.timesformer}
        assert torch.equal(after.context, expected[source])


# --- trials ----------------------------------------------------------------------------------------------------------


def test_a_trial_scores_windows_as_the_detector_says(windows, one_trial):
    detector = train.load_detector(one_trial / "detector.safetensors")
    split, bank = frozen_windows.load(windows[2], "test", 0), frozen_windows.load(windows[2], "train").bank
    with torch.no_grad():
        v = detector.embed(split.windows.timesformer[:5], split.windows.dpc[:5])
        gated = detector.gate(bank, detector.context(split.windows.scene[:5]))  # [5, K, D]
    expected = 1 - torch.einsum("bd,bkd->bk", v, gated).amax(1)
    with np.load(one_trial / "test.npz") as terms:
        np.testing.assert_allclose(terms["s_sem"][:5], expected, atol=1e-5)
        assert (terms["s_retrieval"] >= terms["s_sem"] - 1e-6).all()  # fewer captions never fit better
        assert ((terms["s_abnormal"] >= 0) & (terms["s_abnormal"] <= 1)).all()


def test_a_finished_trial_is_kept_and_another_setting_is_not(windows, one_trial, monkeypatch):
    profile, table, arrays = windows
    key = trial.trial_key(profile, trial.BASE, 0, arrays)
    assert trial.finished(one_trial, key)
    assert not trial.finished(one_trial, trial.trial_key(profile, trial.BASE, 1, arrays))
    monkeypatch.setattr(trial, "train_detector", None)
    assert trial.run_trial(profile, trial.BASE, 0, table, arrays, one_trial) == one_trial


def test_without_live_windows_the_predictive_stream_is_the_tuned_one_of_its_seed(windows, one_trial):
    detector = train.load_detector(one_trial / "detector.safetensors")
    tuned, other = (frozen_windows.tuned_backbones(windows[0], windows[2], seed).dpc.state_dict() for seed in (0, 1))
    assert all(torch.equal(value, tuned[name]) for name, value in detector.dpc.state_dict().items())
    assert any(not torch.equal(value, other[name]) for name, value in tuned.items())
    pretrained = stand_ins().dpc.state_dict()
    changed = {name for name, value in tuned.items() if not torch.equal(value, pretrained[name])}
    assert changed and all(name.startswith(("backbone.layer4", "agg", "network_pred")) for name in changed)
    split = frozen_windows.load(windows[2], "test", 0)
    assert not torch.equal(split.terms["s_pred"], frozen_windows.load(windows[2], "test", 1).terms["s_pred"])
    assert torch.equal(split.terms["s_mem"], frozen_windows.load(windows[2], "test", 1).terms["s_mem"])


def test_tuned_streams_score_with_their_own_prediction(windows, tmp_path):
    profile, table, arrays = windows
    variant = dataclasses.replace(trial.BASE, live=2, batch=16, gate="ln", objective="plain")
    folder = trial.run_trial(profile, variant, 0, table, arrays, tmp_path / "0")
    with np.load(folder / "val.npz") as terms:
        shared = frozen_windows.load(arrays, "val", 0).terms["s_pred"].numpy()
        assert terms["s_pred"].shape == shared.shape and not np.allclose(terms["s_pred"], shared)


def test_no_label_of_a_test_video_reaches_training_or_scores(windows, one_trial, tiny_run, tmp_path, monkeypatch):
    """Spans, families, scenes and captions of the test videos are replaced by nonsense: weights and scores stay the
    same."""
    profile, folder = tiny_run
    poisoned = load_manifest(folder / "data")
    test = poisoned.split == "test"
    poisoned.loc[test, "spans"] = ["" if spans else "0-3" for spans in poisoned[test].spans]
    poisoned.loc[test, ["caption", "family", "scene", "kinds"]] = ["poison", "semantic", "road", ""]
    save_manifest(poisoned, tmp_path / "data")
    captions = pd.read_csv(folder / "data" / "captions.csv")
    of_test = pd.DataFrame(dict(video=poisoned[test].video, start_s=0.0, end_s=3.0, caption="poison"))
    pd.concat([captions, of_test]).to_csv(tmp_path / "data" / "captions.csv", index=False)
    train.fit(profile, tmp_path / "train")
    score_step.score_all(profile, tmp_path / "score")
    for part in ("train/full/1/detector", "score/full/1/scorer"):
        honest, other = (load_weights(home / f"{part}.safetensors")[1] for home in (folder, tmp_path))
        assert honest["sha256"] == other["sha256"]
    files = sorted((folder / "scores").rglob("*.csv"))
    assert len(files) > 100 and all((tmp_path / f.relative_to(folder)).read_bytes() == f.read_bytes() for f in files)
    monkeypatch.setattr(
        frozen_windows, "windows_folder", lambda *_: tmp_path / "windows"
    )  # computed anew, from the poisoned table
    poisoned = poisoned[poisoned.set != "stream"]
    arrays = frozen_windows.freeze(profile, poisoned)
    frozen_windows.tune(profile, poisoned, arrays, 0)
    again = trial.run_trial(profile, trial.BASE, 0, poisoned, arrays, tmp_path / "trial")
    for name in ("val.npz", "test.npz"):
        with np.load(one_trial / name) as honest, np.load(again / name) as other:
            assert all(np.array_equal(honest[term], other[term]) for term in honest)


@pytest.mark.parametrize("switch", [{"held_out": True}, {"released": ("scene_weights",)}], ids=["held_out", "released"])
def test_switches_of_a_row_do_not_lead_to_another_run(tiny_run, monkeypatch, switch):
    profile, folder = tiny_run

    def extract(of_row, home):
        # what streams look like to switched backbones is read by nobody
        assert home.is_relative_to(folder / "ablation") and of_row != profile
        assert "stream" not in set(load_manifest(home.parent / "data").set)
        raise StopIteration

    monkeypatch.setattr(context_aware_grid, "extract", extract)
    row = dataclasses.replace(grid("gate")[0], **switch)
    with pytest.raises(StopIteration):
        context_aware_grid.ContextAware(profile).train([row])
    assert all(folder in trial.parents for trial in context_aware_grid.ContextAware(profile).trials(row))


def test_names_of_variants_say_what_differs():
    demo = get_profile("demo")
    assert trial.label(trial.BASE, demo) == "relevance-swap"
    variant = dataclasses.replace(trial.BASE, streams=("dpc",), alpha=0.2)
    assert trial.label(variant, demo) == "relevance-swap-streams=dpc-alpha=0.2"
    assert trial.label(trial.BASE, dataclasses.replace(demo, held_out=True)) == "relevance-swap-held_out"


# --- tables ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def few_table(tiny_run, tmp_path_factory):
    """The table of `FEW` as the command writes it, and its printed lines on the first and the second run."""
    profile, folder = tiny_run
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(grids.GRIDS, "gate", lambda: FEW)
        path = run.ablate(["gate"], profile)["gate"]
    return pd.read_csv(path), path


def test_the_table_is_tidy_and_compares_with_the_control(few_table):
    table, path = few_table
    columns = ["method", "variant", "metric", "level", "group", "family", "value", "low", "high",
               "n_videos", "n_frames", "prevalence", "seeds", "objective", "score", "control",
               "delta", "delta_low", "delta_high", "p"]  # fmt: skip
    assert list(table.columns) == columns
    keys = ["method", "variant", "metric", "group", "family", "objective"]
    assert not table.duplicated(keys).any() and (table.seeds == 2).all()
    known = table.set_index(["variant", "metric", "group", "family"])
    for r in table[table.variant == "relevance"].itertuples():
        assert r.delta == pytest.approx(r.value - known.value["none", r.metric, r.group, r.family], abs=1e-8)
        assert r.delta_low <= r.delta <= r.delta_high and 0 <= r.p <= 1
    assert table[table.variant == "none"].delta.isna().all()
    for suffix in (".md", ".tex"):
        text = path.with_suffix(suffix).read_text()
        assert "relevance (swap)" in text and "NOT RESULTS" in text and "2 seeds" in text


def test_the_clip_auc_of_a_row_by_hand(few_table, tiny_run):
    table, _ = few_table
    profile, folder = tiny_run
    manifest = videos(profile)
    arrays = frozen_windows.freeze(profile, manifest)
    test, val = frozen_windows.load(arrays, "test"), frozen_windows.load(arrays, "val")
    spans = manifest.set_index("video").spans
    normal = torch.tensor([spans[v] == "" for v in val.videos])[val.windows.clip_and_block[:, 0]]
    main = manifest[(manifest.split == "test") & (manifest.set == "main")]
    labels = {r.video: np.array([bool(r.spans)] * 2) for r in main.itertuples()}
    values = []
    for seed in profile.seeds:
        home = folder / "ablation" / "trials" / "relevance-swap" / str(seed)
        with np.load(home / "test.npz") as own, np.load(home / "val.npz") as held_out:
            fused = 0
            for far, near in (
                (own["s_sem"], held_out["s_sem"]),
                (test.terms["s_mem"].numpy(), val.terms["s_mem"].numpy()),
            ):
                near = near[normal.numpy()].astype(float)
                fused = fused + (far.astype(float) - near.mean()) / near.std()
        clip = test.windows.clip_and_block[:, 0].numpy()
        windows = {video: fused[clip == i] for i, video in enumerate(test.videos) if video in labels}
        found = estimates(
            {v: x[:2] for v, x in windows.items()}, labels, windows=windows, metrics=["clip_auc"], draws=2
        )
        values.append(found[0].draws[0])
    row = table[
        (table.variant == "memory") & (table.metric == "clip_auc") & (table.family == "all") & (table.group == "all")
    ]
    assert row.value.item() == pytest.approx(np.mean(values), abs=1e-9)


def test_the_best_gate_is_chosen_on_validation_sites_and_compared_with_all(few_table):
    table, path = few_table
    validation = pd.read_csv(path.with_name("ablation_gate_validation.csv"))
    best = pd.read_csv(path.with_name("ablation_gate_best.csv"))
    chosen = validation[
        (validation.metric == "clip_auc")
        & (validation.family == "contextual")
        & validation.variant.isin(["none", "relevance"])
    ]
    assert set(best.best) == {chosen.loc[chosen.value.idxmax(), "variant"]}
    assert len(validation) and not validation.value.equals(table.value)


def test_a_second_run_trains_and_evaluates_nothing(few_table, tiny_run, monkeypatch, capsys):
    monkeypatch.setitem(grids.GRIDS, "gate", lambda: FEW)
    monkeypatch.setattr(trial, "train_detector", None)
    monkeypatch.setattr(engine, "tabulate", None)
    before = few_table[1].read_bytes()
    run.ablate(["gate"], tiny_run[0])
    assert "4 of 4 are done already" in capsys.readouterr().out and few_table[1].read_bytes() == before
    with pytest.raises(TypeError):  # other draws: evaluated anew
        run.ablate(["gate"], dataclasses.replace(tiny_run[0], bootstrap_draws=20))


def test_trials_that_are_all_done_end_quietly(recwarn):
    with engine.workers(2):
        engine.run_trials({}, 3)
    assert not [warning for warning in recwarn if "cancelled" in str(warning.message)]


def test_code_that_is_hashed_by_its_name_is_no_command():
    """As a command a module is called __main__, of which `closure` finds nothing: its tables were never outdated."""
    for path in Path(run.__file__).parents[1].rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not ("closure([__name__" in text and '__name__ == "__main__"' in text), path


def test_tables_outlive_the_step_of_that_name(few_table, tiny_run):
    from zsad_lib.results.run_tables import publish_ablations

    text = few_table[1].read_text()
    few_table[1].unlink()
    publish_ablations(tiny_run[1])
    assert few_table[1].read_text() == text


def test_a_cluster_gives_the_same_numbers(windows, one_trial, tmp_path):
    from distributed import LocalCluster

    profile, table, arrays = windows
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        with engine.workers(1, cluster.scheduler_address):
            tasks = [(profile, trial.BASE, seed, table, arrays, tmp_path / str(seed)) for seed in (0, 1)]
            folders = list(parallel(trial.run_trial, tasks))
    assert [folder.name for folder in folders] == ["0", "1"]
    with np.load(one_trial / "test.npz") as here, np.load(folders[0] / "test.npz") as there:
        assert all(np.array_equal(here[name], there[name]) for name in here)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--grid", "gates"], "did you mean 'gate'"),
        (["--profile", "ped2"], "no captions and scenes to ablate"),
        (["--profile", "demmo"], "did you mean 'demo'"),
    ],
)
def test_bad_input_is_one_line(run_home: Path, capsys, arguments, message):
    assert main(["ablate", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_cluster_that_does_not_answer_is_one_line(monkeypatch):
    monkeypatch.setattr("distributed.Client", lambda *a, **k: (_ for _ in ()).throw(OSError("timed out")))
    with (
        pytest.raises(ZsadError, match="tcp://nowhere:1: no dask scheduler answers"),
        engine.workers(1, "tcp://nowhere:1"),
    ):
        pass


# --- figures ---------------------------------------------------------------------------------------------------------


def test_figures_show_every_row(few_table):
    table, _ = few_table
    figure = ablation_plots.forest(table, "semantic")
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["relevance", "memory", "mixture"]
    assert len(ablation_plots.forest(table, "semantic", "value").axes) == 4
    with pytest.raises(ZsadError, match="no rows with score full"):
        ablation_plots.forest(table, "full")
    rules = np.eye(2, 3)
    figure = ablation_plots.relevance_map(rules * 0.9, rules, ["road", "park"], ["walk", "run", "cycle"], "learned")
    assert {"0.90", "0.00"} <= {text.get_text() for text in figure.axes[1].texts}
    ablation_plots.activations({"road": np.linspace(0, 1, 5), "park": np.ones(3)}, "r")
    ours = table.assign(variant="B1")[table.variant == "none"]
    figure = ablation_plots.reported_beside(ours, {"B1": 0.462})
    assert figure.axes[0].get_legend() is not None
    plt.close("all")
