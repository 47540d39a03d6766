"""The explanation of a score: parts that add up to it, gates and scenes by hand, pictures with text that can be
read."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.text import Text
from PIL import Image

import zsad_lib as z
from zsad_lib.errors import ZsadError
from zsad_lib.features.backbones import stand_ins
from zsad_lib.features.window_plan import WINDOW, to_frames
from zsad_lib.files.video import write_video
from zsad_lib.methods.context_aware.scores import joint
from zsad_lib.own_video import explain_explorers, explain_figures
from zsad_lib.own_video.detector import PROMPTS, Words, own_scorer
from zsad_lib.own_video.explain import at_strength, explain, fit_sentence, moved, training_scenes
from zsad_lib.own_video.scoring import score_video
from zsad_lib.results import explorer

FPS, SAID = 10, Words(("a man walks", "a car drives"), ("two people are fighting", "a man falls down"))


def footage(frames: int, seed: int = 0):
    """A square that walks through a still place and jumps in the middle."""
    rng = np.random.default_rng(seed)
    place = rng.integers(0, 160, (48, 64, 3), dtype=np.uint8)
    for number in range(frames):
        picture, column = place.copy(), (number + 20 * (number > frames // 2)) % 56
        picture[20:40, column : column + 8] = (200, 60, 60)
        yield picture


@pytest.fixture(scope="module", autouse=True)
def surroundings():
    """The style of figures, and one thread: on pieces this small several mostly wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    z.figures.style()
    yield
    plt.close("all")
    plt.rcdefaults()
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("why")
    write_video(folder / "own.mp4", footage(48), FPS)
    write_video(folder / "window.mp4", footage(WINDOW), FPS)
    write_video(folder / "elsewhere.mp4", footage(WINDOW, seed=5), FPS)
    return folder


@pytest.fixture(scope="module")
def why(folder):
    return explain(folder / "own.mp4", scenes={"elsewhere": folder / "elsewhere.mp4"})


def test_the_parts_are_the_score_that_the_table_holds(why, folder):
    assert list(why.terms) == ["s_sem", "s_pred", "s_mem"] and len(why.score) == 4
    np.testing.assert_array_equal(sum(why.terms.values()), why.score)
    np.testing.assert_allclose(to_frames(why.score, 48), score_video(folder / "own.mp4").score, rtol=0, atol=1e-9)
    cells = (why.weights * why.errors).sum((1, 2, 3), dtype=float)
    np.testing.assert_allclose(why.scorer.fuse({"s_pred": cells}, ("s_pred",)), why.terms["s_pred"], atol=1e-4)
    np.testing.assert_allclose(why.weights.sum((1, 2, 3)), 1, atol=1e-5)
    assert (why.weights[:, 2] == 0).all(), "the third block is not scored"


def test_similarities_gate_strength_and_prompts_by_hand(why):
    scorer, sentences = why.scorer, torch.cat([why.scorer.bank, why.scorer.prompt_bank])
    assert why.sentences == [*scorer.captions, *PROMPTS] and len(sentences) == len(why.sentences) == why.captions + 3
    for w, k in itertools.product(range(4), (0, why.captions - 1, why.captions, -1)):
        v, t, c = why.embedding[w], sentences[k], why.context[w]
        assert why.ungated[w, k].item() == pytest.approx((v @ t).item(), abs=1e-6)
        assert why.gated[w, k].item() == pytest.approx((v @ scorer.detector.gate.paired(t, c)).item(), abs=1e-6)
    mean, deviation = scorer.statistics["s_sem"]
    np.testing.assert_allclose(at_strength(why, 1.0), why.score, atol=1e-4)
    half = 1 - ((why.ungated + why.gated) / 2)[:, : why.captions].amax(1).double().numpy()
    others = why.terms["s_pred"] + why.terms["s_mem"]
    np.testing.assert_allclose(at_strength(why, 0.5), others + (half - mean) / deviation, atol=1e-4)
    weights = np.exp(why.gated.double().numpy() / 0.07)
    np.testing.assert_allclose(why.prompts, weights[:, why.captions :] / weights.sum(1, keepdims=True), atol=1e-5)


def test_any_sentence_fits_as_it_would_among_the_prompts(why):
    b = stand_ins()
    values, unknown = fit_sentence(why, PROMPTS[1], b)
    np.testing.assert_allclose(values, why.gated[:, why.captions + 1], atol=1e-5)
    assert unknown == [] and fit_sentence(why, "a zeppelin falls", b)[1] == ["zeppelin"]


def test_in_its_own_scene_nothing_changes_and_elsewhere_it_does(folder):
    places = {"context": folder / "window.mp4", "there": folder / "elsewhere.mp4"}  # a name that is also an array's
    one = explain(folder / "window.mp4", words=SAID, scenes=places)
    assert one.sentences == [*SAID.normal, *SAID.abnormal] and one.gated.shape == (1, 4)
    np.testing.assert_allclose(one.scenes["context"], one.score, atol=1e-4)
    assert abs(one.scenes["there"] - one.score).item() > 0.1


def test_scenes_of_training_come_from_the_memory():
    scorer, _ = own_scorer(None)
    with torch.no_grad():
        scenes = training_scenes(scorer)
        again = joint(torch.zeros(len(scenes), 64), scorer.detector.standardised(torch.stack(list(scenes.values()))))
    half = scorer.memory[:, 64:] * 2**0.5  # [N, S], with the memory's rounding to half precision
    assert len(scenes) == 4 and (again[:, 64:] @ half.T).amax(1).min() > 0.999
    likeness = again @ again.T - 2 * torch.eye(4)
    assert likeness.max() < 0.5, "other scenes, not four times one"
    assert all(name.split(": ")[1] in scorer.captions for name in scenes)


