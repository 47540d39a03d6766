"""Context-aware zero-shot anomaly detection in surveillance video: a thin library behind ordered notebooks.

Names load when first used, so that ``import zsad_lib as z`` is fast and torch is imported only by what needs it.
"""

import importlib
from typing import Any

from zsad_lib import extensions

__version__ = "0.1.0"

_NAMES = {
    "begin": "run",
    "say": "run",
    "show": "run",
    "progress": "run",
    "ZsadError": "errors",
    "get_profile": "config",
    "PROFILES": "config",
    "ensure": "pipeline",
    "read_video": "video",
    "iter_frames": "video",
    "write_video": "video",
    "probe": "video",
    "load_manifest": "manifest",
    "frame_labels": "manifest",
    "load_weights": "weights",
    "score_video": "own_video",
    "Words": "own_detector",
    "LiveScorer": "streaming",
    "watch": "live",
    "explore": "explorers",
    "Text": "explorers",
    "explain": "why",
}
_MODULES = {
    "ablate", "ablation_figures", "backbones", "calibrate", "checks", "config", "doctor", "evaluate", "features", "figures",
    "live", "losses", "manifest", "models", "overlay", "own_events", "own_video", "paths", "pipeline",
    "predictive", "run", "score", "solutions", "tables", "train",
    "video", "weights",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        value = getattr(importlib.import_module(f"zsad_lib.{_NAMES[name]}"), name)
    elif name in _MODULES:
        value = importlib.import_module(f"zsad_lib.{name}")
    else:
        raise AttributeError(f"module 'zsad_lib' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_NAMES, *_MODULES})


extensions.load()  # last: they import what is above
