"""Score terms, fusion, score files, own video."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from zsad_lib.errors import ZsadError
from zsad_lib.features.cache import cache_folder, feature_file, load_features
from zsad_lib.features.window_plan import BLOCK_LEN, WINDOW, to_frames, window_means
from zsad_lib.files.manifest import load_manifest
from zsad_lib.files.score_files import read_archive
from zsad_lib.files.video import write_video
from zsad_lib.methods.context_aware import score_step, scores
from zsad_lib.methods.context_aware.scorer import Scorer, load_scorer, save_scorer
from zsad_lib.methods.context_aware.variants import VARIANTS
from zsad_lib.models.dpc import DPCOutput
from zsad_lib.own_video.scoring import score_video


@pytest.fixture(scope="module")
def scorer(tiny_run):
    return load_scorer(tiny_run[1] / "score" / "full" / "0" / "scorer.safetensors")[0]


@pytest.fixture(scope="module")
def global_scorer(tiny_run):
    return load_scorer(tiny_run[1] / "score" / "paper" / "0" / "scorer.safetensors")[0]


@pytest.fixture(scope="module")
def features(tiny_run):
    profile, folder = tiny_run
    row = next(load_manifest(folder / "data").query("split == 'test'").itertuples())
    return load_features(feature_file(cache_folder(profile), row))


def test_error_map_and_its_summaries_by_hand():
    generator = torch.Generator().manual_seed(0)
    predicted, actual = torch.randn(2, 2, 3, 5, 4, 4, generator=generator).unbind(0)
    errors = scores.error_map(DPCOutput(predicted, actual, None))
    p, a = predicted[1, 2, :, 3, 0].numpy(), actual[1, 2, :, 3, 0].numpy()
    assert errors[1, 2, 3, 0].item() == pytest.approx(1 - p @ a / np.linalg.norm(p) / np.linalg.norm(a), abs=1e-6)
    motion = torch.rand(2, 3, 4, 4, generator=generator)
    order = np.argsort(-motion[0].flatten().numpy())[: int(scores.MOVING_SHARE * 48)]
    assert scores.moving_mean(errors, motion)[0].item() == pytest.approx(
        errors[0].flatten().numpy()[order].mean(), abs=1e-6
    )


def test_semantic_neighbour_and_prompt_scores_by_hand():
    similarity = torch.tensor([[0.1, 0.9, 0.3], [0.2, 0.2, 0.1]])
    torch.testing.assert_close(scores.semantic_score(similarity), torch.tensor([0.1, 0.8]))
    memory = torch.eye(4)
    query = torch.tensor([[0.6, 0.8, 0.0, 0.0]])
    assert scores.neighbour_score(query, memory, k=2).item() == pytest.approx(1 - 0.7)
    total, probabilities = scores.prompt_scores(similarity[:1], torch.tensor([[0.9]]), temperature=0.1)
    e = np.exp(np.array([0.1, 0.9, 0.3, 0.9]) / 0.1)
    assert total.item() == pytest.approx(e[3] / e.sum(), rel=1e-5)
    torch.testing.assert_close(probabilities.sum(-1), total)


def test_fusion_standardises_on_held_out_normals_alone(scorer):
    scorer_copy = Scorer(scorer.detector, scorer.bank, scorer.captions, scorer.memory)
    lengths, unseen = (WINDOW + BLOCK_LEN, WINDOW), -np.inf  # of a picture without a region
    pictures = [np.full((2, 8), 2.0), np.array([[unseen, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0]])]
    values = [np.array([1.0, 3.0]), np.array([5.0])]
    normal = [{"s_a": a, "s_b": 0 * a, "s_sem": of} for a, of in zip(values, pictures)]
    scorer_copy.calibrate([(terms, length) for terms, length in zip(normal, lengths)])
    of_frames = np.concatenate([to_frames(a, length) for a, length in zip(values, lengths)])
    mean, deviation = scorer_copy.statistics["s_a"]
    assert (mean, deviation) == (pytest.approx(of_frames.mean()), pytest.approx(of_frames.std()))
    assert scorer_copy.causal_statistics["s_a"][0] == pytest.approx((5 * 1 + 1 * 3 + 1 * 5) / 7)  # once a window ended
    assert scorer_copy.lowest == {"s_sem": 2.0} and scorer_copy.statistics["s_b"] == (0.0, 1.0)
    terms = {"s_a": np.array([3.0, 7.0]), "s_b": np.array([2.0, 2.0])}
    fused = scorer_copy.score(terms, ("s_a", "s_b"), lengths[0])
    np.testing.assert_allclose(fused, (to_frames(terms["s_a"], lengths[0]) - mean) / deviation + 2.0)


def test_weights_stand_beside_their_terms():
    terms, statistics = {"b": np.array([2.0]), "a": np.array([3.0])}, {"a": (1.0, 2.0), "b": (0.0, 4.0)}
    assert scores.fuse(terms, statistics, ("a", "b"), (10, 100)) == 10 * 1.0 + 100 * 0.5
    with pytest.raises(ValueError, match="shorter"):
        scores.fuse(terms, statistics, ("a", "b"), (10,))


def test_a_methods_files_say_what_they_are_made_of(tmp_path):
    lengths = dict(n_frames=[WINDOW + BLOCK_LEN, WINDOW, WINDOW], fps=[5.0, 5.0, 5.0])
    videos = pd.DataFrame(dict(video=["calm", "before", "fight"], split=["val", "before", "test"], **lengths))
    ramp = np.arange(WINDOW + BLOCK_LEN, dtype=float)
    fused = {"calm": ramp, "before": ramp[:WINDOW], "fight": ramp[:WINDOW] + 7}
    terms = {"fight": {"s_sem": np.full(WINDOW, 0.5)}}
    score_step.write_method(tmp_path / "full" / "0", fused, terms, videos, stride=1)
    late = {video: np.where(np.arange(len(values)) < 3, np.nan, values) for video, values in fused.items()}
    score_step.write_causal(tmp_path / "full@causal" / "0", late, videos)
    table = pd.read_csv(tmp_path / "full" / "0" / "fight.csv")
    assert list(table) == ["frame", "time_s", "score", "s_sem"] and (table.s_sem == 0.5).all()
    assert table.score.tolist() == (ramp[:WINDOW] + 7).tolist()
    windows = read_archive(tmp_path / "full" / "0" / "windows.npz")
    assert {name: values.tolist() for name, values in windows.items()} == {"fight": [14.5 + 7]}
    normal = read_archive(tmp_path / "full" / "0" / "normal.npz")
    assert normal.keys() == {"calm", "before"} and normal["calm"].tolist() == ramp.tolist()
    causal = tmp_path / "full@causal" / "0"
    assert sorted(path.name for path in causal.iterdir()) == ["fight.csv", "normal.npz"]
    assert read_archive(causal / "normal.npz")["calm"].tolist() == ramp[3:].tolist()
    assert pd.read_csv(causal / "fight.csv").score.tolist() == [0.0] * 3 + (ramp[3:WINDOW] + 7).tolist()


@pytest.mark.parametrize("readout", ["local", "global"])
def test_a_windows_terms_do_not_depend_on_the_other_windows(scorer, global_scorer, features, readout):
    of_first = features.region_at[:, 0] == 0
    only_first = features._replace(
        timesformer=features.timesformer[:1], scene=features.scene[:1], stem=features.stem[:6],
        cell_motion=features.cell_motion[:6], region=features.region[of_first], region_at=features.region_at[of_first],
    )  # fmt: skip
    whole, first = (scorer if readout == "local" else global_scorer).terms([features, only_first])
    own = ("s_mem", "s_mem_global") if readout == "local" else ("s_all", "s_peak")
    for name in ("s_sem", "s_pred", *own):
        np.testing.assert_allclose(first[name][0], whole[name][0], atol=1e-5, err_msg=name)


def test_terms_of_a_local_read_out_belong_to_pictures_and_blocks(scorer, features):
    [terms] = scorer.terms([features])
    windows = len(features.timesformer)
    shapes = {"s_sem": (windows, 8), "s_mem": (windows, 8), "s_pred": (windows, 2), "s_mem_global": (windows,)}
    assert {name: terms[name].shape for name in shapes} == shapes
    for causal in (False, True):
        frames = scorer.frames(terms, features.n_frames, causal=causal)
        known = {name: np.isfinite(values) for name, values in frames.items()}
        assert all(len(values) == features.n_frames for values in frames.values())
        assert all(of[WINDOW - 1 :].all() and (not causal or not of[0]) for of in known.values())


@pytest.mark.parametrize("readout", ["local", "global"])
def test_videos_that_are_scored_together_score_as_alone(scorer, global_scorer, features, monkeypatch, readout):
    scorer = scorer if readout == "local" else global_scorer
    changed = features._replace(stem=features.stem.flip(0), cell_motion=features.cell_motion.flip(0))
    alone = [next(scorer.terms([video])) for video in (features, changed, features)]
    sizes, encode = [], scorer.detector.dpc.encode_from_stem
    monkeypatch.setattr(scorer.detector.dpc, "encode_from_stem", lambda stem: sizes.append(len(stem)) or encode(stem))
    for one, other in zip(alone, scorer.terms([features, changed, features]), strict=True):
        for name in one:
            np.testing.assert_allclose(other[name], one[name], atol=1e-6, err_msg=name)
    together = [3] if readout == "global" else [1, 1, 1]
    assert sizes == together
    monkeypatch.setattr(type(scorer.detector.dpc), "on_batch_statistics", True)
    list(scorer.terms([features, changed]))
    assert sizes == [*together, 1, 1]


def test_every_method_and_seed_has_every_frame(tiny_run):
    profile, folder = tiny_run
    test = load_manifest(folder / "data").query("split == 'test'")
    for method in scores.METHODS:
        seeds = profile.seeds[:1] if method in scores.SEED_FREE else profile.seeds
        for seed in seeds:
            home = folder / "scores" / method / str(seed)
            for row in test.itertuples():
                table = pd.read_csv(home / f"{row.video}.csv")
                assert list(table.columns[:3]) == ["frame", "time_s", "score"]
                assert len(table) == row.n_frames and np.isfinite(table.score).all()
                if "s_sem" in scores.METHODS[method][1] and method != "paper":
                    places = table[["region_x", "region_y"]].to_numpy()
                    assert (np.isnan(places) | ((0 < places) & (places < 1))).all() and np.isfinite(places).any()
            windows = np.load(home / "windows.npz")
            assert set(windows.files) == set(test.video)
            np.testing.assert_allclose(windows[row.video], window_means(table.score.to_numpy()), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", scores.CAUSAL)
def test_causal_rows_know_ended_windows_alone(tiny_run, scorer, method):
    profile, folder = tiny_run
    home, whole = folder / "scores" / f"{method}@causal" / "0", folder / "scores" / method / "0"
    normal, test = np.load(home / "normal.npz"), load_manifest(folder / "data").query("split == 'test'")
    for row in (*test.head(3).itertuples(), *test.tail(1).itertuples()):
        found = pd.read_csv(home / f"{row.video}.csv").score.to_numpy()
        assert (found[: WINDOW - 1] == 0).all() and len(found) == len(pd.read_csv(whole / f"{row.video}.csv"))
        [terms] = scorer.terms([load_features(feature_file(cache_folder(profile), row))])
        for ended in range(1, len(terms["s_sem"]) + 1, 3):  # the windows that have ended tell the frames so far
            frames, known = WINDOW + BLOCK_LEN * (ended - 1), {name: of[:ended] for name, of in terms.items()}
            so_far = np.nan_to_num(scorer.score(known, scores.METHODS[method][1], frames, causal=True))
            np.testing.assert_allclose(found[:frames], so_far, atol=0.05)  # the file's memory is in half precision
    raw = np.load(whole / "normal.npz")
    for video in raw.files:  # a threshold is fixed on frames that have a score
        assert len(normal[video]) == len(raw[video]) - WINDOW + 1 and np.isfinite(normal[video]).all()


def test_the_full_score_is_the_sum_of_its_terms(tiny_run, scorer):
    _, folder = tiny_run
    full = {
        name: np.load(folder / "scores" / name / "0" / "windows.npz") for name in ("full", "semantic", "predictive")
    }
    for video in full["full"].files:
        np.testing.assert_allclose(full["full"][video], full["semantic"][video] + full["predictive"][video], atol=1e-9)


@pytest.mark.parametrize("variant", ["full", "paper"])
def test_a_scorer_survives_its_file(scorer, global_scorer, features, tmp_path, variant):
    scorer = scorer if variant == "full" else global_scorer
    save_scorer(tmp_path / "s.safetensors", scorer, dict(variant=dataclasses.asdict(VARIANTS[variant]), seed=0))
    again, _ = load_scorer(tmp_path / "s.safetensors")
    [first], [second] = scorer.terms([features]), again.terms([features])
    for name in first:
        np.testing.assert_allclose(first[name], second[name], atol=1e-3)
    for name in ("captions", "statistics", "causal_statistics", "lowest", "local"):
        assert getattr(again, name) == getattr(scorer, name), name


@pytest.fixture(scope="module")
def footage(tmp_path_factory):
    frames = np.random.default_rng(0).integers(0, 255, (95, 40, 60, 3), dtype=np.uint8)
    path = tmp_path_factory.mktemp("footage") / "camera.mp4"
    write_video(path, frames, fps=10)
    return path, frames


def test_own_video_has_one_finite_row_per_frame(footage):
    table = score_video(footage[0])
    assert list(table.frame) == list(range(95)) and not table.warmup.any()
    assert np.isfinite(table[["score", "s_sem", "s_pred", "s_mem", "s_mem_global"]]).all().all()
    assert table.caption.str.len().min() > 3


def test_fast_video_is_thinned_and_still_has_every_frame(tmp_path):
    frames = np.random.default_rng(0).integers(0, 255, (100, 32, 32, 3), dtype=np.uint8)
    write_video(tmp_path / "fast.mp4", frames, fps=30)
    table = score_video(tmp_path / "fast.mp4")
    assert len(table) == 100 and table.score[:3].nunique() == 1


def test_a_run_of_ones_own_and_a_run_without_a_detector(tiny_run, footage, tmp_path):
    assert len(score_video(footage[0], run=str(tiny_run[1]))) == 95
    with pytest.raises(ZsadError, match="no trained detector"):
        score_video(footage[0], run="nothing-here")
