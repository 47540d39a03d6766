"""UCSD Ped2 as somebody's camera: calibrated on its training clips, its test clips scored by the public commands."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from data_prep.ucsd_ped2 import read_spans
from zsad_lib.__main__ import main
from zsad_lib.files.manifest import frame_labels
from zsad_lib.files.spans import format_spans


@pytest.mark.thorough
def test_each_term_on_its_test_clips(shared, run_home, monkeypatch, capsys):
    root = shared / "data" / "ucsd_ped2" / "UCSDped2"
    monkeypatch.chdir(run_home)
    spans, rows = read_spans(root / "Test" / "UCSDped2.m"), {}
    for name, how in (("stand-ins", []), ("own-prediction", ["--predict", "train"])):
        assert main(["calibrate", str(root / "Train"), "--name", name, "--far", "0.1", "--fps", "10", *how]) == 0
        for causal in ([], ["--causal"]):
            tables, labels = [], []
            for number, abnormal in enumerate(spans, start=1):
                clip, output = root / "Test" / f"Test{number:03d}", f"out/{name}{len(causal)}/{number}.csv"
                options = ["--run", name, "--fps", "10", "--no-overlay", "--output", output]
                assert main(["score", str(clip), *options, *causal]) == 0
                table = pd.read_csv(output)
                spans_from_0 = format_spans((first - 1, last - 1) for first, last in abnormal)
                truth = frame_labels(pd.Series(dict(video=clip, n_frames=len(table), spans=spans_from_0)))
                tables.append(table[~table.warmup]), labels.append(truth[~table.warmup])
            table, truth = pd.concat(tables), np.concatenate(labels)
            terms = [column for column in table if column == "score" or column.startswith("s_")]
            rows[" ".join([name, *causal])] = {term: roc_auc_score(truth, table[term]) for term in terms}
    capsys.readouterr()
    found = pd.DataFrame(rows).T
    print(f"{len(truth)} frames, {truth.mean():.1%} abnormal, micro AUC:")
    print(found.to_string(float_format="{:.3f}".format))
    assert found.s_pred["own-prediction"] > 0.95 and found.s_pred["own-prediction --causal"] > 0.94
    assert found.score["own-prediction"] > found.score["stand-ins"] + 0.1
