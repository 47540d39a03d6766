"""Weights keep their provenance and refuse silent damage."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from zsad_lib.errors import ZsadError
from zsad_lib.files.weights import load_weights, save_weights, tensors_sha256
from zsad_lib.models.checkpoints import load_strict


def test_round_trip_with_provenance(tmp_path):
    state = {"b": torch.randn(2, 3).t(), "a": torch.tensor(3), "h": torch.ones(2, dtype=torch.bfloat16)}
    sha256 = save_weights(tmp_path / "w.safetensors", state, {"seed": 7, "command": "make pretrain"})
    loaded, meta = load_weights(tmp_path / "w.safetensors")
    assert meta == {"seed": 7, "command": "make pretrain", "sha256": sha256}
    assert all(torch.equal(loaded[name], state[name]) and loaded[name].dtype == state[name].dtype for name in state)
    assert sha256 == tensors_sha256(dict(reversed(state.items()))) != tensors_sha256({**state, "a": torch.tensor(4)})


def test_same_content_gives_the_same_file(tmp_path):
    for name in ("1", "2"):
        save_weights(tmp_path / name, {"a": torch.arange(4.0), "b": torch.zeros(1)}, {"x": 1, "y": [2]})
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_missing_damaged_and_altered_files(tmp_path):
    with pytest.raises(ZsadError, match="absent.safetensors: no such weights file"):
        load_weights(tmp_path / "absent.safetensors")
    (tmp_path / "text.safetensors").write_text("no tensors")
    with pytest.raises(ZsadError, match="not a readable safetensors file"):
        load_weights(tmp_path / "text.safetensors")
    path = tmp_path / "w.safetensors"
    save_weights(path, {"a": torch.arange(4.0)}, {})
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ZsadError, match="do not match the recorded sha256"):
        load_weights(path)


def test_foreign_file_has_no_provenance(tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "f.safetensors")
    assert load_weights(tmp_path / "f.safetensors")[1] == {}


def test_a_file_of_another_size_names_itself_and_what_does_not_fit(tmp_path):
    model, before = nn.Linear(3, 2), torch.zeros(2)
    nn.init.zeros_(model.bias)
    tensors = {"weight": torch.ones(2, 4), "bias": torch.ones(2), "scale": torch.ones(1)}
    with pytest.raises(ZsadError) as error:
        load_strict(model, tensors, file=tmp_path / "head.safetensors")
    assert str(error.value) == (
        f"{tmp_path / 'head.safetensors'}: does not fit Linear: unexpected: scale; "
        "wrong shape: weight [2, 4] (the model has [2, 3]); make or fetch the file again"
    )
    assert torch.equal(model.bias, before)  # nothing half-loaded
    with pytest.raises(ZsadError, match="^checkpoint does not fit Linear: missing: bias$"):
        load_strict(model, {"weight": torch.ones(2, 3)})
    load_strict(model, {"weight": torch.ones(2, 3)}, absent=("bias",))
    assert model.weight.sum() == 6 and torch.equal(model.bias, before)
