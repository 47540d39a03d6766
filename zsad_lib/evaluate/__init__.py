"""The evaluation protocol: metrics, floors, intervals, events, and the step that writes detection.csv.

Nothing here trains, reads a video or draws.
"""

from typing import Any

from zsad_lib.extensions import first_use

_HOME = {  # public name -> the module of zsad_lib that holds it
    "CLASSES": "evaluate.run_evaluation",
    "COLUMNS": "evaluate.evaluation",
    "EXTRA": "evaluate.evaluation",
    "LEVELS": "evaluate.evaluation",
    "PAIRED_METRICS": "evaluate.run_evaluation",
    "pairs": "evaluate.run_evaluation",
    "SMOOTHING": "evaluate.run_evaluation",
    "detection": "evaluate.run_evaluation",
    "evaluate": "evaluate.evaluation",
    "evaluate_folders": "results.evaluate_folders",
    "holm": "evaluate.comparison",
    "paired_difference": "evaluate.comparison",
    "pixel_auc": "evaluate.evaluation",
    "tabulate": "evaluate.comparison",
    "tidy": "evaluate.evaluation",
}


def __getattr__(name: str) -> Any:
    return first_use(__name__, name, _HOME)
