"""How long the published streams take over the video of one camera, one by one, against the time that it plays."""

from __future__ import annotations

import statistics

import torch

from zsad_lib.features.backbones import Backbones, device, see_with_clip
from zsad_lib.features.devices import has_bfloat16_units
from zsad_lib.features.extraction import Extractor
from zsad_lib.features.published_weights import build_model
from zsad_lib.features.window_plan import BLOCK_LEN, NUM_BLOCKS, WINDOW
from zsad_lib.maintenance.timing import Row, timed
from zsad_lib.methods.context_aware.local_readout import block_scores
from zsad_lib.models.dpc import estimate_norm_stats
from zsad_lib.own_video.detector import RATE

SHOWN = {"clip_vit_b16": "CLIP ViT-B/16 with regions", "places365": "Places365", "dpc": "DPC with its prediction"}


@torch.no_grad()
def stream(name: str, repeats: int = 3, n_frames: int = 2 * WINDOW) -> Row:
    """Seconds of one stream over some seconds of video: two pictures a second by CLIP, on a GPU every seen one, a scene
    per window, every seen frame by DPC.

    Args:
        name: of the weights; random ones of the published size take as long.
        repeats: timed passes.
        n_frames: seen frames, `RATE` of them per second.
    """
    torch.manual_seed(0)
    model = build_model(name).eval().requires_grad_(False)
    places = ("timesformer", "dpc", "places365", "clip_vit_b16")
    clip = model if name == "clip_vit_b16" else build_model("clip_vit_b16").eval()
    backbones = Backbones(*(model if place == name else None for place in places[:3]), clip)
    see_with_clip(backbones, regions=True)
    precision = "bf16" if has_bfloat16_units() else "no"
    tool = Extractor(backbones, precision=precision, look_every=1 if device() == "cuda" else BLOCK_LEN)
    piece = torch.randint(256, (1 + n_frames, *tool.decoded, 3), dtype=torch.uint8)
    if name == "dpc":
        estimate_norm_stats(model, [tool.blocks(piece.to(device()))[0][None, :NUM_BLOCKS]])

    def look() -> object:
        if name == "clip_vit_b16":
            return tool.look(piece[1:])
        if name == "places365":
            return tool.windows(piece, ("scene",))
        _, _, stem, moving, *_ = tool.windows(piece, ("stem",))
        return block_scores(model, stem, moving, 0.0)

    seconds = statistics.median([timed(look) for _ in range(1 + repeats)][1:])
    playing, weights = n_frames / RATE, sum(p.nbytes for p in model.parameters()) / 2**20
    pace = f", {n_frames // tool.look_every / seconds:.1f} pictures a second" if name == "clip_vit_b16" else ""
    note = f"times real time{pace}; {weights:.0f} MiB of weights, {'bfloat16' if precision == 'bf16' else 'float32'}"
    return Row(f"{SHOWN[name]}, a camera's {playing:g} s", seconds, "watching it", playing, playing / seconds, note)
