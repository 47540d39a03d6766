"""The explanation of a score: parts that add up to it, gates and scenes by hand, pictures with text that can be
read."""

import itertools
import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.text import Text
from PIL import Image

import zsad_lib as z
from zsad_lib.__main__ import main
from zsad_lib.errors import ZsadError
from zsad_lib.features import extraction
from zsad_lib.features.window_plan import WINDOW
from zsad_lib.files.video import write_video
from zsad_lib.methods.context_aware.scores import joint
from zsad_lib.models.regions import Regions, strongest
from zsad_lib.own_video import explain_explorers, explain_figures
from zsad_lib.own_video.detector import own_detector
from zsad_lib.own_video.explain import (
    at_strength,
    cell_weights,
    explain,
    fit_sentence,
    moved,
    strongest_moments,
    training_scenes,
)
from zsad_lib.own_video.explain_command import moment_in_words
from zsad_lib.own_video.name_region import name_region, place_in_words
from zsad_lib.own_video.scoring import pieces, score_video, seen_frames
from zsad_lib.own_video.ticks import Seen
from zsad_lib.own_video.words import PROMPTS, Words
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
    assert list(why.terms) == ["s_sem", "s_pred", "s_mem", "s_mem_global"] and len(why.score) == 4
    np.testing.assert_array_equal(sum(why.terms.values()), why.score)
    middles = [15, 20, 25, 30]  # frames
    np.testing.assert_allclose(why.score, score_video(folder / "own.mp4").score[middles], rtol=0, atol=1e-9)


def test_the_worst_cell_that_moves_has_the_weight(why, folder):
    [piece] = pieces(seen_frames(folder / "own.mp4", Seen(), why.own.size))
    features = why.own.features(piece)
    [terms] = why.scorer.terms([features])
    cells = (why.weights * why.errors).sum((1, 2, 3), dtype=float)
    assert (why.weights.sum((1, 2, 3)) == 1).all() and set(np.unique(why.weights)) == {0, 1}
    assert (cells >= terms["s_pred"].max(1) - 1e-6).all()  # which are of the first and the last predicted block
    moves = (features.cell_motion > why.scorer.detector.moving_from).numpy()
    for w, p, row, column in np.argwhere(why.weights):
        assert moves[w + 3 + p, row, column] or moves[w + 2 + p, row, column]
    assert (cell_weights(torch.full((2, 3, 4, 5), -torch.inf)) == 0).all(), "nothing moves"


def test_the_region_that_fired_is_the_one_with_the_largest_misfit(why, folder):
    [piece] = pieces(seen_frames(folder / "own.mp4", Seen(), why.own.size))
    features = why.own.features(piece)
    assert torch.equal(why.regions, features.region.float()) and why.grid == (6, 8)
    np.testing.assert_array_equal(why.places, features.region_at)
    for w, fired in enumerate(why.fired):
        of_window = np.flatnonzero(why.places[:, 0] == w)
        fits = why.scorer.detector.gate.logits(
            why.regions[of_window], why.scorer.bank, why.context[[w] * len(of_window)]
        )
        assert fired == of_window[int((1 - fits.amax(1)).argmax())]
        assert torch.equal(why.embedding[w], why.regions[fired])
        _, _, row, column = why.places[fired]
        assert why.in_words(w).startswith(f"{place_in_words(row, column, (6, 8))}: ")


def test_places_are_thirds_of_the_picture():
    assert [place_in_words(row, 0, (6, 8)) for row in range(6)] == [
        *["upper left"] * 2, *["middle left"] * 2, *["lower left"] * 2]  # fmt: skip
    across = [place_in_words(5, column, (6, 8)).split()[1] for column in range(8)]
    assert across == ["left"] * 3 + ["centre"] * 2 + ["right"] * 3
    assert place_in_words(0, 0, (1, 1)) == "centre"


def test_a_region_is_named_by_prompts_then_by_what_the_gate_closes_then_by_what_fits():
    said, ungated = ["nobody is there", "a man rides a bicycle", "a fire burns"], np.array([0.9, 0.8, 0.7])
    closed, opened = np.array([0.2, 0.3, 0.7]), np.array([0.2, 0.5, 0.7])
    named = lambda gated, fire, misfit=1.0: name_region(said, ungated, gated, np.array([fire]), misfit)
    assert named(opened, 0.6) == "a fire burns, not normal here"
    assert named(closed, 0.4) == "a man rides a bicycle, not normal here"
    assert named(opened, 0.4) == "a man rides a bicycle, normal here"
    assert named(opened, 0.4, misfit=2.5) == "unlike all that is normal here, most like: a man rides a bicycle"


