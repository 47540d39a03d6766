"""The four frozen streams of one profile: which classes, in which size, with which weights and which pixel statistics.

Stand-ins are the SAME classes as the published backbones with smaller arguments, pretrained on rendered footage
(`pretrain`). The published ones see whole frames of 224 x 224 (the predictive stream 112 x 112), not a centre crop:
what happens at a picture's edge counts.

Notebook: 02_pretrain_backbones
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zsad_lib.config import Profile
from zsad_lib.errors import ZsadError
from zsad_lib.features import published_weights
from zsad_lib.files import paths
from zsad_lib.files.weights import SHIPPED, load_weights
from zsad_lib.models.checkpoints import load_strict
from zsad_lib.models.dpc import DPC, NORM_STATISTICS, BlockNorm
from zsad_lib.models.names import choose
from zsad_lib.models.regions import NamedThings
from zsad_lib.models.scene import SceneEncoder
from zsad_lib.models.text import Vocabulary, build_clip, encode_captions
from zsad_lib.models.timesformer import TimeSformer

# Mean and standard deviation per RGB channel, pixels in 0..1, that each stream's published weights expect.
KINETICS = ((0.45, 0.45, 0.45), (0.225, 0.225, 0.225))  # TimeSformer
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # DPC, Places365
OPENAI_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))

STAND_IN_SIZE = (48, 64)  # height, width in pixels that all stand-ins see
EMBED_DIM = 64  # width of the stand-ins' joint video-text space
TIMESFORMER = dict(image_size=STAND_IN_SIZE, patch_size=8, num_frames=8, embed_dim=96, depth=2, num_heads=4)
PREDICTIVE = dict(backbone="resnet10", image_size=STAND_IN_SIZE, width=12, strides=(2, 2, 1, 1, 2, 1), gru_kernel=3)
SCENE = dict(channels=(16, 32, 48, 64), layers=(1, 1, 1, 1))
CLIP = dict(
    embed_dim=EMBED_DIM, text_width=64, text_heads=4, text_layers=2, text_context_length=48,
    vision_width=64, vision_layers=3, vision_head_width=16, vision_patch_size=8, vision_image_size=STAND_IN_SIZE,
)  # fmt: skip
PUBLISHED = ("timesformer", "dpc", "places365", "clip_vit_b16")  # of `CATALOGUE`, as `Backbones` orders them
PAPER_CLIP = "clip_vit_b32"  # whose text the published form of the method reads
THINGS = (  # what somebody at a camera would point at
    "a photo of a person", "a photo of people", "a photo of a car", "a photo of a truck", "a photo of a motorcycle",
    "a photo of a bicycle", "a photo of an animal", "a photo of a bag", "a photo of fire", "a photo of smoke",
)  # fmt: skip
PLACES = (  # what is there anyway
    "a photo of a road", "a photo of a pavement", "a photo of a floor", "a photo of a wall", "a photo of a ceiling",
    "a photo of a door", "a photo of a window", "a photo of a building", "a photo of shelves", "a photo of a tree",
    "a photo of grass", "a photo of the sky", "a photo of an empty place",
)  # fmt: skip
WEIGHTS = ("timesformer.safetensors", "dpc.safetensors", "scene.safetensors", "clip.safetensors")


def normalise(frames: Tensor, statistics: tuple[tuple[float, ...], tuple[float, ...]]) -> Tensor:
    """uint8 frames [..., H, W, 3] -> float32 [..., 3, H, W], (pixel / 255 - mean) / std per channel."""
    mean, std = (torch.tensor(values, device=frames.device).view(3, 1, 1) for values in statistics)
    return (frames.movedim(-1, -3).contiguous().float() / 255).sub_(mean).div_(std)


def frame_differences(frames: Tensor, statistics: tuple[tuple[float, ...], tuple[float, ...]] = IMAGENET) -> Tensor:
    """What the stand-in predictive stream reads: uint8 [T, H, W, 3] -> float32 [T, 3, H, W], x_t - x_{t-1}, 0 for the
    first frame.

    A fixed camera's background cancels, so that a small network spends nothing on it. Published weights read the frames
    themselves.
    """
    x = normalise(frames, statistics)
    return torch.cat([torch.zeros_like(x[:1]), x[1:] - x[:-1]])


def cell_motion(blocks: Tensor, grid: tuple[int, int]) -> Tensor:
    """Mean absolute frame difference per cell of the predictive grid: blocks [N, 3, L, H, W] of differences -> [N, h,
    w]."""
    return F.adaptive_avg_pool2d(blocks.abs().mean((1, 2)), grid)


def device() -> str:
    """Where models compute: "cuda" where there is such a device, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def processes(jobs: int) -> int:
    """How many processes share the work: `jobs`, or one where a GPU computes."""
    return 1 if device() == "cuda" else jobs


