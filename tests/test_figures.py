"""Figures repeat byte by byte, keep a method's colour, choose examples by rule, and never make a step compute again."""

import dataclasses

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from zsad_lib.config import get_profile
from zsad_lib.errors import ZsadError
from zsad_lib.evaluate.floors import FLOORS
from zsad_lib.files import manifest, paths
from zsad_lib.files.pixel_masks import write_masks
from zsad_lib.files.video import write_video
from zsad_lib.files.weights import save_weights
from zsad_lib.pipeline.fingerprints import closure
from zsad_lib.results import plots, run_figures, style
from zsad_lib.results.tables import ORDER

FAMILIES = ("semantic", "temporal", "contextual")


def table(
    metrics=("clip_auc",), families=("all", *FAMILIES), groups=("all", "scene:road", "scene:park"), variants=("raw",)
):
    rows = [
        (method, variant, metric, "clip", group, family, 0.5 + 0.03 * i, 0.45 + 0.03 * i, 0.55 + 0.03 * i)
        for i, method in enumerate((*ORDER, *FLOORS))
        for metric in metrics
        for group in groups
        for family in families
        for variant in (variants if method not in FLOORS else ("raw",))
    ]
    return pd.DataFrame(rows, columns="method variant metric level group family value low high".split())


@pytest.fixture(autouse=True)
def themed():
    style.style()
    yield
    plt.close("all")


def overlapping(figure) -> list[tuple[str, str]]:
    """Pairs of texts whose boxes overlap by more than a pixel."""
    figure.canvas.draw()
    axes = [axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)]
    undrawn = {tick.label1 for axis in axes for tick in {*axis.majorTicks, *axis.minorTicks} - {*axis._update_ticks()}}
    texts = [t for t in figure.findobj(plt.Text) if t.get_visible() and t.get_text().strip() and t not in undrawn]
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts]
    pairs = []
    for i, (one, a) in enumerate(boxes):
        for other, b in boxes[i + 1 :]:
            width = min(a.x1, b.x1) - max(a.x0, b.x0)
            height = min(a.y1, b.y1) - max(a.y0, b.y0)
            if width > 1 and height > 2:
                pairs.append((one, other))
    return pairs


def test_headline_shows_every_method_and_floor_in_its_colour():
    figure = plots.headline(table(), {name: {"metric": "clip_auc", "family": name} for name in ("all", *FAMILIES)})
    names = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert names[: len(ORDER)] == [style.words(name) for name in ORDER]
    assert names[-2:] == ["video label (oracle)", "video label centre (oracle)"]
    dots = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert [to_hex(dot.get_color()) for dot in dots[:2]] == [style.METHOD_COLOURS[name] for name in ORDER[:2]]
    assert not overlapping(figure)


def test_headline_says_what_is_missing():
    with pytest.raises(ZsadError, match="nothing to draw"):
        plots.headline(table(), {"pixels": {"metric": "pixel_auc"}})


def test_methods_and_families_have_colours_that_differ():
    assert set(ORDER) == set(style.METHOD_COLOURS)
    for palette in (style.METHOD_COLOURS, {name: style.FAMILY_COLOURS[name] for name in ("normal", *FAMILIES)}):
        assert len(set(palette.values())) == len(palette)
    assert style.colour("predictive@causal") == style.colour("predictive")
    assert style.colour("centre") == style.FLOOR_COLOUR


def test_score_curve_shades_whole_frames_and_draws_each_term():
    time = np.arange(50) / 10
    frames = pd.DataFrame({"frame": range(50), "time_s": time, "score": time, "s_sem": time, "s_pred": -time})
    figure = plots.score_curve(frames, [(10, 19)], threshold=2.0, title="a video")
    assert len(figure.axes) == 3
    shaded = figure.axes[0].patches[0].get_extents().transformed(figure.axes[0].transData.inverted())
    assert (shaded.x0, shaded.x1) == pytest.approx((1.0, 2.0))
    assert figure.axes[1].get_ylabel() == "caption\nmisfit" and figure.axes[-1].get_xlabel() == "time (s)"
    assert not overlapping(figure)


def test_curves_end_where_the_metrics_say():
    labels = np.array([0, 0, 0, 1])
    figure = plots.roc_pr({"full": np.array([[0.1, 0.2, 0.3, 0.9]]), "random": np.array([0.9, 0.2, 0.3, 0.1])}, labels)
    left, right = figure.axes
    assert np.trapezoid(left.lines[0].get_ydata(), left.lines[0].get_xdata()) == pytest.approx(1, abs=0.01)
    assert np.trapezoid(left.lines[1].get_ydata(), left.lines[1].get_xdata()) == pytest.approx(0, abs=0.01)
    assert right.lines[0].get_ydata().min() == 1 and right.lines[1].get_ydata().max() == 0.25
    assert "prevalence 0.250" in right.get_title()


def test_precision_at_equal_recall_is_a_step_function():
    scores, labels = np.array([4.0, 3, 2, 1]), np.array([1, 0, 1, 0])
    line = plots.roc_pr({"full": scores}, labels).axes[1].lines[0]
    at = dict(zip(np.round(line.get_xdata(), 3), line.get_ydata()))
    assert at[0.4] == 1 and at[0.6] == pytest.approx(2 / 3)


