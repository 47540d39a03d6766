"""A damaged file, a changed byte and a full disk are each one line, and nothing is used that differs from what was
written."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from zsad_lib.config import get_profile
from zsad_lib.errors import ZsadError
from zsad_lib.features import extraction
from zsad_lib.features.cache import TENSORS, VideoFeatures, feature_file, find_features, load_features, save_features
from zsad_lib.files.clip_feature_files import load_clip_features
from zsad_lib.files.score_files import read_archive, write_archive
from zsad_lib.files.weights import load_weights, save_weights
from zsad_lib.methods.training_loop import CHECKPOINT, is_trained, run_steps, save_trained

FEATURES = VideoFeatures(
    timesformer=torch.arange(6.0).reshape(2, 3),
    scene=torch.ones(2, 4),
    stem=torch.ones(7, 2, 1, 2, 2, dtype=torch.float16),
    cell_motion=torch.rand(7, 2, 2),
    region=torch.rand(3, 5).half(),
    region_at=torch.zeros(3, 4, dtype=torch.int16),
    motion=torch.rand(35),
    n_frames=35,
)


def read_weights(path):
    """What is used of weights: a header may hold more, as a seal whose name was changed."""
    tensors, meta = load_weights(path)
    return tensors, meta["seed"], meta["sha256"]


READERS = {
    "cache": (lambda path: save_features(path, FEATURES), load_features),
    "clip": (lambda path: save_weights(path, {"features": torch.rand(3, 8)}, {"model": "m"}, True), load_clip_features),
    "weights": (lambda path: save_weights(path, {"w": torch.rand(3, 8)}, {"seed": 1}), read_weights),
}


def header_of(content: bytes) -> int:
    return int.from_bytes(content[:8], "little")


def with_header(content: bytes, change) -> bytes:
    """A safetensors file with its JSON header changed."""
    size = header_of(content)
    text = json.dumps(change(json.loads(content[8 : 8 + size]))).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + size :]


DAMAGE = {  # content of a whole file -> of a damaged one
    "empty": lambda content: b"",
    "cut in the tensors": lambda content: content[:-7],
    "cut in the header": lambda content: content[:40],
    "cut to eight bytes": lambda content: content[:8],
    "longer": lambda content: content + b"\0" * 16,
    "random": lambda content: np.random.default_rng(0).bytes(len(content)),
    "zeros": lambda content: bytes(len(content)),
    "huge header": lambda content: (1 << 62).to_bytes(8, "little") + content[8:],
    "header past the end": lambda content: (len(content) * 2).to_bytes(8, "little") + content[8:],
    "text": lambda content: b"no tensors, but an error page: <html>",
    "list as header": lambda content: with_header(content, lambda header: [header]),
    "no such dtype": lambda content: content.replace(b'"F32"', b'"Q32"'),
    "another dtype": lambda content: content.replace(b'"F32"', b'"I32"'),
    "other offsets": lambda content: re.sub(rb'offsets":\[0,', b'offsets":[1,', content),
    "nested": lambda content: (100_000).to_bytes(8, "little") + b"[" * 100_000,
    "broken facts": lambda content: content.replace(b'"zsad":"{', b'"zsad":"['),
}


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_tensors_are_one_line(tmp_path, kind, damage):
    write, read = READERS[kind]
    path = tmp_path / "a.safetensors"
    write(path)
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    with pytest.raises(ZsadError, match=rf"^{re.escape(str(path))}: .*; (delete it and run|fetch or train)") as error:
        read(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", READERS)
def test_a_folder_or_nothing_in_the_place_of_tensors_is_one_line(tmp_path, kind):
    with pytest.raises(ZsadError, match=r"absent\.safetensors: no such"):
        READERS[kind][1](tmp_path / "absent.safetensors")
    (tmp_path / "a.safetensors").mkdir()
    with pytest.raises(ZsadError, match=r"a\.safetensors: "):
        READERS[kind][1](tmp_path / "a.safetensors")


@pytest.mark.parametrize("kind", READERS)
def test_no_changed_byte_is_used(tmp_path, kind):
    """Every byte of the file in turn: it is refused, or nothing that is read differs (blanks, names of entries that
    nobody reads)."""
    write, read = READERS[kind]
    path = tmp_path / "a.safetensors"
    write(path)
    content, whole = path.read_bytes(), repr(read(path))
    used = []
    for place in range(0, len(content), 1 if len(content) < 1200 else 5):
        changed = bytearray(content)
        changed[place] ^= 1
        path.write_bytes(changed)
        try:
            if repr(read(path)) != whole:
                used.append((place, bytes(content[max(0, place - 20) : place + 20])))
        except ZsadError:
            continue
    assert used == []


def test_features_of_others_are_refused(tmp_path):
    tensors = {name: getattr(FEATURES, name).clone() for name in TENSORS}
    for number, (content, header) in enumerate(
        [(tensors, None), (tensors, {"n_frames": "35"}), ({"motion": tensors["motion"]}, None), ({}, {"zsad": "{}"})]
    ):
        path = tmp_path / f"{number}.safetensors"
        save_file(content, path, header)
        with pytest.raises(ZsadError, match="not a file of this kit's features with their hash; delete it and run"):
            load_features(path)
    save_file({"features": torch.ones(2, 3, dtype=torch.int32)}, tmp_path / "int.safetensors")
    save_file({"other": torch.ones(2, 3)}, tmp_path / "other.safetensors")
    for name, held in (("int", r"features \(torch\.int32\)"), ("other", r"other \(torch\.float32\)")):
        with pytest.raises(ZsadError, match=rf"{name}\.safetensors: holds {held}; expected features, floating-point"):
            load_clip_features(tmp_path / f"{name}.safetensors")


def test_the_features_step_computes_a_damaged_file_again(tmp_path, monkeypatch, capsys):
    rows = []
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.mp4").write_text(name)
        path = str(tmp_path / f"{name}.mp4")
        rows.append(dict(video=name, path=path, split="test", family="normal", n_frames=35))
    monkeypatch.setenv("ZSAD_HOME", str(tmp_path))
    monkeypatch.setattr(extraction, "load_manifest", lambda folder: pd.DataFrame(rows))
    made = []

    def compute(profile, missing):
        for row in missing:
            made.append(row.video)
            save_features(feature_file(extraction.cache_folder(profile), row), FEATURES)

    monkeypatch.setattr(extraction, "_extract", compute)
    profile = get_profile("smoke", jobs=1)
    files = extraction.extract(profile, tmp_path / "runs" / "smoke" / "features")["files"]
    assert made == ["a", "b", "c"] and len(files) == 3
    content = bytearray(files[1].read_bytes())
    content[-1] ^= 1
    files[1].write_bytes(content)
    files[2].write_bytes(b"")
    made.clear()
    capsys.readouterr()
    outcome = extraction.extract(profile, tmp_path / "runs" / "smoke" / "features")
    told = capsys.readouterr().err.splitlines()
    assert made == ["b", "c"] and outcome["metrics"] == {"videos": 3, "computed": 2}
    assert told[0] == f"  {files[1]}: tensors do not match the recorded sha256; it is computed again"
    assert len(told) == 2 and all(find_features(file) is not None for file in files)


def test_archives_notice_a_changed_byte(tmp_path):
    write_archive(tmp_path / "a.npz", {"v": np.arange(40.0), "w": np.ones(3)})
    content, whole = (tmp_path / "a.npz").read_bytes(), read_archive(tmp_path / "a.npz")
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1
        (tmp_path / "a.npz").write_bytes(changed)
        try:
            for name, values in read_archive(tmp_path / "a.npz").items():  # one may be lost; `result.json` tells that
                assert np.array_equal(values, whole[name])
        except ZsadError as error:
            assert str(error).startswith(str(tmp_path / "a.npz"))


def test_damaged_trainings_start_anew(tmp_path, capsys):
    model = torch.nn.Linear(2, 1)

    def train(count, stop=None):
        def step(number):
            if number == stop:
                raise KeyboardInterrupt
            return [float(number)]

        return run_steps(step, count, tmp_path, "key", [model], every=2)

    with pytest.raises(KeyboardInterrupt):
        train(6, stop=5)
    content = bytearray((tmp_path / CHECKPOINT).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / CHECKPOINT).write_bytes(content)
    assert train(6) == [[0.0], [1.0], [2.0], [3.0], [4.0], [5.0]]
    assert "checkpoint.pt: damaged; the training starts anew" in capsys.readouterr().err
    save_trained(tmp_path / "w.safetensors", model.state_dict(), {"key": "key"})
    assert is_trained(tmp_path / "w.safetensors", "key")
    (tmp_path / "w.safetensors").write_bytes(b"")
    assert not is_trained(tmp_path / "w.safetensors", "key")
    assert "w.safetensors: not a readable safetensors file" in capsys.readouterr().err


WRITERS = """
import io, resource, sys
from pathlib import Path
import numpy as np, pandas as pd, torch
from PIL import Image
from zsad_lib.errors import ZsadError
from zsad_lib.features.cache import VideoFeatures, save_features
from zsad_lib.files import paths
from zsad_lib.files.score_files import write_archive, write_frames, write_scores
from zsad_lib.files.video import write_video
from zsad_lib.files.weights import save_weights
from zsad_lib.methods.training_loop import run_steps
from zsad_lib.results import style
import matplotlib.pyplot as plt

