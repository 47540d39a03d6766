"""Published weights: every official container in miniature, read without running it, fetched and verified from a local
server."""

import collections
import copy
import dataclasses
import functools
import io
import os
import pickle
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from official_files import dpc, dpc_file, scene, scene_file, timesformer, timesformer_file, torchscript, write
from safetensors.torch import save
from test_anomaly_clip import SIZES, small, tiny_clip

from zsad_lib.__main__ import main
from zsad_lib.errors import ZsadError
from zsad_lib.features import published_weights
from zsad_lib.features.load_published import SIGNS, load_into
from zsad_lib.files.downloads import sha256_file
from zsad_lib.files.foreign_checkpoints import CHECKPOINT, TORCHSCRIPT, Foreign, describe_file, read_checkpoint
from zsad_lib.files.paths import read_json
from zsad_lib.models import AnomalyCLIP, SceneEncoder
from zsad_lib.models.anomaly_clip import published_name
from zsad_lib.models.anomaly_clip_recipes import PUBLISHED
from zsad_lib.models.text import tokenize


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    "make, content, name, dropped",
    [
        (timesformer, timesformer_file, "model.pyth", [2]),
        (lambda: timesformer(5), timesformer_file, "model.pyth", []),  # with a classifier of its own
        (dpc, dpc_file, "model.pth.tar", [36, 6]),  # norm statistics; the GRU's second name
        (scene, scene_file, "model.pth.tar", [2]),
    ],
)
def test_official_containers_fill_the_model(make, content, name, dropped, old, tmp_path):
    content, model = content(), make()
    path = write(tmp_path / name, content, old)
    assert describe_file(path) == CHECKPOINT
    report = load_into(model, path)
    given = content.get("model_state") or content["state_dict"]
    prefix = next(iter(given)).partition(".")[0]
    assert all(torch.equal(value, given[f"{prefix}.{name}"]) for name, value in model.named_parameters())
    assert list(report.dropped.values()) == dropped
    assert sum(report.loaded.values()) + sum(dropped) == len(given)
    assert re.search(rf"tensors loaded .*, {sum(dropped)} dropped.*, 0 missing, 0 unexpected$", str(report))


def test_norm_statistics_of_kinetics_do_not_stand_in_for_those_of_the_scene(tmp_path):
    model = dpc()
    load_into(model, write(tmp_path / "dpc.pth.tar", dpc_file()))
    with pytest.raises(ZsadError, match="estimate_norm_stats"):
        model.eval()(torch.zeros(1, 4, 3, 5, 32, 32))


class Trap(dict):
    """A class of the file's author; unpickled in earnest it leaves a trace."""

    traces: list = []

    def __init__(self):
        super().__init__(key=1)
        self.value = 2

    def __setstate__(self, state):
        self.traces.append(state)


class TrapDict(Trap):
    pass


class TrapList(list):
    def append(self, item):
        Trap.traces.append(item)

    extend = append