def test_densities_skip_what_cannot_have_one():
    figure = plots.densities({"normal": np.random.default_rng(0).normal(size=99), "semantic": np.zeros(9)}, 1.0)
    texts = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert texts == ["normal (99)", "threshold"]


def test_scene_heatmap_has_one_cell_per_method_and_scene():
    figure = plots.scene_heatmap(table(families=("all",)), "clip_auc")
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["park", "road"]
    assert len(figure.axes[0].texts) == 2 * (len(ORDER) + len(FLOORS))
    with pytest.raises(ZsadError, match="per scene"):
        plots.scene_heatmap(table(groups=("all",)), "clip_auc")


def test_pictures_carry_headings_and_wrapped_captions():
    frames = [np.zeros((48, 64, 3), np.uint8), None]
    figure = plots.contact_sheet(
        frames, ["a man walks past two others and waits " * 4, ""], ["road", "park"], ["normal"]
    )
    assert [ax.get_title() for ax in figure.axes] == ["road", "park"]
    assert figure.axes[0].get_xlabel().count("\n") >= 1 and not figure.axes[1].images
    mask = np.zeros((24, 36), bool)
    mask[4:9, 4:9] = True
    figure = plots.overlays([np.zeros((24, 36, 3))], [np.ones((3, 5))], [mask], ["clip"])
    assert figure.axes[1].images[1].get_array().shape == (24, 36)


def test_learning_curves_show_steps_and_running_mean():
    figure = plots.learning_curves({"loss": {"full, seed 0": np.arange(45.0)}})
    thin, thick = figure.axes[0].lines
    assert list(thin.get_ydata()) == list(range(45)) and list(thick.get_ydata()[:3]) == [0.5, 1, 2]


def test_examples_are_chosen_by_rule():
    assert plots.at_quantile({"a": 1.0, "b": 0.0, "c": 0.5, "d": 0.5}, 0.5) == "c"
    assert plots.at_quantile(pd.Series({"b": 0.2, "a": 0.2}), 1.0) == "b"
    aucs = plots.video_aucs(
        {"a": np.array([[0, 1.0]]), "b": np.array([[0, 1.0]])}, {"a": np.array([0, 1]), "b": np.zeros(2)}
    )
    assert aucs == {"a": 1.0}


def test_a_changed_colour_trains_and_scores_nothing():
    for module in (
        "zsad_lib.methods.context_aware.train",
        "zsad_lib.methods.context_aware.scores",
        "zsad_lib.methods.predictive_coding.train",
        "zsad_lib.methods.predictive_coding.score",
        "zsad_lib.evaluate.evaluation",
    ):
        assert "zsad_lib.results.plots" not in closure([module])


# --- the pipeline step -----------------------------------------------------------------------------------------------


def scored(run, videos, methods, seeds=(0,), archives=True):
    """Score files as the score step leaves them: abnormal frames score high, more so for earlier methods."""
    rng = np.random.default_rng(0)
    for strength, (method, terms) in enumerate(reversed(methods.items()), 1):
        for seed in seeds:
            folder = paths.make_folder(run / "scores" / method / str(seed))
            for row in videos.itertuples():
                score = strength * manifest.frame_labels(row) + rng.normal(size=row.n_frames)
                columns = {"frame": range(row.n_frames), "time_s": np.arange(row.n_frames) / row.fps, "score": score}
                pd.DataFrame({**columns, **{term: score / len(terms) for term in terms}}).to_csv(
                    folder / f"{row.video}.csv", index=False
                )
            if archives:
                np.savez(folder / "normal.npz", n=rng.normal(size=60))


def manifest_rows(folder, names, **columns):
    base = dict(split="test", set="main", scene="road", site="s", family="normal", action="walk", n_frames=12, fps=10.0,
                spans="", kinds="", caption="a man walks")  # fmt: skip
    rows = [{**base, "video": name, "path": str(folder / f"{name}.mp4"), **values} for name, values in names.items()]
    return pd.DataFrame(rows).assign(**columns)


@pytest.fixture
def benchmark(run_home):
    """A run folder of the embedded benchmark: two scenes, one clip per family, two streams."""
    profile = dataclasses.replace(get_profile("smoke"), bootstrap_draws=5)
    run = run_home / "runs" / "smoke"
    names = {
        f"{scene}_{family}": {"scene": scene, "family": family, "spans": "" if family == "normal" else "4-8"}
        for scene in ("road", "park")
        for family in ("normal", *FAMILIES)
    }
    kinds = {"spans": "2-3;7-9", "kinds": "semantic:fall;temporal:freeze"}
    names |= {f"stream_{i}": {"set": "stream", "family": "mixed", **kinds} for i in range(2)}
    rows = manifest_rows(run / "data", names)
    for path in rows["path"]:
        write_video(path, np.random.default_rng(0).integers(0, 255, (12, 32, 48, 3), dtype=np.uint8), 10)
    manifest.save_manifest(rows, run / "data")
    terms = {
        "full_memory": ("s_sem", "s_pred", "s_mem", "s_mem_global"),
        "full": ("s_sem", "s_pred"),
        "knn": ("s_knn",),
        "motion_floor": ("s_motion",),
    }
    scored(run, rows, terms)
    statistics = {name: [0.0, 1.0] for name in terms["full_memory"]}
    save_weights(run / "score" / "full" / "0" / "scorer.safetensors", {}, {"statistics": statistics})
    paths.make_folder(run / "evaluate")
    streams = table(("micro_auc",), groups=("set:stream",), variants=("raw", "causal"))
    pd.concat([table(), streams]).to_csv(run / "evaluate" / "detection.csv", index=False)
    return profile, run