def test_a_window_without_a_region_says_so(folder, monkeypatch):
    monkeypatch.setattr(extraction, "find_regions", lambda *_: Regions(torch.empty(0, 64), torch.empty(0, 4)))
    empty = explain(folder / "own.mp4", scenes={"elsewhere": folder / "elsewhere.mp4"})
    assert (empty.fired == -1).all() and np.isfinite(empty.score).all() and (empty.prompts == 0).all()
    assert empty.in_words(0) == "no region, nobody was seen"
    np.testing.assert_allclose(at_strength(empty, 0.5), empty.score, atol=1e-9)
    assert "no sentence is compared" in explain_figures.texts(empty).get_suptitle()
    assert "nobody was seen" in explain_figures.regions(empty).get_suptitle()
    explain_explorers.prompt(empty, ["a man walks"]).draw_without_rendering()
    assert moment_in_words(empty, 0).startswith("1.5 s, score ") and "caption:" not in moment_in_words(empty, 0)


def test_similarities_gate_strength_and_prompts_by_hand(why):
    scorer, sentences = why.scorer, torch.cat([why.scorer.bank, why.scorer.prompt_bank])
    assert why.sentences == [*scorer.captions, *PROMPTS] and len(sentences) == len(why.sentences) == why.captions + 3
    for w, k in itertools.product(range(4), (0, why.captions - 1, why.captions, -1)):
        v, t, c = why.embedding[w], sentences[k], why.context[w]
        assert why.ungated[w, k].item() == pytest.approx((v @ t).item(), abs=1e-6)
        assert why.gated[w, k].item() == pytest.approx((v @ scorer.detector.gate.paired(t, c)).item(), abs=1e-6)
    np.testing.assert_allclose(at_strength(why, 1.0), why.score, atol=1e-4)
    others, window = why.score - why.terms["s_sem"], torch.from_numpy(why.places[:, 0])
    gated = torch.cat([scorer.detector.gate.logits(v[None], scorer.bank, c[None])
                       for v, c in zip(why.regions, why.context[window])])  # fmt: skip
    half = 1 - ((why.regions @ scorer.bank.T + gated) / 2).amax(1).numpy()
    [pictures] = [strongest(half, why.places, 4)]
    frames = scorer.frames({"s_sem": pictures}, 48)["s_sem"][[15, 20, 25, 30]]
    np.testing.assert_allclose(at_strength(why, 0.5), others + scorer.fuse({"s_sem": frames}, ("s_sem",)), atol=1e-4)
    weights = np.exp(why.gated.double().numpy() / 0.07)
    np.testing.assert_allclose(why.prompts, weights[:, why.captions :] / weights.sum(1, keepdims=True), atol=1e-5)


def test_any_sentence_fits_as_it_would_among_the_prompts(why):
    values, unknown = fit_sentence(why, PROMPTS[1])
    np.testing.assert_allclose(values, why.gated[:, why.captions + 1], atol=1e-5)
    assert unknown == [] and fit_sentence(why, "a zeppelin falls")[1] == ["zeppelin"]


def test_in_its_own_scene_nothing_changes_and_elsewhere_it_does(folder):
    places = {"context": folder / "window.mp4", "there": folder / "elsewhere.mp4"}  # a name that is also an array's
    one = explain(folder / "window.mp4", words=SAID, scenes=places)
    assert one.sentences == [*SAID.normal, *SAID.abnormal] and one.gated.shape == (1, 4)
    np.testing.assert_allclose(one.scenes["context"], one.score, atol=1e-4)
    assert abs(one.scenes["there"] - one.score).item() > 1e-3


def test_scenes_of_training_come_from_the_memory():
    scorer = own_detector(None).scorer
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
    for at, message in (
        ([], "at=\\[\\] names no window"),
        ([90.0], "at=90 s lies outside the video, which lasts 4.7 s"),
    ):
        with pytest.raises(ZsadError, match=message):
            explain(folder / "own.mp4", at=at, scenes={})
    with pytest.raises(ZsadError, match="only for a folder of frames"):
        explain(folder / "own.mp4", fps=10.0)


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


