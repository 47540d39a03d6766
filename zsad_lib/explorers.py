"""Explorers: one drawing under controls, live in JupyterLab and as a grid of pictures everywhere else."""

from collections.abc import Callable, Sequence
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from zsad_lib.errors import ZsadError
from zsad_lib.figures import PAGE
from zsad_lib.run import is_live


def explore(
    draw: Callable[..., None], size: tuple[float, float] = (3.4, 2.2), **controls: Sequence[Any]
) -> Figure | None:
    """Lets a reader turn the controls of a drawing.

    Args:
        draw: ``draw(ax, **values)`` draws one picture for one value per control.
        size: inches of one picture.
        controls: name -> the values it can take; numbers become sliders, everything else lists.

    Returns:
        Headless (papermill, nbval, print): a figure with up to four values of the first control as columns and up to three of
        the second as rows, the others at their first value. In JupyterLab: None, the widgets are displayed.

    Raises:
        ZsadError: no control, or one without values.
    """
    if not controls or not all(len(values) for values in controls.values()):
        raise ZsadError("explore: give at least one control with at least one value, such as weight=[0, 0.5, 1]")
    if is_live():
        return _live(draw, size, controls)
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
            shown = [f"{name}: {_text(value)}" for name, value in values.items() if name not in fixed]
            ax.set_title("\n".join(shown), fontsize=7)
            ax.label_outer()
    return figure


def _live(draw: Callable[..., None], size: tuple[float, float], controls: dict[str, Sequence[Any]]) -> None:
    import ipywidgets
    from IPython.display import display

    def make(name: str, values: Sequence[Any]) -> ipywidgets.Widget:
        options = [(_text(value), value) for value in values]
        numeric = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
        kind = ipywidgets.SelectionSlider if numeric else ipywidgets.Dropdown
        return kind(options=options, value=values[0], description=name)

    def redraw(**values: Any) -> None:
        figure, ax = plt.subplots(figsize=(size[0] * 1.6, size[1] * 1.6))
        draw(ax, **values)
        plt.show()

    widgets = {name: make(name, values) for name, values in controls.items()}
    display(ipywidgets.VBox(list(widgets.values())), ipywidgets.interactive_output(redraw, widgets))


def _some(values: Sequence[Any], count: int) -> list[Any]:
    """At most `count` of the values, spread evenly, first and last among them."""
    if len(values) <= count:
        return list(values)
    return [values[round(i * (len(values) - 1) / (count - 1))] for i in range(count)]


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