def frame_clip(profile: Profile) -> tuple[nn.Module, Vocabulary | None]:
    """The CLIP that AnomalyCLIP reads frames and class names with, and the vocabulary of its text tower where that is
    cut.

    Raises:
        ZsadError: its weights are missing; `make weights` fetches them.
    """
    if profile.backbones == "official":
        return published_weights.load_fetched("clip_vit_b16").requires_grad_(False), None
    b = stand_ins(weights_folder(profile))
    return b.clip, b.vocabulary


def weights_folder(profile: Profile) -> Path:
    """Folder of the stand-ins' weights that a profile asks for: the usual ones, those of its `pretrain_seed` or
    `held_out`, or the former ones, which only ablations ask for.

    Raises:
        ZsadError: nobody has pretrained with that seed here.
    """
    if profile.backbones == "former":
        return SHIPPED / "former"
    folder = pretrained(profile.pretrain_seed, profile.held_out)
    if not (folder / WEIGHTS[-1]).is_file():
        command = f"make pretrain PRETRAIN_SEED={profile.pretrain_seed}{' HELD_OUT=1' * profile.held_out}"
        raise ZsadError(f"{folder}: no stand-ins of this pretraining; `{command}` makes them in half an hour")
    return folder


def pretrained(seed: int, held_out: bool) -> Path:
    """Folder of the stand-ins that `make pretrain` writes: of seed 0 into the kit, which ships them."""
    return (paths.cache() / "stand_ins" / f"seed{seed}" if seed else SHIPPED) / ("held_out" * held_out)


@dataclass
class Backbones:
    """Frozen streams in eval mode. Where CLIP's image tower is the anchor, one's own camera can do without the first
    three."""

    timesformer: TimeSformer | None
    dpc: DPC | None
    scene: SceneEncoder | None
    clip: nn.Module
    vocabulary: Vocabulary | None = None  # of the text tower, where its token table is cut
    video_head: nn.Module | None = None  # window's feature -> CLIP's space
    region_head: nn.Linear | None = None  # TimeSformer's patch tokens -> CLIP's space
    objectness: nn.Linear | None = None  # TimeSformer's patch tokens -> logit of "here is somebody or something"
    named: NamedThings | None = None  # the same of dense CLIP features; there where CLIP's image tower is the anchor
    image_tower: bool = False  # the window's feature ends in CLIP's mean image embedding, and so does the anchor
    differences: bool = False  # the predictive stream reads `frame_differences` instead of frames

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels that frames are decoded to."""
        return tuple(self.clip.visual.image_size) if self.image_tower else self.timesformer.patch_embed.img_size

    @property
    def video_dim(self) -> int:
        """Width of TimeSformer's feature, which P reads."""
        return self.timesformer.cls_token.shape[-1] if self.timesformer else 0

    @property
    def has_regions(self) -> bool:
        """Whether windows come with regions."""
        return self.region_head is not None or self.named is not None

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the cells in which regions lie."""
        return tuple((self.clip.visual if self.image_tower else self.timesformer.patch_embed).grid_size)

    @property
    def scene_dim(self) -> int:
        """Width of the scene feature."""
        return self.scene.num_features if self.scene else 1

    @property
    def text_dim(self) -> int:
        """Width of CLIP's joint space."""
        return self.clip.text_projection.shape[-1]

    def _modules(self) -> list[nn.Module | None]:
        heads = (self.video_head, self.region_head, self.objectness, self.named)
        return [self.timesformer, self.dpc, self.scene, self.clip, *heads]

    def to(self, device: str) -> Backbones:
        """Moves all streams to a device."""
        for module in self._modules():
            if module is not None:
                module.to(device)
        return self


def streams(profile: Profile, norm_stats: str = "running") -> Backbones:
    """The frozen streams that a profile asks for.

    The published predictive stream comes without norm statistics; `features.extract` measures them on normal training
    video.

    Raises:
        ZsadError: weights are missing or damaged; `make pretrain` makes the stand-ins, `make weights` fetches the
            published ones.
    """
    return _kind(profile.backbones).make(profile, norm_stats)


def outline(kind: str) -> Backbones | SimpleNamespace:
    """All that a detector's shape depends on, `dpc`, `video_head` and widths, without reading any published weight."""
    return _kind(kind).outline()


def weight_hashes(profile: Profile) -> list[str]:
    """Hashes of the streams' weights, in the order of the files."""
    return _kind(profile.backbones).hashes(profile)


def _kind(name: str) -> Kind:
    return choose("kind of backbones", name, KINDS)


def _published(profile: Profile, norm_stats: str) -> Backbones:
    backbones = Backbones(*(published_weights.load_fetched(name).requires_grad_(False) for name in PUBLISHED))
    backbones.timesformer.fold()
    see_with_clip(backbones, profile.regions)
    for norm in backbones.dpc.modules() if norm_stats == "batch" else ():
        if isinstance(norm, BlockNorm):
            norm.track_running_stats = False
    return backbones


