"""Training on videos of the test list is refused, and the splits of UCF-Crime that the kit builds hold none."""

import pandas as pd
import pytest

from data_prep import inventory, ucf_crime
from data_prep.leaks import check_no_leak, split_hash
from zsad_lib.errors import ZsadError
from zsad_lib.files.annotations import read_captions


def test_a_leak_is_refused_with_count_and_names():
    check_no_leak(["a"], ["b"])
    with pytest.raises(ZsadError, match=r"^2 of the 3 test videos are in my list: .*SPLIT=clean \(b, c\)$"):
        check_no_leak(iter(["c", "b", "a", "b"]), iter(["b", "c", "d"]), "my list")


def test_the_hash_is_of_the_lists_alone():
    table = pd.DataFrame({"video": ["a", "b"], "split": ["train", "test"], "path": ["/x", "/y"]})
    assert split_hash(table) == split_hash(table[::-1].assign(path="/z"))
    assert split_hash(table) != split_hash(table.assign(split="test")) != split_hash(table[:1])


@pytest.mark.data
@pytest.mark.parametrize(
    ("split", "counts", "captioned"),
    [
        ("official", {"train": 1530, "val": 80, "test": 290}, 764),
        ("uca", {"train": 1165, "val": 379, "test": 145}, 806),
        ("clean", {"train": 951, "val": 357, "test": 290}, 669),
    ],
)
def test_splits_of_ucf_crime_are_free_of_leaks(annotations, split, counts, captioned, capsys):
    table = inventory.listed(ucf_crime.DATA, ucf_crime.read, annotations, split)
    assert table.split.value_counts().to_dict() == counts
    sentences = ucf_crime.captions(annotations, table)
    assert sentences.video.nunique() == captioned
    test = set(table.video[table.split == "test"])
    assert not test & set(sentences.video) and not test & set(table.video[table.split != "test"])
    assert set(table.action[table.video.isin(sentences.video)]) == {"Normal"}
    if split == "uca":
        assert "165 of 310 videos of UCA's test part have no frame labels" in capsys.readouterr().out
        assert (table.spans[(table.split == "test") & (table.action != "Normal")] != "").all()
    else:
        assert test == set(table.video[table.split == "test"]) and len(test) == 290


@pytest.mark.data
def test_the_published_leaks_are_refused(annotations):
    test = inventory.listed(ucf_crime.DATA, ucf_crime.read, annotations, "official").query("split == 'test'").video
    for name, count in (("uca/UCFCrime_Train.json", 214), ("uca_normal_lists/Train.txt", 128)):
        with pytest.raises(ZsadError, match=rf"^{count} of the 290 test videos are in {name}") as error:
            check_no_leak(read_captions(annotations / name).video, test, name)
        assert "Normal_Videos_003_x264" in str(error.value) and "\n" not in str(error.value)
