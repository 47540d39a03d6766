"""Scene stream: a ResNet trained on Places365 whose pooled feature tells what kind of place a frame shows.

Papers: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, https://arxiv.org/abs/1512.03385;
Zhou et al., "Places: A 10 million Image Database for Scene Recognition", TPAMI 2018.
Weights: https://github.com/CSAILVision/places365 (resnet18_places365.pth.tar, users download them).

Notebook: 13_gate_context
"""

from collections.abc import Mapping

from timm.models.resnet import BasicBlock, ResNet

from zsad_lib.models.checkpoints import drop_head, load_strict, official_tensors


class SceneEncoder(ResNet):
    """timm's ResNet of basic blocks without classifier; the defaults are Places365's ResNet-18.

    ``forward``: frames [B, 3, H, W] of any size, ImageNet statistics -> mean over places [B, channels[-1]].

    Args:
        channels: Widths of the four stages; each but the first halves the resolution.
        layers: Basic blocks of each stage.

    >>> import torch
    >>> SceneEncoder(channels=(8, 8, 16, 32), layers=(1, 1, 1, 1)).eval()(torch.zeros(2, 3, 48, 64)).shape
    torch.Size([2, 32])
    """

    def __init__(self, channels: tuple[int, ...] = (64, 128, 256, 512), layers: tuple[int, ...] = (2, 2, 2, 2)) -> None:
        super().__init__(BasicBlock, layers, num_classes=0, channels=channels)

    def load_official(self, state_dict: Mapping) -> "SceneEncoder":
        """Load Places365's file (nested under ``state_dict``, prefix ``module.``) or torchvision's plain keys.

        The classifier ``fc.*`` is dropped and the log says so.

        Args:
            state_dict: What ``torch.load(path, weights_only=True)`` gives.

        Returns:
            The model itself.

        Raises:
            ZsadError: missing, unexpected or wrongly shaped tensors, by name; nothing is loaded then.
        """
        tensors, prefix = official_tensors(state_dict, ("module.",))
        load_strict(self, drop_head(tensors, "fc.", "SceneEncoder"), prefix)
        return self
