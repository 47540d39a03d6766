"""Films of a run are chosen by rule, small enough to be carried, and as long as what they show."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from zsad_lib.config import get_profile
from zsad_lib.files import paths
from zsad_lib.files.manifest import save_manifest
from zsad_lib.files.video import probe, write_video
from zsad_lib.results import example_films

AUCS = {"a": 0.0, "b": 0.5, "c": 1.0}  # of the scores below: 10 frames, two of them abnormal


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Three videos of 40 frames, abnormal from frame 24 to 27, scored so that `AUCS` come out; drawn in 30 frames at
    most."""
    home = tmp_path_factory.mktemp("home")
    noise = np.random.default_rng(0).integers(0, 256, (40, 24, 32, 3), np.uint8)
    truth = (np.arange(40) // 4 == 6).astype(float)
    qualities = []  # of each film that is encoded again, as often as it is

    def write_and_note(path, frames, fps, *quality):
        qualities.extend(quality)
        write_video(path, frames, fps, *quality)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZSAD_HOME", str(home))
        patch.setattr(example_films, "write_video", write_and_note)
        for name, value in {"SECONDS": 2.0, "FRAMES": 10, "WIDTH": 48, "BYTES": 20_000}.items():
            patch.setattr(example_films, name, value)
        profile, run = get_profile("smoke", jobs=1), home / "runs" / "smoke"
        folder = run / "scores" / "full" / "0"
        for made in (folder, run / "data", run / "films"):
            paths.make_folder(made)
        rows = []
        for video, auc in {**AUCS, "gone": 0.2, "features": 0.3}.items():
            path = home / f"{video}.mp4"
            if video in AUCS:
                write_video(path, noise, 10.0)
            elif video == "features":  # of its frames, in the place of footage
                path = path.with_suffix(".npy")
                np.save(path, np.zeros((40, 512), np.float32))
            row = dict(video=video, path=str(path), split="test", set="main", scene="road", site="s", family="semantic")
            rows.append(row | dict(action="fight", n_frames=40, fps=10.0, spans="24-27", caption=""))
            frames = pd.DataFrame({"frame": range(40), "time_s": np.arange(40) / 10, "score": (auc - 0.5) * truth})
            frames.to_csv(folder / f"{video}.csv", index=False)
        save_manifest(pd.DataFrame(rows), run / "data")
        np.savez(folder / "normal.npz", held=np.linspace(0, 0.1, 50))
        outputs = example_films.draw(profile, run / "films")
    return outputs, run / "films", paths.read_json(run / "films" / "films.json"), qualities


def test_films_are_chosen_by_rule_among_videos_with_footage(drawn):
    _, _, told, _ = drawn
    assert {film["video"]: film["auc"] for film in told["films"]} == AUCS
    assert [film["place"] for film in told["films"]] == ["best", "upper quartile, median", "lower quartile, worst"]
    assert (told["method"], told["seed"], told["videos"], told["calibrated"]) == ("full", 0, 3, True)
    assert told["quantiles"] == [1.0, 0.75, 0.5, 0.25, 0.0]


def test_a_film_shows_the_event_in_few_frames_at_its_pace(drawn):
    outputs, folder, told, _ = drawn
    assert outputs["metrics"] == {"films": 3} and all(path.is_file() for path in outputs["artefacts"])
    for number, film in enumerate(told["films"]):  # frames 19 to 38 of the video, every second of them
        assert (film["start_s"], film["n_frames"], film["fps"]) == (1.9, 10, 5.0)
        info = probe(folder / f"{number}.mp4")
        assert (info.n_frames, info.fps, [info.width, info.height]) == (10, 5.0, film["shape"])
        assert Image.open(folder / f"{number}.jpg").size == tuple(film["shape"])


def test_a_large_film_is_encoded_again(drawn):
    _, folder, _, qualities = drawn
    assert qualities.count(example_films.QUALITIES[0]) == 3 and set(qualities) <= set(example_films.QUALITIES)
    assert all(0 < (folder / f"{number}.mp4").stat().st_size <= 20_000 for number in range(3))
    assert not list(folder.glob(f"{paths.PARTIAL}*"))