def see_with_clip(backbones: Backbones, regions: bool) -> None:
    """Makes CLIP's image tower the anchor of published streams and, where asked, its dense features their regions."""
    backbones.image_tower, backbones.video_head = True, LastPart(backbones.text_dim)
    if regions:
        things, places = (encode_captions(backbones.clip, list(said), None) for said in (THINGS, PLACES))
        backbones.named = NamedThings(things, places)


class LastPart(nn.Module):
    """The anchor of the published streams: CLIP's image embedding, which stands last in a window's feature."""

    def __init__(self, width: int):
        super().__init__()
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        return x[..., -self.width :]


def paper_clip(profile: Profile, backbones: Backbones) -> tuple[nn.Module, Vocabulary | None]:
    """The CLIP whose text tower the published form of the method reads, and its vocabulary where that is cut."""
    if profile.backbones == "official":
        return published_weights.load_fetched(PAPER_CLIP).requires_grad_(False).to(device()), None
    return backbones.clip, backbones.vocabulary


def heads() -> nn.ModuleDict:
    """The linear heads on the stand-in TimeSformer's tokens: class token and patch tokens into the space of the
    stand-in CLIP's text tower, and whether a patch shows an actor at all, as a logit."""
    widths = {"video": EMBED_DIM, "region": EMBED_DIM, "objectness": 1}
    return nn.ModuleDict({name: nn.Linear(TIMESFORMER["embed_dim"], width) for name, width in widths.items()})


def stand_ins(folder: Path = SHIPPED, norm_stats: str = "running") -> Backbones:
    """Stand-in backbones with the weights in `folder`; `norm_stats` as in `DPC`.

    Raises:
        ZsadError: a weights file is missing or damaged; `make pretrain` makes it.
    """
    models = {
        "timesformer": TimeSformer(**TIMESFORMER),
        "dpc": DPC(**PREDICTIVE, norm_stats=norm_stats),
        "scene": SceneEncoder(**SCENE),
    }
    for name, model in models.items():
        tensors, _ = load_weights(folder / f"{name}.safetensors")
        if name == "dpc" and norm_stats == "batch":  # nothing reads stored ones
            tensors = {key: value for key, value in tensors.items() if not key.endswith(NORM_STATISTICS)}
        _freeze(model, tensors, folder / f"{name}.safetensors")
    tensors, meta = load_weights(folder / "clip.safetensors")
    vocabulary = Vocabulary(meta["vocabulary"])
    clip, head = build_clip("ViT-B-32", **CLIP, text_vocab_size=len(vocabulary)), heads()
    if "head.weight" in tensors:  # of the former stand-ins: the video head alone
        tensors |= {f"head.video.{name}": tensors.pop(f"head.{name}") for name in ("weight", "bias")}
        head = nn.ModuleDict({"video": head["video"], "region": None, "objectness": None})
    for prefix, model in (("clip.", clip), ("head.", head)):
        under = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        _freeze(model, under, folder / "clip.safetensors", prefix)
    named = dict(video_head=head["video"], region_head=head["region"], objectness=head["objectness"])
    return Backbones(**models, clip=clip, vocabulary=vocabulary, **named, differences=True)


def _freeze(model: nn.Module, tensors: dict[str, Tensor], file: Path, prefix: str = "") -> None:
    """Fills a stand-in from half precision, in eval mode and without gradient."""
    load_strict(model, {key: value.float() for key, value in tensors.items()}, prefix, file=file)
    model.eval().requires_grad_(False)


class Kind(NamedTuple):
    """One kind of backbones, a value of the setting `backbones`."""

    make: Callable[..., Backbones]  # (profile, norm_stats) -> the streams
    hashes: Callable[..., list[str]]  # (profile) -> what names their weights; features are cached under it
    outline: Callable[[], Backbones | SimpleNamespace]  # see `outline`


KINDS = {
    "stand_in": Kind(
        make=lambda profile, norm_stats: stand_ins(weights_folder(profile), norm_stats),
        hashes=lambda profile: [load_weights(weights_folder(profile) / name)[1]["sha256"] for name in WEIGHTS],
        outline=lambda: stand_ins(),
    ),
    "official": Kind(
        make=_published,
        hashes=lambda profile: [
            *(published_weights.known_sha256(name) or "" for name in PUBLISHED),
            *(THINGS + PLACES if profile.regions else ()),
        ],
        outline=lambda: SimpleNamespace(
            dpc=DPC().eval(), video_head=LastPart(512), video_dim=768, scene_dim=512, text_dim=512, grid=(14, 14)
        ),
    ),
}
KINDS["former"] = KINDS["stand_in"]._replace(outline=lambda: stand_ins(SHIPPED / "former"))
