"""DPC-RNN against the official tensors, its gradients, and its norm statistics."""

import json
import zlib

import pytest
import torch
from safetensors import safe_open
from torch.nn import functional as F

from zsad_lib.errors import ZsadError
from zsad_lib.models.dpc import DPC, estimate_norm_stats


def tiny(**kwargs) -> DPC:
    torch.manual_seed(0)
    return DPC("resnet10", 32, num_blocks=4, block_len=3, pred_steps=2, width=8, **kwargs)


def clips(batch: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(batch, 4, 3, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def by_rule(shapes: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    """The reference weights, made from names and shapes as ../shared/vectors/README.md says."""
    weights = {}
    for key, shape in sorted(shapes.items()):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(key.encode()))) * 0.05
        weights[key] = x + 1 if len(shape) == 1 and key.endswith("weight") else x
    return weights


@pytest.mark.data
def test_agrees_with_the_official_tensors(shared):
    with safe_open(shared / "vectors" / "dpc_a0.safetensors", "pt") as file:
        config = json.loads(file.metadata()["config"])
        want = {key: file.get_tensor(key) for key in file.keys()}
    shapes = json.loads((shared / "vectors" / "state_dicts.json").read_text())["dpc_a0"]
    size, blocks, length = config["sample_size"], config["num_seq"], config["seq_len"]
    model = DPC(config["network"], size, blocks, length, config["pred_step"], norm_stats="batch").eval()
    model.load_official(by_rule(shapes))
    shape = (config["batch"], blocks, 3, length, size, size)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(config["input_seed"]))
    with torch.no_grad():
        out = model(x)
    score = torch.einsum("apds,bqdt->apsbqt", out.predicted.flatten(3), out.actual.flatten(3))
    assert (score - want["score"]).abs().max() <= 1e-4 * want["score"].abs().max()
    assert out.context.shape == (config["batch"], 256, 2, 2)

    rows = score.flatten(3).flatten(0, 2)
    positive = want["mask"].flatten(3).flatten(0, 2).eq(1).float().argmax(1)
    for name, tau in (("loss", 1.0), ("loss_tau_0.07", 0.07)):
        assert F.cross_entropy(rows / tau, positive).item() == pytest.approx(want[name].item(), rel=1e-4)


def test_load_official_reads_both_names_of_the_gru_cell():
    model = tiny(norm_stats="batch")
    own = model.state_dict()
    official = {f"module.{key}": value + 1 for key, value in own.items()}
    for key in own:
        if "cell_list.0" in key:
            official["module." + key.replace("cell_list.0", "ConvGRUCell_00")] = own[key] - 9
    model.load_official(official)
    assert all(torch.equal(model.state_dict()[key], official[f"module.{key}"]) for key in own)

    own = {key: value.clone() for key, value in tiny(norm_stats="batch").state_dict().items()}
    only_old = {key.replace("cell_list.0", "ConvGRUCell_00"): value for key, value in own.items()}
    model.load_official(only_old)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in own.items())


@pytest.mark.parametrize(
    "change, names",
    [
        (lambda d: d.pop("network_pred.0.bias"), "missing: network_pred.0.bias"),
        (lambda d: d.update({"backbone.fc.weight": torch.zeros(1)}), "unexpected: backbone.fc.weight"),
        (lambda d: d.update({"backbone.conv1.weight": torch.zeros(1)}), r"conv1.weight \[1\] \(the model has \[8, 3"),
    ],
)
def test_load_official_names_what_does_not_fit(change, names):
    model = tiny(norm_stats="batch")
    weights = dict(model.state_dict())
    change(weights)
    with pytest.raises(ZsadError, match=names):
        model.load_official(weights)


def test_load_official_refuses_group_norm_and_forgets_old_statistics():
    batch = tiny(norm_stats="batch").state_dict()
    with pytest.raises(ZsadError, match="norm="):
        tiny(norm="group").load_official(batch)
    model = tiny()
    estimate_norm_stats(model, [clips(2)])
    model.load_official(batch)
    with pytest.raises(ZsadError, match="estimate_norm_stats"):
        model.eval()(clips(1))


@pytest.mark.parametrize(
    "kwargs", [{"backbone": "resnet9"}, {"norm_stats": "no"}, {"norm": "layer"}, {"pred_steps": 6}, {"strides": (1, 2)}]
)
def test_wrong_arguments_are_refused(kwargs):
    with pytest.raises(ZsadError, match=next(iter(kwargs))):
        DPC(**kwargs)


def test_wrong_shapes_are_refused():
    model = tiny(norm="group")
    with pytest.raises(ZsadError, match="expected"):
        model(torch.zeros(1, 4, 1, 3, 32, 32))
    with pytest.raises(ZsadError, match="observe"):
        model(clips(1)[:, :2])


def test_resnet34_has_the_published_size():
    model = DPC()
    parts = [len(layer) for layer in (getattr(model.backbone, f"layer{i}") for i in (1, 2, 3, 4))]
    assert parts == [3, 4, 6, 3]
    idle = sum(p.numel() for p in model.parameters()) - sum(p.numel() for p in model.tuned_parameters())
    head = sum(p.numel() for p in model.network_pred.parameters())
    assert round((idle + head) / 1e6, 1) == 21.9  # million gradients that the released code computes and drops


def test_grid_stride_width_and_kernel_are_arguments():
    model = DPC(
        "resnet10", (48, 64), 7, 4, 3, in_channels=1, width=4, strides=(2, 2, 1, 2, 1, 1), norm="group", gru_kernel=3
    )
    out = model(torch.randn(2, 7, 1, 4, 48, 64))
    assert out.predicted.shape == out.actual.shape == (2, 3, 16, 6, 8)
    assert out.context.shape == (2, 16, 6, 8)
    assert (out.actual < 0).any()  # no ReLU after the last block


