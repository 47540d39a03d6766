"""One's own video: score a file, explain its score, calibrate, watch a camera. What those commands run.

Nothing here is needed to reproduce a table.
"""

from typing import Any

from zsad_lib.extensions import first_use

_HOME = {  # public name -> the module of zsad_lib that holds it
    "Seen": "own_video.ticks",
    "Ticks": "own_video.ticks",
    "frame_table": "own_video.scoring",
    "output_for": "own_video.output_folder",
    "pieces": "own_video.scoring",
    "score_video": "own_video.scoring",
    "score_windows": "own_video.scoring",
    "seen_frames": "own_video.scoring",
}


def __getattr__(name: str) -> Any:
    return first_use(__name__, name, _HOME)
