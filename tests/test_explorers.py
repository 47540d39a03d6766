"""Explorers: a grid of pictures where nobody sits before the notebook, widgets where somebody does."""

import matplotlib.pyplot as plt
import pytest

import zsad_lib as z
from zsad_lib.errors import ZsadError
from zsad_lib.results import explorer


def draw(ax, x, kind="a", third=7):
    ax.plot([0, x], label=f"{kind}{third}")


def test_headless_columns_rows_and_first_values():
    figure = z.explore(draw, x=[0.0, 1.0, 2.0, 3.0, 4.0, 5.0], kind=["a", "b"], third=[1, 2])
    assert len(figure.axes) == 8
    assert figure.axes[0].get_title() == "x: 0\nkind: a" and figure.axes[7].get_title() == "x: 5\nkind: b"
    assert {line.get_label() for ax in figure.axes for line in ax.lines} == {"a1", "b1"}
    plt.close("all")


def test_one_control_is_one_row():
    assert len(z.explore(draw, x=[1, 2, 3]).axes) == 3
    plt.close("all")


def test_a_text_shows_its_examples_in_print():
    figure = z.explore(draw, x=[1], kind=z.Text(["two dogs", "a cat"]))
    assert [ax.get_title() for ax in figure.axes] == ["x: 1\nkind: two dogs", "x: 1\nkind: a cat"]
    plt.close("all")


def test_panels_get_a_figure_each_one_below_the_other():
    figure = z.explore(lambda on, x, kind: on.suptitle(f"{x}{kind}"), panels=True, x=[1, 2, 3, 4, 5], kind=["a", "b"])
    assert [part.get_suptitle() for part in figure.subfigs] == ["1a", "3a", "5a"]
    assert figure.get_figheight() == pytest.approx(3 * 2.2)
    plt.close("all")


@pytest.mark.parametrize("panels", [False, True])
def test_live_controls_draw_again_and_close_their_figures(monkeypatch, panels):
    shown, drawn = [], []
    monkeypatch.setattr(explorer, "is_interactive", lambda: True)
    monkeypatch.setattr("IPython.display.display", lambda *parts: shown.extend(parts))
    plt.close("all")
    draw = lambda on, **values: drawn.append((type(on).__name__, *values.values()))
    assert z.explore(draw, panels=panels, x=[0.5, 1.0], kind=["a", "b"], said=z.Text(["a dog"])) is None
    picture, box = shown  # the picture goes into the Output below the controls
    slider, dropdown, text, _ = box.children
    assert picture.data.startswith(b"\x89PNG")
    assert [type(part).__name__ for part in box.children] == ["SelectionSlider", "Dropdown", "Text", "Output"]
    assert [part.description for part in (slider, dropdown, text)] == ["x", "kind", "said"]
    slider.value, text.value = 1.0, "a cat"
    on = "Figure" if panels else "Axes"
    assert drawn == [(on, 0.5, "a", "a dog"), (on, 1.0, "a", "a dog"), (on, 1.0, "a", "a cat")]
    assert len(shown) == 4 and plt.get_fignums() == []
    slider.value = 0.5
    slider.value = 1.0  # seen before: shown again, not drawn again
    assert len(drawn) == 4 and len(shown) == 6 and shown[-1].data == shown[-3].data


@pytest.mark.parametrize("controls", [{}, {"x": []}])
def test_nothing_to_turn_is_one_line(controls):
    with pytest.raises(ZsadError, match="at least one control"):
        z.explore(draw, **controls)
