"""The look of every figure: sizes, colours, the words that stand for names, and how a figure is saved alike on any
day."""

from pathlib import Path

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.figure import Figure

from zsad_lib.files import paths

COLUMN, PAGE = 3.4, 7.0  # inches: one column and the full width of a two-column paper
METHOD_COLOURS = {
    "full_memory": "#0173b2", "full": "#56b4e9", "paper": "#d55e00", "semantic": "#029e73", "predictive": "#cc78bc",
    "knn": "#de8f05", "knn_predictive": "#a06a3c", "motion_floor": "#4d4d4d", "actor_count": "#8c8c8c",
    "anomaly_clip": "#7a3b8f", "mil": "#b07cc6", "clip_prompts": "#6b8e23", "predictive_half": "#e5b3dc",
}  # fmt: skip
FAMILY_COLOURS = {
    "normal": "#7f7f7f", "semantic": "#029e73", "temporal": "#cc78bc", "contextual": "#0173b2", "abnormal": "#0173b2",
}  # fmt: skip
FLOOR_COLOUR, TRUTH_COLOUR = "#949494", "#de8f05"
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1, 1, 1)))  # a second mark beside colour
TERMS = {  # term -> words
    "s_sem": "caption misfit", "s_pred": "prediction error", "s_all": "prediction error", "s_mem": "distance to memory",
    "s_mem_global": "picture's novelty", "s_prompt": "abnormal sentences",
}  # fmt: skip


def style() -> None:
    """Sets the theme of all figures: sizes for `COLUMN` and `PAGE` inches, and files that repeat byte by byte."""
    sizes = dict.fromkeys(("font.size", "axes.labelsize", "axes.titlesize"), 8) | {"figure.titlesize": 9}
    small = dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "legend.fontsize", "legend.title_fontsize"), 7)
    sns.set_theme(
        "paper",
        "ticks",
        sns.color_palette("colorblind"),
        rc={
            **sizes, **small, "axes.linewidth": 0.6, "lines.linewidth": 1.2, "xtick.major.width": 0.6,
            "ytick.major.width": 0.6, "xtick.major.size": 3, "ytick.major.size": 3, "axes.spines.top": False,
            "axes.spines.right": False, "legend.frameon": False, "font.family": "DejaVu Sans",
            "figure.figsize": (PAGE, 2.6), "figure.constrained_layout.use": True, "figure.dpi": 110, "savefig.dpi": 200,
            "image.cmap": "magma", "image.interpolation": "nearest", "svg.hashsalt": "zsad", "pdf.fonttype": 42,
        },
    )  # fmt: skip


def save(figure: Figure, stem: str | Path) -> list[Path]:
    """Writes ``<stem>.png`` and ``<stem>.pdf`` without dates, whole or not at all, and closes the figure."""
    files = [Path(stem).with_suffix(suffix) for suffix in (".png", ".pdf")]
    for file, metadata in zip(files, ({"Software": None}, {"CreationDate": None, "Creator": None, "Producer": None})):
        with paths.atomic(file, mode=None) as temporary:
            figure.savefig(temporary, metadata=metadata)
    plt.close(figure)
    return files


def colour(method: str) -> str:
    """The method's colour in every figure; grey for the content-free floors."""
    return METHOD_COLOURS.get(method.partition("@")[0], FLOOR_COLOUR)


def term_colour(term: str) -> str:
    """Colour of a term of the score, or of another curve beside it: that of the method which has nothing else."""
    named = {"s_sem": "semantic", "s_pred": "predictive", "s_mem": "knn", "s_mem_global": "full"}
    method = named.get(term, term)
    return METHOD_COLOURS.get(method, METHOD_COLOURS["full_memory"])


def words(name: str) -> str:
    """A method, variant or family as printed in figures: "full_memory" -> "full memory"."""
    return name.replace("_", " ").replace("@", ", ")
