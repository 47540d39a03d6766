"""Rows of `make bench` on a camera that runs on: what the published streams take against the time that it plays, a
window against one from scratch, and the local read-out against loops over regions.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from zsad_lib.features.backbones import Backbones, device, see_with_clip
from zsad_lib.features.devices import has_bfloat16_units
from zsad_lib.features.extraction import Extractor
from zsad_lib.features.published_weights import build_model
from zsad_lib.features.window_plan import BLOCK_LEN, CLIP_FRAMES, NUM_BLOCKS, WINDOW
from zsad_lib.maintenance.baselines import read_out_in_loops
from zsad_lib.maintenance.matrix_limit import limit_of
from zsad_lib.maintenance.timing import Row, compare, timed
from zsad_lib.methods.context_aware.local_readout import block_scores, region_keys, region_novelty, region_scores
from zsad_lib.models.dpc import estimate_norm_stats
from zsad_lib.models.regions import strongest
from zsad_lib.own_video.detector import RATE, OwnDetector, own_detector, untrained
from zsad_lib.own_video.frame_by_frame import LiveScorer

PLACES = {"places365": "scene"}  # weights -> field of `Backbones`, where it is called otherwise
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
    tool, piece = _published({name}, n_frames)
    model = tool.backbones.clip if name == "clip_vit_b16" else getattr(tool.backbones, PLACES.get(name, name))
    precision = "bfloat16" if tool.dtype else "float32"

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
    note = f"times real time{pace}; {weights:.0f} MiB of weights, {precision}"
    limit = limit_of(look, tool.dtype or torch.float32)
    measure = f"{SHOWN[name]}, a camera's {playing:g} s"
    return Row(measure, seconds, "watching it", playing, playing / seconds, note, limit)


def _published(names: set[str], n_frames: int) -> tuple[Extractor, torch.Tensor]:
    """The published streams of some names, and CLIP, with random weights; and noise for them, uint8 [1 + n, H, W, 3].

    As on one's own camera, CLIP looks at two pictures a second, on a GPU at every one.
    """
    models = {name: build_model(name).eval().requires_grad_(False) for name in sorted({*names, "clip_vit_b16"})}
    backbones = Backbones(*map(models.get, ("timesformer", "dpc", "places365", "clip_vit_b16")))
    see_with_clip(backbones, regions=True)
    precision = "bf16" if has_bfloat16_units() else "no"
    tool = Extractor(backbones, precision=precision, look_every=1 if device() == "cuda" else BLOCK_LEN)
    piece = torch.randint(256, (1 + n_frames, *tool.decoded, 3), dtype=torch.uint8)
    if backbones.dpc is not None:
        estimate_norm_stats(backbones.dpc, [tool.blocks(piece.to(device()))[0][None, :NUM_BLOCKS]])
    return tool, piece


def shipped_camera() -> OwnDetector:
    """The detector that ships with the kit, on its small networks."""
    return own_detector(None)


def published_camera() -> OwnDetector:
    """One on CLIP, Places365 and DPC of the published sizes, with random weights and as yet without a calibration."""
    torch.manual_seed(0)
    tool, _ = _published({"places365", "dpc"}, WINDOW)
    scorer, meta = untrained(tool.backbones)
    scorer.detector.moving_from.zero_()  # all of the noise moves, so that every cell has a say in `s_pred`
    return OwnDetector(scorer, tool, meta, None)


@torch.no_grad()
def next_window(name: str, make: Callable[[], OwnDetector], repeats: int = 50) -> Row:
    """One more window of a running stream, which computes its new block alone, against the same window from scratch.

    The terms of the score must be equal: to 1e-4, in bfloat16 to 0.02 of numbers between 0 and 2.

    Args:
        name: of what sees, in words.
        make: gives it.
        repeats: timed windows of each.
    """
    torch.manual_seed(0)
    own, rng = make(), np.random.default_rng(0)
    scene = rng.integers(0, 200, (*own.size, 3), dtype=np.uint8)
    frames = itertools.cycle([np.roll(scene, 3 * i, 1) + rng.integers(0, 50, scene.shape, np.uint8) for i in range(40)])
    live = LiveScorer(own)
    for frame in itertools.islice(frames, WINDOW):
        live.window(frame)

    def ours() -> dict[str, np.ndarray]:
        return [live.window(frame) for frame in itertools.islice(frames, BLOCK_LEN)][-1]

    def from_scratch() -> dict[str, np.ndarray]:
        piece = torch.from_numpy(np.stack(live.frames))
        terms = own.window_terms(own.features(piece), piece, causal=True)
        return terms | {"score": own.scorer.score(terms, own.terms, WINDOW, causal=True)[-1:]}

    found, expected, tolerance = ours(), from_scratch(), 0.02 if own.tool.dtype else 1e-4
    for term in (term for term in expected if term.startswith("s_")):
        np.testing.assert_allclose(found[term], expected[term], rtol=0, atol=tolerance, err_msg=term)
    measure, note = f"the next window of a stream, {name}", f"{NUM_BLOCKS} blocks, of which one is new"
    return compare(measure, ours, "the window from scratch", from_scratch, repeats, note)


@torch.no_grad()
def regions(repeats: int = 3, windows: int = 240, most: int = 6) -> Row:
    """The local read-out of a stream's regions, texts and memory, against loops over windows, pictures and regions.

    Args:
        repeats: timed calls of each.
        windows: of the stream; the default is two minutes.
        most: regions of a picture; their number is drawn by chance.
    """
    generator = torch.Generator().manual_seed(0)
    scorer = own_detector(None).scorer
    d, (count, width) = scorer.detector, (len(CLIP_FRAMES), scorer.bank.shape[1])
    there = torch.rand(windows, count, most, generator=generator) < torch.rand(windows, count, 1, generator=generator)
    at = F.pad(there.nonzero()[:, :2], (0, 2)).numpy()  # by window and picture; the cells do not matter
    vectors = F.normalize(torch.randn(len(at), width, generator=generator), dim=-1)
    scene = torch.randn(windows, d.scene_mean.shape[-1], generator=generator)
    window = torch.from_numpy(at[:, 0])

    def ours() -> list[np.ndarray]:
        s_sem = region_scores(d.gate, vectors, window, scorer.bank, d.context(scene))
        s_mem = region_novelty(region_keys(vectors, d.standardised(scene)[window]), scorer.region_memory)
        return [strongest(scores.numpy(), at, windows) for scores in (s_sem, s_mem)]

    loops = lambda: read_out_in_loops(scorer, vectors, at, scene)
    np.testing.assert_allclose(ours(), loops(), rtol=0, atol=1e-5)
    measure = f"local read-out of {len(at):,} regions in {windows} windows, {len(scorer.region_memory):,} remembered"
    return compare(measure, ours, "loops over windows, pictures and regions", loops, repeats)