@pytest.mark.parametrize("name", ["contributions", "attention", "regions", "errors", "texts", "gate", "overview"])
def test_figures_have_words_that_can_be_read(why, name):
    figure = getattr(explain_figures, name)(why)
    figure.draw_without_rendering()
    shown = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    assert len(shown) > 5 and min(text.get_fontsize() for text in shown) >= 7
    assert any(ax.get_title(loc) for ax in figure.axes for loc in ("left", "center")) or figure.get_suptitle()
    outside = [text.get_text() for text in shown if text.get_window_extent().x0 < -1]
    assert outside == []


def test_stacked_contributions_reach_from_all_negative_to_all_positive_terms(why):
    values = ([1, -1, 2, 0], [2, -2, 1, 0], [-1, 3, 0.5, 0], [0, 0, 0.5, 0])
    terms = {name: np.array(some) for name, some in zip(why.terms, values)}
    ax = explain_figures.contributions(why._replace(terms=terms, score=sum(terms.values()))).axes[0]
    edges = [part.get_paths()[0].vertices for part in ax.collections]
    at = lambda w: [y for x, y in np.concatenate(edges) if x == why.times[w]]
    assert [(min(at(w)), max(at(w))) for w in range(4)] == [(-1, 3), (-3, 3), (0, 4), (0, 0)]
    assert ax.lines[0].get_ydata().tolist() == [2, 0, 4, 0]


def test_the_worst_cell_and_all_regions_are_framed_the_one_that_fired_thickly(why):
    assert len(explain_figures.errors(why, at=2.0).axes[0].patches) == 1
    frames = explain_figures.regions(why, at=2.0).axes[0].patches
    widths = [frame.get_linewidth() for frame in frames]
    number = np.flatnonzero(why.places[:, 0] == 1).tolist().index(why.fired[1])
    assert len(frames) == (why.places[:, 0] == 1).sum() and widths.index(2.4) == number and widths.count(2.4) == 1
    _, picture, row, column = why.places[why.fired[1]]
    corner = (picture % 4 * (192 + 8) + column * 24, picture // 4 * (144 + 32) + row * 24)  # frames of 144 x 192 pixels
    assert frames[number].get_xy() == corner


def test_the_command_says_it_in_words_beside_the_scores(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["explain", str(folder / "own.mp4")]) == 0
    shown = capsys.readouterr()
    moment, files, warning = shown.out.splitlines()
    assert re.match(
        r"\d\.\d s, score -?\d+\.\d\d: (\w+ )?\w+: .*; most from .* \([+-]\d.*\); best normal caption: ", moment
    )
    assert files == "why.png, why_1.png in own.scores" and "rendered footage only" in warning
    assert "figures in " in shown.err and {file.name for file in (tmp_path / "own.scores").iterdir()} == {
        "video.json", "why.png", "why_1.png"}  # fmt: skip
    assert main(["explain", str(folder / "own.mp4"), "--at", "2.6", "--output", "x/y.csv"]) == 0
    assert capsys.readouterr().out.startswith("2.5 s, score ") and (tmp_path / "x" / "y" / "why_1.png").is_file()
    (tmp_path / "own.scores").rename(tmp_path / "other.scores")
    for words, message in (
        ([str(folder / "own.mp4"), "--at", "99"], "at=99 s lies outside the video"),
        ([str(folder / "own.mp4"), "--output", "a.png"], "give a file that ends in .csv"),
        ([str(folder / "elsewhere.mp4"), "--output", "other.scores.csv"], "holds the results of another video"),
        ([str(folder / "own.mp4"), "--fps", "9"], "only for a folder of frames"),
        (["rtsp://camera"], "an address is no file"),
        (["absent.mp4"], "no such video"),
        ([""], "no video; give a file"),
    ):
        assert main(["explain", *words]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and message in error and error.count("\n") == 1
    assert not (tmp_path / "own.scores").exists()


def test_moments_do_not_overlap(why):
    assert strongest_moments(np.arange(0, 10, 0.5), np.arange(20.0)) == [19, 13, 7]
    assert strongest_moments(why.times, why.score) == [int(why.score.argmax())]


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
