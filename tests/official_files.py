"""Published weights in miniature: the containers in which their authors keep them, with small models inside."""

import warnings
from collections.abc import Callable
from pathlib import Path

import open_clip
import pytest
import torch

from zsad_lib.features import published_weights
from zsad_lib.files.downloads import sha256_file
from zsad_lib.models import DPC, TimeSformer, build_clip
from zsad_lib.models.scene import SceneEncoder


def timesformer(classes: int = 0) -> TimeSformer:
    return TimeSformer(16, 8, num_frames=2, embed_dim=12, depth=1, num_heads=3, num_classes=classes)


def dpc() -> DPC:
    return DPC("resnet10", 32, num_blocks=4, pred_steps=1, width=8)


def scene() -> SceneEncoder:
    return SceneEncoder(channels=(8, 8, 16, 32), layers=(1, 1, 1, 1))


def timesformer_file(model: TimeSformer | None = None) -> dict:
    model = model or timesformer(5)
    state = {f"model.{name}": torch.randn_like(value) for name, value in model.state_dict().items()}
    return {"epoch": 15, "model_state": state, "optimizer_state": {"state": {}}, "cfg": "TRAIN: false"}


def dpc_file(model: DPC | None = None) -> dict:
    """As published with running statistics, and the GRU under two names."""
    state = (model or dpc()).state_dict()
    state = {f"module.{n}": torch.randn_like(v) if v.is_floating_point() else v for n, v in state.items()}
    twins = {n.replace("cell_list.0", "ConvGRUCell_00"): v for n, v in state.items() if "cell_list" in n}
    return {"epoch": 100, "net": "resnet34", "state_dict": state | twins, "best_acc": 0.5, "iteration": 7}


def scene_file(model: SceneEncoder | None = None, classes: int = 365) -> dict:
    model = model or scene()
    state = {f"module.{n}": v + 0.01 for n, v in model.state_dict().items() if "num_batches" not in n}  # PyTorch 0.2
    state |= {"module.fc.weight": torch.zeros(classes, model.num_features), "module.fc.bias": torch.zeros(classes)}
    return {"epoch": 90, "arch": "resnet18", "best_prec1": 54.0, "state_dict": state}


def write(path: Path, content: object, old: bool = False) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=not old)
    return path


def camera_models(name: str, side: int = 64) -> torch.nn.Module:
    """The published streams in miniature, CLIP for pictures of `side` pixels; the same weights each time."""
    torch.manual_seed(0)
    clip = dict(text_width=16, text_heads=2, text_layers=1, vision_layers=2, vision_width=32, vision_head_width=16)
    make = {
        "timesformer": lambda: TimeSformer(32, 16, 8, 24, 1, 2),
        "dpc": lambda: DPC("resnet10", 32, width=8),
        "places365": lambda: SceneEncoder((8, 8, 8, 16), (1, 1, 1, 1)),
        "clip_vit_b32": lambda: build_clip("ViT-B-32", embed_dim=16, vision_image_size=side, **clip),
        "clip_vit_b16": lambda: build_clip("ViT-B-16", embed_dim=16, vision_image_size=side, **clip),
    }
    return make[name]().eval()


def camera_weights(folder: Path, patch: pytest.MonkeyPatch, make: Callable = camera_models) -> Path:
    """A folder with the published files of the models that `make` gives by name; the kit takes their sizes and CLIP's
    hash for the published ones."""
    models = {name: make(name) for name in ("timesformer", "dpc", "places365", "clip_vit_b16")}
    contents = {
        "timesformer": timesformer_file(models["timesformer"]),
        "dpc": dpc_file(models["dpc"]),
        "places365": scene_file(models["places365"]),
    }
    folder.mkdir()
    for name, content in contents.items():
        write(folder / published_weights.CATALOGUE[name].file, content)
    state = {name: value.detach().half() for name, value in models["clip_vit_b16"].state_dict().items()}
    state |= {name: torch.tensor(32) for name in ("input_resolution", "context_length", "vocab_size")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        path = torchscript(folder / "ViT-B-16.pt", state)
    address = f"https://host/{sha256_file(path)}/ViT-B-16.pt"
    patch.setattr(published_weights, "build_model", make)
    patch.setattr(open_clip, "get_pretrained_url", lambda *_: address)
    patch.setenv("WEIGHTS_ROOT", str(folder))
    return folder


def torchscript(path: Path, state: dict[str, torch.Tensor]) -> Path:
    """OpenAI's container: an archive of modules that hold `state`."""
    top = torch.nn.Module()
    for name, value in state.items():
        *parents, leaf = name.split(".")
        module = top
        for parent in parents:
            if parent not in module._modules:
                module.add_module(parent, torch.nn.Module())
            module = module._modules[parent]
        module.register_buffer(leaf, value)
    torch.jit.save(torch.jit.script(top), path)
    return path
