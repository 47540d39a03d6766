"""Scene encoder against torchvision's ResNet-18 with the weights in Places365's container."""

import logging

import pytest
import torch
from torchvision.models import resnet18

from zsad_lib.errors import ZsadError
from zsad_lib.models.scene import SceneEncoder


@pytest.fixture(scope="module")
def places() -> dict:
    """A random network in the shape of resnet18_places365.pth.tar (PyTorch 0.2: no num_batches_tracked)."""
    torch.manual_seed(0)
    net = resnet18(num_classes=365)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    state = {f"module.{k}": v for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")}
    return {"epoch": 90, "arch": "resnet18", "best_prec1": 54.0, "state_dict": state, "net": net.eval()}


def test_places365_container_and_torchvision_oracle(places, caplog):
    with caplog.at_level(logging.WARNING):
        model = SceneEncoder().load_official(places).eval()
    assert "fc.*" in caplog.text
    net, frames = places["net"], torch.randn(2, 3, 64, 64)
    net.fc = torch.nn.Identity()
    with torch.no_grad():
        feature = model(frames)
        assert feature.shape == (2, 512)
        torch.testing.assert_close(feature, net(frames), rtol=1e-4, atol=1e-5)
        plain = SceneEncoder().load_official(net.state_dict()).eval()  # torchvision's plain keys
        torch.testing.assert_close(plain(frames), feature)


@pytest.mark.parametrize(
    "edit, message",
    [
        (lambda s: s.pop("module.layer3.1.bn2.running_var"), "missing: module.layer3.1.bn2.running_var"),
        (
            lambda s: s.update({"module.layer5.0.conv1.weight": torch.zeros(1)}),
            "unexpected: module.layer5.0.conv1.weight",
        ),
        (lambda s: s.update({"module.conv1.weight": torch.zeros(64, 3, 3, 3)}), r"module.conv1.weight \[64, 3, 3, 3\]"),
    ],
)
def test_wrong_checkpoints(places, edit, message):
    state = dict(places["state_dict"])
    edit(state)
    with pytest.raises(ZsadError, match=message):
        SceneEncoder().load_official({"state_dict": state})


def test_small_stand_in_learns():
    model = SceneEncoder(channels=(8, 8, 16, 24), layers=(1, 1, 1, 1))
    feature = model(torch.randn(4, 3, 48, 64))
    assert feature.shape == (4, 24) and model.num_features == 24
    feature.square().sum().backward()
    assert model.conv1.weight.grad.abs().sum() > 0