home, rng, big = Path(sys.argv[1]), np.random.default_rng(0), np.random.default_rng(0).random(60_000)
part = torch.rand(20_000)

def frames(path):
    with paths.whole_folder(path) as folder:
        write_frames(folder / "v.csv", 10.0, {"score": big})

def picture(path):
    with paths.atomic(path, mode=None) as temporary:
        Image.fromarray(rng.integers(0, 255, (600, 600, 3), np.uint8)).save(temporary)

def figure(path):
    drawn = plt.figure()
    drawn.subplots().imshow(rng.random((300, 300)), interpolation="none")
    style.save(drawn, path)

def checkpoint(path):
    run_steps(lambda step: [0.0], 3, path.parent, "key", [torch.nn.Linear(300, 300)], every=1)

WRITERS = {
    "a.safetensors": lambda path: save_weights(path, {"w": torch.rand(60_000)}, {}),
    "features.safetensors": lambda path: save_features(path, VideoFeatures(*[part] * 7, 3)),
    "a.npz": lambda path: write_archive(path, {"x": big}),
    "a.csv": lambda path: paths.write_table(path, pd.DataFrame({"x": big})),
    "frames": frames,
    "scores": lambda path: write_scores(path, {"v": big}, {"v": 10.0}),
    "a.json": lambda path: paths.write_json(path, big),
    "a.html": lambda path: paths.write_text(path, "<p>" * 60_000),
    "copy": lambda path: paths.copy(home / "large", path),
    "a.mp4": lambda path: write_video(path, rng.integers(0, 255, (40, 96, 96, 3), np.uint8), 10.0, 1),
    "a.jpg": picture,
    "b.png": figure,
    "checkpoint.pt": checkpoint,
}
(home / "large").write_bytes(bytes(200_000))
plt.figure()  # what libraries write on their own, as a list of fonts, is there before
plt.close()
sys.dont_write_bytecode = True  # of a library that is imported late it would write the half
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
for name, write in WRITERS.items():
    (home / name).write_text("old") if name != "scores" else None
    try:
        write(home / name)
        print(name, "was written")
    except ZsadError as error:
        print(error)
    except Exception as error:
        print(name, "raised", repr(error))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows limits no file sizes")
def test_a_full_disk_is_one_line_and_the_old_file_stays(tmp_path):
    """Of every kind of file that the kit writes; the limit on file sizes stands for the disk's end."""
    command = [sys.executable, "-c", WRITERS, str(tmp_path)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    names = ["a.safetensors", "features.safetensors", "a.npz", "a.csv", "frames", "scores", "a.json", "a.html"]
    names += ["copy", "a.mp4", "a.jpg", "b.png", "checkpoint.pt"]
    assert out.splitlines() == [f"{tmp_path / name}: cannot write (File too large); free some space" for name in names]
    assert all((tmp_path / name).read_text() == "old" for name in names if name not in ("frames", "scores"))
    assert not list(tmp_path.glob(".partial-*")) and not (tmp_path / "scores").exists()


def test_no_room_for_weights_is_told_by_its_number(tmp_path, monkeypatch):
    from safetensors import SafetensorError

    def full(tensors, path, metadata):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(ZsadError, match=r"w\.safetensors: cannot write \(No space left on device\); free some space"):
        save_weights(tmp_path / "w.safetensors", {"w": torch.ones(1)}, {})
    assert list(tmp_path.iterdir()) == []
    shutil.rmtree(tmp_path)
