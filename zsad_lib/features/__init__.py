"""Frozen backbones and what they see: the plan of windows, the extraction, the cache on disk.

Nothing here is trained and nothing knows a score.
"""

from typing import Any

from zsad_lib.extensions import first_use

_HOME = {  # public name -> the module of zsad_lib that holds it
    "BLOCK_LEN": "features.window_plan",
    "CHUNK_BLOCKS": "features.extraction",
    "CLIP_FRAMES": "features.window_plan",
    "Extractor": "features.extraction",
    "MIDDLE_FRAME": "features.window_plan",
    "NORM_STATS": "features.extraction",
    "NORM_VIDEOS": "features.extraction",
    "NUM_BLOCKS": "features.window_plan",
    "TENSORS": "features.cache",
    "TOUCHED": "features.cache",
    "VERSION": "features.cache",
    "VideoFeatures": "features.cache",
    "WINDOW": "features.window_plan",
    "at_frames": "features.window_plan",
    "cache_folder": "features.cache",
    "chunks": "features.extraction",
    "encode_long": "features.extraction",
    "extract": "features.extraction",
    "extract_share": "features.extraction",
    "extractor": "features.extraction",
    "feature_file": "features.cache",
    "fit_norm_stats": "features.extraction",
    "frozen_streams": "features.extraction",
    "load_features": "features.cache",
    "save_features": "features.cache",
    "to_frames": "features.window_plan",
    "window_blocks": "features.extraction",
    "window_count": "features.window_plan",
}


def __getattr__(name: str) -> Any:
    return first_use(__name__, name, _HOME)
