"""Frozen backbones and what they see: the plan of windows, the extraction, the cache on disk.

Nothing here is trained and nothing knows a score.
"""

from typing import Any

from zsad_lib.extensions import first_use

_NAMES = {  # module of zsad_lib -> public names that it holds
    "features.window_plan": "BLOCK_LEN CLIP_FRAMES MIDDLE_FRAME NUM_BLOCKS WINDOW at_frames to_frames window_count",
    "features.extraction": "CHUNK_BLOCKS Extractor NORM_STATS NORM_VIDEOS chunks encode_long extract extract_share "
    "extractor fit_norm_stats frozen_streams window_blocks",
    "features.cache": "TENSORS TOUCHED VERSION VideoFeatures cache_folder feature_file load_features save_features",
}
_HOME = {name: module for module, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    return first_use(__name__, name, _HOME)