def test_the_benchmark_is_drawn_once_per_figure(benchmark):
    profile, run = benchmark
    made = run_figures.draw(profile, run / "figures")["artefacts"]
    names = {"headline", "clips", "score_curve", "roc_pr", "densities", "scenes", "contact_sheet"}
    assert {path.stem for path in made} == names
    assert len(made) == 14 and all(path.stat().st_size for path in made) and not plt.get_fignums()


def test_streams_are_drawn_first_and_their_threshold_is_from_normal_streams(benchmark, monkeypatch):
    profile, run = benchmark
    drawn = []
    draw = plots.headline
    monkeypatch.setattr(plots, "headline", lambda df, panels, *more: drawn.append(panels) or draw(df, panels, *more))
    curves = []
    curve = plots.roc_pr
    monkeypatch.setattr(plots, "roc_pr", lambda scores, labels: curves.append(labels) or curve(scores, labels))
    run_figures.draw(profile, run / "figures")
    assert drawn[0]["all"] == {"metric": "micro_auc", "family": "all", "group": "set:stream"}
    assert drawn[1]["all"] == {"metric": "clip_auc", "family": "all"}
    assert len(curves[0]) == 24 and curves[0].sum() == 10  # two streams of twelve frames
    table = manifest.load_manifest(run / "data")
    held_out = table.iloc[:2].assign(video=["clip", "normal"], split="val", set=["main", "stream"], spans="", kinds="")
    manifest.save_manifest(pd.concat([table, held_out]), run / "data")
    normal = {"clip": np.arange(100.0)[None], "normal": np.arange(100.0)[None] / 10}
    assert run_figures.alarm_threshold(normal, profile) == pytest.approx(9.4)
    assert run_figures.alarm_threshold({"clip": normal["clip"]}, profile) == pytest.approx(94)


def test_files_repeat_byte_by_byte(tmp_path):
    panels = {"all": {"metric": "clip_auc"}}
    first, second = (
        [path.read_bytes() for path in style.save(plots.headline(table(), panels), tmp_path / name)]
        for name in ("one", "two")
    )
    assert first == second and b"CreationDate" not in first[1]


def test_contributions_add_up_to_the_score(benchmark):
    profile, run = benchmark
    frames = pd.read_csv(run / "scores" / "full_memory" / "0" / "stream_0.csv")
    shares = run_figures.contributions(frames, run, "full_memory", profile)
    assert shares[["s_sem", "s_pred", "s_mem", "s_mem_global"]].sum(axis=1).to_numpy() == pytest.approx(
        shares["score"].to_numpy()
    )


def test_real_footage_is_drawn_with_its_masks(run_home):
    profile, run = get_profile("ped2", seeds="0"), run_home / "runs" / "ped2"
    names = {f"Test{i:03d}": {"spans": "3-9", "family": "semantic"} for i in (1, 2, 3)}
    rows = manifest_rows(run / "data", names, scene="walkway")
    rng = np.random.default_rng(0)
    from PIL import Image

    for name in names:
        (run / "data" / name).mkdir(parents=True)
        for i in range(12):
            picture = rng.integers(0, 255, (24, 36), dtype=np.uint8)
            Image.fromarray(picture).save(run / "data" / name / f"{i + 1:03d}.png")
        write_masks(run / "data" / "masks" / f"{name}.npz", np.repeat(np.eye(24, 36)[None] > 0, 12, axis=0))
        paths.make_folder(run / "maps" / "predictive" / "0")
        np.savez(run / "maps" / "predictive" / "0" / f"{name}.npz", maps=rng.random((12, 3, 5)).astype(np.float16))
    rows["path"] = rows["path"].str.removesuffix(".mp4")
    manifest.save_manifest(rows, run / "data")
    scored(run, rows, {"predictive": (), "predictive@causal": (), "knn": (), "motion_floor": ()})
    paths.make_folder(run / "evaluate")
    detection = table(("micro_auc", "abnormal_auc", "pixel_auc"), ("all",), ("all",), ("raw", "smoothed"))
    detection.to_csv(run / "evaluate" / "detection.csv", index=False)
    made = run_figures.draw(profile, run / "figures")
    assert {path.stem for path in made["artefacts"]} == {"headline", "score_curve", "roc_pr", "densities", "overlays"}
