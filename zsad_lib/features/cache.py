"""Frozen features on disk: one file per video, in a folder named after all that they depend on."""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import av
from torch import Tensor

from zsad_lib.config import Profile
from zsad_lib.errors import ZsadError
from zsad_lib.features.backbones import weight_hashes
from zsad_lib.features.window_plan import BLOCK_LEN, CLIP_FRAMES, NUM_BLOCKS
from zsad_lib.files import paths
from zsad_lib.files.clip_feature_files import AGAIN, MEND
from zsad_lib.files.weights import load_tensors, save_weights
from zsad_lib.released_defects import acting_in

VERSION = 3  # of what is computed
TENSORS = ("timesformer", "scene", "stem", "cell_motion", "region", "region_at", "motion")
TOUCHED = {  # defect that acts on features -> the streams that it changes
    "dpc_order": ("stem", "cell_motion"),
    "position_size": ("timesformer", "region", "region_at"),
    "scene_weights": ("scene",),
    "one_normalisation": ("scene", "stem", "cell_motion"),
    "batch_statistics": ("stem",),
}


class VideoFeatures(NamedTuple):
    """Frozen features of one video with W windows and N blocks."""

    timesformer: Tensor  # [W, D] class feature; of published streams, CLIP's mean image embedding behind it
    scene: Tensor  # [W, S] pooled feature of the middle frame
    stem: Tensor  # [N, C', L', h', w'] predictive stream up to layer3, float16
    cell_motion: Tensor  # [N, h, w] mean absolute frame difference per cell of the predictive grid
    region: Tensor  # [R, E] vectors of `zsad_lib.models.regions`, float16; R = 0 of streams that have none
    region_at: Tensor  # [R, 4] window, token frame, row and column of each, int16
    motion: Tensor  # [T] maximum of the blurred frame difference, grey levels; the content-free motion floor
    n_frames: int


def cache_folder(profile: Profile) -> Path:
    """Folder of the features, named by all that they depend on but the videos: weights, preprocessing, decoder, plan,
    defect switches."""
    plan = [BLOCK_LEN, NUM_BLOCKS, CLIP_FRAMES, profile.stride, profile.mixed_precision, VERSION, av.__version__]
    key = json.dumps([weight_hashes(profile), plan, acting_in(profile.released, "features")])
    return paths.cache() / "features" / hashlib.sha256(key.encode()).hexdigest()[:12]


def feature_file(folder: Path, row: Any) -> Path:
    """Feature file of one manifest row; its name holds a hash of the video's path and size."""
    stat = Path(row.path).stat()
    identity = hashlib.sha256(f"{row.path} {stat.st_size}".encode()).hexdigest()[:8]
    return folder / f"{row.video}-{identity}.safetensors"


def save_features(path: Path, features: VideoFeatures) -> None:
    """Write one video's features, whole or not at all."""
    save_weights(path, {name: getattr(features, name) for name in TENSORS}, {"n_frames": features.n_frames})


def load_features(path: Path, mend: str = MEND) -> VideoFeatures:
    """Read one video's features; `mend` is what to do about a damaged file.

    Raises:
        ZsadError: missing, damaged or changed file, or one that `save_features` has not written.
    """
    tensors, header = load_tensors(path, mend)
    if tensors.keys() != set(TENSORS) or not header.keys() >= {"n_frames", "sha256"}:
        raise ZsadError(f"{path}: not a file of this kit's features with their hash; {mend}")
    return VideoFeatures(**tensors, n_frames=header["n_frames"])


def find_features(path: Path) -> VideoFeatures | None:
    """Features where there is a file and it is whole; else None, and of a damaged file a line."""
    try:
        return load_features(path, AGAIN) if path.exists() else None
    except ZsadError as error:
        print(f"  {error}", file=sys.stderr, flush=True)
        return None