def test_windows_looked_at_and_their_frames(why, folder):
    assert why.at.tolist() == [0, 1, 2, 3] and why.times.tolist() == [1.5, 2.0, 2.5, 3.0]
    assert why.frames.shape[:2] == why.rollout.shape[:2] == why.motion.shape[:2] == (4, 8)
    some = explain(folder / "own.mp4", scenes={}, at=[2.6, 0.0])
    assert some.at.tolist() == [0, 2]
    np.testing.assert_array_equal(some.frames, why.frames[[0, 2]])
    expected = z.read_video(folder / "own.mp4", [10 + 4], size=why.frames.shape[2:4])[0]
    np.testing.assert_array_equal(some.frames[1, 1], expected)
    with pytest.raises(ZsadError, match="at=\\[\\] names no window"):
        explain(folder / "own.mp4", at=[])


def test_motion_of_patches_is_counted_where_something_moves():
    frames = torch.zeros(1, 3, 4, 8, 3, dtype=torch.uint8)
    frames[0, 1:, :2, 4:] = 90
    found = moved(frames, (2, 2))
    assert found[0, :, 0, 1].tolist() == [90, 90, 0] and found.sum() == 180


def test_a_short_folder_of_frames_is_one_window(tmp_path):
    for number, picture in enumerate(footage(7)):
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
    short = explain(tmp_path, scenes={})
    assert short.times.tolist() == [0.6] and short.scenes == {}
    np.testing.assert_array_equal(short.frames[0, 2], short.frames[0, 7])


@pytest.mark.parametrize("name", ["contributions", "attention", "errors", "texts", "gate"])
def test_figures_have_words_that_can_be_read(why, name):
    figure = getattr(explain_figures, name)(why)
    figure.draw_without_rendering()
    shown = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    assert len(shown) > 5 and min(text.get_fontsize() for text in shown) >= 7
    assert any(ax.get_title(loc) for ax in figure.axes for loc in ("left", "center")) or figure.get_suptitle()
    outside = [text.get_text() for text in shown if text.get_window_extent().x0 < -1]
    assert outside == []


def test_stacked_contributions_reach_from_all_negative_to_all_positive_terms(why):
    terms = {name: np.array(values) for name, values in zip(why.terms, ([1, -1, 2, 0], [2, -2, 1, 0], [-1, 3, 1, 0]))}
    ax = explain_figures.contributions(why._replace(terms=terms, score=sum(terms.values()))).axes[0]
    edges = [part.get_paths()[0].vertices for part in ax.collections]
    at = lambda w: [y for x, y in np.concatenate(edges) if x == why.times[w]]
    assert [(min(at(w)), max(at(w))) for w in range(4)] == [(-1, 3), (-3, 3), (0, 4), (0, 0)]
    assert ax.lines[0].get_ydata().tolist() == [2, 0, 4, 0]


def test_framed_cells_are_those_that_were_scored(why):
    figure = explain_figures.errors(why, at=2.0)
    assert len(figure.axes[0].patches) == (why.weights[1] > 0).sum()


def test_every_explorer_is_a_picture_in_print(why):
    scrubbed = explain_explorers.scrub(why)
    titles = [part.subfigs[0].subfigs[0].get_suptitle()[:5] for part in scrubbed.subfigs]
    assert titles == ["1.5 s", "2.5 s", "3.0 s"]
    typed = explain_explorers.prompt(why, ["a man walks", "a zeppelin falls"])
    assert ["never learned: zeppelin" in ax.get_title(loc="left") for ax in typed.axes] == [False, True]
    strong = explain_explorers.gate(why)
    assert strong.axes[-1].get_title(loc="left").startswith("gate at 1.0")
    np.testing.assert_allclose(strong.axes[-1].lines[1].get_ydata(), why.score, atol=1e-4)


def test_threshold_counts_frames_and_events(monkeypatch):
    drawn = []
    monkeypatch.setattr(explain_explorers, "explore", lambda draw, *args, **controls: drawn.append((draw, controls)))
    scores = {"a": np.array([0, 1, 5, 5, 0, 4.0]), "b": np.array([0.0, 0, 0, 0, 3, 3])}
    labels = {"a": np.array([0, 1, 1, 1, 0, 0]), "b": np.zeros(6)}
    explain_explorers.threshold(scores, labels, fps=2.0)
    (draw, controls), figure = drawn[0], plt.figure()
    assert 3.0 in controls["threshold"]
    draw(figure, 3.0)
    assert [text.get_text().split("\n")[0] for text in figure.axes[0].texts] == ["6", "3", "1", "2"]
    per_hour = 2 / (9 / 2 / 3600)
    assert (
        figure.get_suptitle()
        == f"threshold 3.00: {per_hour:.0f} false alarms per hour, 100% of events, mean delay 0.5 s"
    )
    with pytest.raises(ZsadError, match="one class only"):
        explain_explorers.threshold(scores, {"a": np.zeros(6), "b": np.zeros(6)}, 2.0)


def test_a_live_scrubber_moves(why, monkeypatch):
    shown = []
    monkeypatch.setattr(explorer, "is_interactive", lambda: True)
    monkeypatch.setattr("IPython.display.display", shown.append)
    explain_explorers.scrub(why)
    first, box = shown
    assert box.children[0].description == "second" and [label for label, _ in box.children[0].options] == [
        "1.5",
        "2",
        "2.5",
        "3",
    ]
    box.children[0].index = 2
    assert len(shown) == 3 and shown[2].data != first.data
