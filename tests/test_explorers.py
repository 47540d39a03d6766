"""Explorers: a grid of pictures where nobody sits before the notebook, widgets where somebody does."""

import matplotlib.pyplot as plt
import pytest

import zsad_lib as z
from zsad_lib import explorers
from zsad_lib.errors import ZsadError


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


def test_live_controls_draw_again(monkeypatch):
    ipywidgets, shown, drawn = pytest.importorskip("ipywidgets"), [], []
    monkeypatch.setattr(explorers, "is_live", lambda: True)
    monkeypatch.setattr("IPython.display.display", lambda *parts: shown.extend(parts))
    monkeypatch.setattr(
        ipywidgets, "interactive_output", lambda redraw, widgets: redraw(**{n: w.value for n, w in widgets.items()})
    )
    assert z.explore(lambda ax, **values: drawn.append(values), x=[0.5, 1.0], kind=["a", "b"]) is None
    assert drawn == [{"x": 0.5, "kind": "a"}]
    assert [type(widget).__name__ for widget in shown[0].children] == ["SelectionSlider", "Dropdown"]
    plt.close("all")


@pytest.mark.parametrize("controls", [{}, {"x": []}])
def test_nothing_to_turn_is_one_line(controls):
    with pytest.raises(ZsadError, match="at least one control"):
        z.explore(draw, **controls)