class Call:
    """Pickled as a call."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call[0], self.call[1:]


def lightning_file(model: AnomalyCLIP) -> dict:
    state = {f"net.{published_name(name)}": value for name, value in model.state_dict().items()}
    del state["net.normal_prototype"], state["net._extra_state"]
    count = SIZES["num_context_tokens"]
    texts = [f"{'X ' * count}{name.replace('_', ' ')}." for name in model.class_names]
    words = state["net.token_embedding.weight"][tokenize(texts, 77)]
    state["net.prompt_learner.token_prefix"], state["net.prompt_learner.token_suffix"] = (
        words[:, :1],
        words[:, 1 + count :],
    )
    state |= {"net.image_encoder.conv1.weight": torch.zeros(2), "net.selector_model.logit_scale": torch.ones(())}
    return {
        "epoch": 49,
        "state_dict": state,
        "optimizer_states": [{"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-5}]}],
        "callbacks": {torch.optim.AdamW: Path("best.ckpt")},
        "hyper_parameters": {
            "optimizer": functools.partial(torch.optim.AdamW, weight_decay=0.2),
            "loss": torch.nn.NLLLoss(),
            "solver": TrapDict(),
            "lists": TrapList([1, 2]),
            "best": np.float64(0.5),
            "meters": collections.defaultdict(list, a=[1]),
        },
    }


def test_lightning_checkpoint_with_foreign_objects(tmp_path):
    source = small()
    content = lightning_file(source)
    path = write(tmp_path / "last.ckpt", content)
    Trap.traces.clear()
    model = small()
    model.temporal.head.weight.data.zero_()
    report = load_into(model, path, normal_prototype=source.normal_prototype)
    assert sum(report.loaded.values()) == len(content["state_dict"]) - 4 and sum(report.dropped.values()) == 4
    features = torch.randn(9, 32)
    for mine, theirs in zip(model.eval().score(features), source.eval().score(features)):
        torch.testing.assert_close(mine, theirs)
    assert Trap.traces == [] and Foreign not in [
        entry[0] for entry in torch.serialization.get_safe_globals() if isinstance(entry, tuple)
    ]
    load_into(model, path)
    assert model.score(features).anomaly.isnan().all()  # not silently wrong while the prototype is unknown


@pytest.mark.parametrize("old", [False, True])
def test_no_code_of_a_file_runs(tmp_path, old):
    marker = tmp_path / "marker"
    inert = write(tmp_path / "a.pth", {"x": Call(exec, f"open({str(marker)!r}, 'w')"), "w": torch.ones(2)}, old)
    assert torch.equal(read_checkpoint(inert)["w"], torch.ones(2))
    hostile = write(tmp_path / "b.pth", {"x": Call(os.system, f"touch {marker}")}, old)
    with pytest.raises(ZsadError, match=r"b.pth: damaged, or not readable without running its code .*posix.system"):
        read_checkpoint(hostile)
    assert not marker.exists()


def test_texts_of_python_2(tmp_path):
    path = write(tmp_path / "a.pth.tar", {"arch": "resnet18", "w": torch.ones(2)}, old=True)
    path.write_bytes(path.read_bytes().replace(b"X\x08\0\0\0resnet18", b"U\x08resnet\xd0\xff"))
    assert read_checkpoint(path)["arch"] == "resnet\xd0\xff"


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_torchscript_opens_only_under_its_known_hash(tmp_path):
    source = copy.deepcopy(tiny_clip())
    state = {name: value.detach().half() for name, value in source.state_dict().items()}
    sizes = {name: torch.tensor(32) for name in ("input_resolution", "context_length", "vocab_size")}
    path = torchscript(tmp_path / "ViT-B-16.pt", state | sizes)
    model = copy.deepcopy(source)
    for value in model.parameters():
        value.data.zero_()
    assert describe_file(path) == TORCHSCRIPT
    with pytest.raises(ZsadError, match="ViT-B-16.pt: a TorchScript archive holds code .*`make weights`"):
        load_into(model, path)
    with pytest.raises(ZsadError, match=rf"sha256 is {sha256_file(path)}, expected {'0' * 64}"):
        load_into(model, path, "0" * 64)
    assert str(load_into(model, path, sha256_file(path))).endswith("3 dropped (3 x sizes), 0 missing, 0 unexpected")
    assert all(torch.equal(value, state[name].float()) for name, value in model.state_dict().items())


def zipped(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in files.items():
            file.writestr(zipfile.ZipInfo(name), content)  # of 1980, not of today
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content, words",
    [
        (b"\n<!DOCTYPE html><html>Quota exceeded</html>", "an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a git-lfs pointer"),
        (save({"w": torch.ones(2)}), "a safetensors file"),
        (zipped(readme=b"", labels=b""), "a zip archive of readme, labels"),
        (zipped(readme=b"1" * 99)[:60], "an incomplete zip archive"),
        (zipped(readme=b"1" * 99).replace(b"PK\x01\x02", b"PK\0\0"), "a damaged zip archive"),
        (b"", "an empty file"),
        (b"GIF89a" + bytes(9), "an unknown file that begins with b'GIF89a"),
        (pickle.dumps({"w": 1}), "a pickle that PyTorch did not write"),
    ],
)
def test_a_wrong_file_says_what_it_looks_like(content, words, tmp_path):
    path = tmp_path / "model.pyth"
    path.write_bytes(content)
    with pytest.raises(ZsadError, match=rf"model.pyth: this is {words}.*, expected a PyTorch checkpoint; .*fetch"):
        load_into(timesformer(), path)


@pytest.mark.parametrize(
    "content, message",
    [
        (dpc_file, "this is a DPC checkpoint, expected TimeSformer"),
        (scene_file, "this is a SceneEncoder checkpoint, expected TimeSformer"),
        (lambda: {"state_dict": {"a.b": torch.ones(1)}}, "this is an unknown checkpoint with a.b, ..., expected"),
        (lambda: [torch.ones(1)], "holds list, expected a dictionary of tensors"),
        (lambda: {"state_dict": {}}, "must be a non-empty mapping"),
    ],
)
def test_a_file_of_another_model_says_which(content, message, tmp_path):
    with pytest.raises(ZsadError, match=f"model.pyth: .*{message}"):
        load_into(timesformer(), write(tmp_path / "model.pyth", content()))


def test_an_imagenet_resnet_is_not_taken_for_places365(tmp_path):
    with pytest.raises(ZsadError, match="a ResNet of 1000 classes, not of the 365 of Places365"):
        load_into(scene(), write(tmp_path / "a.pth.tar", scene_file(classes=1000)))


def test_loading_is_strict(tmp_path):
    content, model = timesformer_file(), timesformer()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    content["model_state"]["model.extra"] = content["model_state"].pop("model.cls_token")
    with pytest.raises(
        ZsadError, match="m.pyth: .*missing: model.cls_token; unexpected: model.extra; put the official"
    ):
        load_into(model, write(tmp_path / "m.pyth", content))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("old", [False, True])
def test_damaged_files(tmp_path, old):
    path = write(tmp_path / "m.pyth", timesformer_file(), old)
    path.write_bytes(path.read_bytes()[:-900])
    with pytest.raises(ZsadError, match="m.pyth: (this is an incomplete zip archive|damaged, or not readable)"):
        read_checkpoint(path)
    with pytest.raises(ZsadError, match="absent.pyth: no such weights file"):
        read_checkpoint(tmp_path / "absent.pyth")


# --- fetching --------------------------------------------------------------------------------------------------------


@pytest.fixture
def places(server, run_home, monkeypatch):
    """The server holds a small Places365 file, and `CATALOGUE` knows its address."""
    server.content = write(run_home / "made", scene_file(), old=True).read_bytes()
    entry = dataclasses.replace(published_weights.CATALOGUE["places365"], urls=(server.url,))
    monkeypatch.setitem(published_weights.CATALOGUE, "places365", entry)
    return server


def test_first_download_is_recorded_and_ever_after_verified(places, run_home):
    places.limit = 5000
    with pytest.raises(ZsadError, match="cut short at 5000 .*run again to continue"):
        published_weights.fetch("places365")
    places.limit = None
    path = published_weights.fetch("places365")
    assert path == run_home / "cache/weights/resnet18_places365.pth.tar" and path.read_bytes() == places.content
    assert places.ranges == [None, "bytes=5000-"]
    assert published_weights.fetch("places365") == path and len(places.ranges) == 2
    good = sha256_file(path)
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(ZsadError, match=rf"{path}: sha256 is {sha256_file(path)}, expected {good}; .*sha256.json"):
        published_weights.fetch("places365")
    path.unlink()
    places.content = places.content[:-1] + b"x"
    with pytest.raises(ZsadError, match=f"expected sha256 {good}"):
        published_weights.fetch("places365")
    assert [file.name for file in path.parent.iterdir() if file.suffix != ".etag"] == ["sha256.json"]


def test_offline_folder_is_verified_and_left_alone(places, run_home, tmp_path):
    root = tmp_path / "mine"
    (root / "scenes").mkdir(parents=True)
    path = root / "scenes" / "resnet18_places365.pth.tar"
    path.write_bytes(places.content)
    assert (
        published_weights.fetch("places365", root) == path
        and published_weights.fetch("places365", root, offline=True) == path
    )
    assert (
        places.ranges == []
        and list(root.rglob("*.*")) == [path]
        and published_weights.ledger().is_relative_to(run_home)
    )
    write(root / "k400_224_r34_dpc-rnn_runningStats.pth.tar", scene_file())
    with pytest.raises(ZsadError, match="this is a SceneEncoder checkpoint, expected DPC"):
        published_weights.fetch("dpc", root)
    assert read_json(published_weights.ledger()) == {
        "places365": sha256_file(path)
    }  # what was not recognised is not recorded
    with pytest.raises(ZsadError, match="mine/TimeSformer_divST_8x32_224_K400.pyth: missing; .*github.com"):
        published_weights.fetch("timesformer", root, offline=True)


def test_a_page_instead_of_the_file_is_thrown_away(places, run_home):
    places.content = b"<!doctype html>Too many users have downloaded this file"
    with pytest.raises(ZsadError, match="this is an HTML page, expected .*; download it by hand from https://github"):
        published_weights.fetch("places365")
    assert not list(run_home.rglob("resnet18*.tar")) and not published_weights.ledger().exists()


def test_mirror_is_asked_first_and_files_without_address_are_fetched_by_hand(places, monkeypatch):
    content, folder = places.content, places.url.rpartition("/")[0]
    entry = dataclasses.replace(published_weights.CATALOGUE["places365"], urls=())
    monkeypatch.setitem(published_weights.CATALOGUE, "places365", entry)
    with pytest.raises(ZsadError, match="has no direct address; download it by hand from https://.* to .*tar"):
        published_weights.fetch("places365")
    assert published_weights.fetch("places365", mirror=folder + "/").read_bytes() == content


def test_anomaly_clip_is_found_in_its_archive(server, run_home, monkeypatch):
    ckpt = write(run_home / "made", lightning_file(small())).read_bytes()
    server.content = zipped(**{"checkpoints/ucfcrime/last.ckpt": ckpt, "checkpoints/xdviolence/last.ckpt": ckpt})
    for name in ("anomaly_clip_ucf_crime", "anomaly_clip_xd_violence", "anomaly_clip_shanghaitech"):
        entry = dataclasses.replace(published_weights.CATALOGUE[name], urls=(server.url,))
        monkeypatch.setitem(published_weights.CATALOGUE, name, entry)
    path = published_weights.fetch("anomaly_clip_ucf_crime")
    assert path.read_bytes() == ckpt and path.parent.name == "ucfcrime"
    assert published_weights.fetch("anomaly_clip_xd_violence").parent.name == "xdviolence" and len(server.ranges) == 1
    with pytest.raises(ZsadError, match="exists already"):
        published_weights.fetch("anomaly_clip_shanghaitech")


def test_openai_hashes_are_those_of_the_addresses():
    for name in ("clip_vit_b32", "clip_vit_b16"):
        entry = published_weights.weight(name)
        assert re.fullmatch("[0-9a-f]{64}", entry.sha256) and entry.sha256 in entry.urls[0]
        assert entry.urls[0].endswith(entry.file)
    with pytest.raises(ZsadError, match="did you mean 'clip_vit_b16'"):
        published_weights.weight("clip_vit_16")


def test_every_entry_is_complete():
    for name, entry in published_weights.CATALOGUE.items():
        assert entry.model in SIGNS and entry.licence and entry.homepage.startswith("https://"), name
    assert "CC BY-NC" in published_weights.CATALOGUE["timesformer"].licence
    assert {name for needed in published_weights.NEEDED.values() for name in needed} == set(published_weights.CATALOGUE)
    assert set(published_weights.NEEDED) == {*PUBLISHED, "camera"}


def test_command(places, run_home, monkeypatch, capsys):
    places.content = write(run_home / "made", scene_file(SceneEncoder())).read_bytes()
    monkeypatch.setitem(published_weights.NEEDED, "ucf_crime", ("places365",))
    assert main(["weights", "--profile", "ucf_crime", "--check"]) == 2
    told = capsys.readouterr()
    assert "licence CC BY" in told.out and told.err.startswith("error: ") and told.err.count("\n") == 1
    assert main(["weights", "--profile", "ucf_crime"]) == 0
    assert "SceneEncoder: 100 tensors loaded" in capsys.readouterr().out
    assert main(["weights", "--profile", "ucf_crime", "--check"]) == 0 and len(places.ranges) == 1
    for profile in ("demo", "smoke", "ped2"):
        assert main(["weights", "--profile", profile]) == 0
        assert f"{profile}: uses the stand-ins shipped with the kit; nothing to fetch\n" in capsys.readouterr().out
    assert main(["weights", "--profile", "ucf_crim"]) == 2
    assert "did you mean 'ucf_crime'" in capsys.readouterr().err
    assert main(["weights"]) == 0 and capsys.readouterr().out.count("licence") == len(published_weights.CATALOGUE)
