"""Explorers: one drawing under controls, live in JupyterLab and as a grid of pictures everywhere else."""

import functools
import io
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from zsad_lib.errors import ZsadError, optional
from zsad_lib.pipeline.progress import is_interactive
from zsad_lib.results.style import PAGE

LIVE_SIZE = 1.6  # of a live picture, in printed ones, up to `LIVE_WIDTH`
LIVE_WIDTH = 9.0  # inches
KEPT = 128  # live pictures, so that turning back needs no drawing


class Text(tuple):
    """Values of a control that takes any text: live a box that starts with the first one, in print these examples."""


def explore(
    draw: Callable[..., None], size: tuple[float, float] = (3.4, 2.2), panels: bool = False, **controls: Sequence[Any]
) -> Figure | None:
    """Lets a reader turn the controls of a drawing.

    Args:
        draw: ``draw(ax, **values)`` draws one picture for one value per control.
        size: inches of one picture.
        panels: a picture of several panels: `draw` gets a (sub)figure instead of axes.
        controls: name -> the values it can take; numbers become sliders, `Text` a box to type in, everything else
            lists.

    Returns:
        Headless (papermill, nbval, print): a figure with up to four values of the first control as columns and up to
        three of the second as rows, the others at their first value; panels: up to three values of the first control,
        one below the other. In JupyterLab: None; the widgets are displayed, the controls in their order and the picture
            below them.

    Raises:
        ZsadError: no control, or one without values.
    """
    if not controls or not all(len(values) for values in controls.values()):
        raise ZsadError("explore: give at least one control with at least one value, such as weight=[0, 0.5, 1]")
    if is_interactive():
        return _live(draw, size, panels, controls)
    return _stacked(draw, size, controls) if panels else _grid(draw, size, controls)


def _grid(draw: Callable[..., None], size: tuple[float, float], controls: dict[str, Sequence[Any]]) -> Figure:
    names = list(controls)
    columns = _some(controls[names[0]], 4)
    rows = _some(controls[names[1]], 3) if len(names) > 1 else [None]
    width, height = min(size[0], PAGE / len(columns)), size[1]
    figure, axes = plt.subplots(len(rows), len(columns), figsize=(width * len(columns), height * len(rows)),
                                sharex=True, sharey=True, squeeze=False)  # fmt: skip
    fixed = {name: controls[name][0] for name in names[2:]}
    for line, row in zip(axes, rows):
        for ax, column in zip(line, columns):
            values = {names[0]: column, **({names[1]: row} if len(names) > 1 else {}), **fixed}
            draw(ax, **values)
            turned = [f"{name}: {_text(value)}" for name, value in values.items() if name not in fixed]
            ax.set_title("\n".join(turned), fontsize=7)
            ax.label_outer()
    return figure


def _stacked(draw: Callable[..., None], size: tuple[float, float], controls: dict[str, Sequence[Any]]) -> Figure:
    first, *others = controls
    values = _some(controls[first], 3)
    figure = plt.figure(figsize=(size[0], size[1] * len(values)))
    for panel, value in zip(figure.subfigures(len(values), 1, squeeze=False)[:, 0], values):
        draw(panel, **{first: value}, **{name: controls[name][0] for name in others})
    return figure


def _live(
    draw: Callable[..., None], size: tuple[float, float], panels: bool, controls: dict[str, Sequence[Any]]
) -> None:
    with optional("notebooks"):
        import ipywidgets
        from IPython.display import Image, display

    def make(name: str, values: Sequence[Any]) -> ipywidgets.Widget:
        if isinstance(values, Text):
            return ipywidgets.Text(value=values[0], description=name, continuous_update=False)
        options = [(_text(value), value) for value in values]
        numeric = all(isinstance(value, Real) and not isinstance(value, bool) for value in values)
        kind = ipywidgets.SelectionSlider if numeric else ipywidgets.Dropdown
        return kind(options=options, value=values[0], description=name)

    @functools.lru_cache(KEPT)
    def drawn(**values: Any) -> bytes:
        grow, picture = min(LIVE_SIZE, LIVE_WIDTH / size[0]), io.BytesIO()
        figure = plt.figure(figsize=(size[0] * grow, size[1] * grow))
        draw(figure if panels else figure.subplots(), **values)
        packing = {"compress_level": 1}  # a slider waits: no second pass, little packing
        figure.savefig(picture, dpi="figure", pil_kwargs=packing)
        plt.close(figure)
        return picture.getvalue()

    def redraw(**values: Any) -> None:
        display(Image(drawn(**values), format="png"))

    widgets = {name: make(name, values) for name, values in controls.items()}
    display(ipywidgets.VBox([*widgets.values(), ipywidgets.interactive_output(redraw, widgets)]))


def _some(values: Sequence[Any], count: int) -> list[Any]:
    """At most `count` of the values, spread evenly, first and last among them."""
    if len(values) <= count:
        return list(values)
    return [values[round(i * (len(values) - 1) / (count - 1))] for i in range(count)]


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