def test_every_parameter_gets_a_gradient_that_matches_differences():
    model = tiny(norm="group", dropout=0.0).double()
    x = clips(1).double()
    out = model(x)
    (out.predicted * out.actual).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    p, eps = model.agg.cell_list[0].reset_gate.weight, 1e-6
    index = p.grad.abs().flatten().argmax()
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            p.view(-1)[index] += sign * eps
            out = model(x)
            values.append((out.predicted * out.actual).sum().item())
            p.view(-1)[index] -= sign * eps
    assert (values[0] - values[1]) / (2 * eps) == pytest.approx(p.grad.view(-1)[index].item(), rel=1e-4)


@pytest.mark.parametrize("time", [1, 2, 3])
def test_the_mean_over_time_goes_before_the_last_convolution(time):
    torch.manual_seed(0)
    model = tiny(norm_stats="running").double().eval()
    block = model.backbone.layer4[-1]
    for norm in (block.bn1, block.bn2):  # nothing of them is 0 or 1
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
        norm.weight.data.normal_()
        norm.bias.data.normal_()
    x = torch.randn(2, block.conv1.in_channels, time, 4, 5).double()
    assert block.is_linear_at_the_end
    torch.testing.assert_close(block(x, mean_over_time=True), block(x).mean(2))
    assert not block.train().is_linear_at_the_end, "the statistics of the batch are no constants"
    torch.testing.assert_close(block(x, mean_over_time=True), block(x).mean(2))
    assert not tiny(norm="group").backbone.layer4[-1].is_linear_at_the_end
    assert not model.backbone.layer3[-1].eval().is_linear_at_the_end, "it ends in a ReLU"


def test_the_gru_is_its_equation_whatever_is_read_before():
    torch.manual_seed(0)
    cell = tiny().agg.cell_list[0].double()
    x, h = torch.randn(2, 3, cell.out_gate.out_channels, 4, 5).double()
    both = torch.cat([x, h], 1)
    u, r = torch.sigmoid(cell.update_gate(both)), torch.sigmoid(cell.reset_gate(both))
    expected = (1 - u) * h + u * torch.tanh(cell.out_gate(torch.cat([x, r * h], 1)))
    torch.testing.assert_close(cell(cell.read(x), h), expected)
    torch.testing.assert_close(cell(cell.read(x)), cell(cell.read(x), torch.zeros_like(h)))


def test_the_parts_make_the_whole():
    model = tiny(norm="group").eval()
    x = clips(2)
    whole = model(x)
    parts = model.predict(model.encode_from_stem(model.stem(x)))
    assert all(torch.equal(a, b) for a, b in zip(whole, parts))
    assert torch.equal(whole.context, model.aggregate(whole_features := model.encode(x)[:, :2]))
    assert whole_features.shape == (2, 2, 32, 1, 1)
    again = model.predict(features := model.encode(x), read=model.read(features[:, : -model.pred_steps]))
    torch.testing.assert_close(tuple(again), tuple(whole))


def test_the_future_does_not_reach_the_prediction():
    model = tiny(norm="group").eval()
    x = clips(1)
    before = model(x)
    x[:, 2:] = 5.0
    after = model(x)
    assert torch.equal(before.predicted, after.predicted) and not torch.equal(before.actual, after.actual)


def test_dropout_acts_on_each_step_in_training_only():
    model = tiny(norm="group", dropout=0.5)
    state = model(clips(1)).context
    assert 0.2 < (state == 0).float().mean() < 0.8
    assert (model.eval()(clips(1)).context != 0).all()


def test_tuned_parameters_are_layer4_gru_and_head():
    model = tiny()
    names = {id(p): name for name, p in model.named_parameters()}
    tuned = {names[id(p)] for p in model.tuned_parameters()}
    assert tuned == {n for n in names.values() if n.startswith(("backbone.layer4.", "agg.", "network_pred."))}


def test_a_window_does_not_depend_on_its_batch():
    model = tiny()
    with pytest.raises(ZsadError, match="norm statistics"):
        model.eval()(clips(1))
    estimate_norm_stats(model, [clips(3, seed) for seed in (2, 3)])
    assert not model.training
    x = clips(4)
    together, alone = model(x), model(x[2:3])
    assert all(torch.allclose(a[2:3], b, rtol=1e-4, atol=1e-5) for a, b in zip(together, alone))

    batch = tiny(norm_stats="batch").eval()  # official behaviour: it does depend
    assert not torch.allclose(batch(x).actual[2:3], batch(x[2:3]).actual, atol=1e-2)

    copy = tiny().eval()
    copy.load_state_dict(model.state_dict())  # the statistics travel with the weights
    assert torch.equal(copy(x).predicted, together.predicted)


def test_norm_statistics_are_the_mean_over_batches_and_training_leaves_them():
    model = tiny()
    batches = [clips(2, seed) for seed in (4, 5)]
    estimate_norm_stats(model, [clips(2, 9)])  # forgotten by the next call
    estimate_norm_stats(model, iter(batches))
    with torch.no_grad():
        per_batch = torch.stack([model.backbone.conv1(b.flatten(0, 1)).mean((0, 2, 3, 4)) for b in batches])
    norm = model.backbone.bn1
    assert torch.allclose(norm.running_mean, per_batch.mean(0), atol=1e-5)
    kept = norm.running_mean.clone()
    model.train()(clips(2, 6))
    assert torch.equal(norm.running_mean, kept)
    with pytest.raises(ZsadError, match="no batch"):
        estimate_norm_stats(model, [])
    estimate_norm_stats(tiny(norm="group"), [])  # nothing to measure
