"""``python -m zsad_lib score | calibrate | live | evaluate | features | weights | doctor``: the commands that need no make."""

import argparse
import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zsad_lib.errors import ZsadError, one_line

if TYPE_CHECKING:
    from zsad_lib.own_video.detector import Words


@one_line
def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, 1 (doctor found something missing), 2 (``error: <line>``), 130 (Ctrl-C)."""
    parser = argparse.ArgumentParser(prog="python -m zsad_lib", description="Zero-shot anomaly detection in video.")
    commands = parser.add_subparsers(dest="command", required=True)
    score = commands.add_parser("score", help="a score for every frame of one video")
    score.add_argument(
        "video", type=_video, help="video file or folder of frames; a name that begins with - as ./-name"
    )
    score.add_argument("--run", help="run whose detector is used, as runs/demo; default: the one shipped with the kit")
    score.add_argument("--causal", action="store_true", help="use only what a live camera has shown so far")
    score.add_argument("--output", type=Path, help="CSV to write; default: <video name>.scores.csv in this folder")
    _add_fps(score)
    _add_words(score)
    score.add_argument("--prompts", type=Path, help="text file: one sentence per line on what would be abnormal")
    score.add_argument("--truth", type=Path, help="labels to show: a CSV or NPY, or UCF-Crime's temporal annotation")
    score.add_argument(
        "--no-overlay", action="store_true", help="leave out the video with its curve, which takes longest"
    )
    calibrate = commands.add_parser("calibrate", help="fit the detector to one's own camera, from its normal video")
    calibrate.add_argument("normal", type=Path, help="folder of two or more videos in which nothing abnormal happens")
    calibrate.add_argument("--name", help="run folder to write; default: calibrated-<folder's name>")
    calibrate.add_argument("--run", help="run whose detector it starts from; default: the one shipped with the kit")
    calibrate.add_argument("--far", type=float, default=0.1, help="share of normal frames that may alarm; default: 0.1")
    calibrate.add_argument("--captions", type=Path, help="text file: one sentence per line on what is normal there")
    _add_fps(calibrate)
    calibrate.add_argument("--allow-missing", action="store_true", help="go on without videos that cannot be read")
    live = commands.add_parser("live", help="scores while a camera records, one line per frame")
    live.add_argument("source", help="number of a camera, an address as rtsp://..., or a file")
    live.add_argument("--run", help="run whose detector is used; default: the one shipped with the kit")
    _add_words(live)
    live.add_argument("--seconds", type=float, default=0.0, help="stop after that many; default: at the end")
    evaluate = commands.add_parser("evaluate", help="the evaluation protocol for anybody's frame scores")
    evaluate.add_argument("scores", type=Path, help="folder with one CSV or NPY of frame scores per video")
    evaluate.add_argument("labels", type=Path, help="folder with one CSV or NPY of frame labels per video")
    evaluate.add_argument("--out", type=Path, help="folder for detection.csv, .md and .tex; default: beside the scores")
    evaluate.add_argument(
        "--normal", type=Path, help="folder of scores of held-out normal videos, to set the threshold"
    )
    evaluate.add_argument("--fps", type=float, help="frames per second, for delays and false alarms per hour")
    features = commands.add_parser("features", help="CLIP features of every frame, for AnomalyCLIP")
    features.add_argument("videos", type=Path, help="folder of videos or of folders of frames")
    features.add_argument("--out", type=Path, help="folder for one file per video; default: <videos>-features")
    features.add_argument(
        "--weights", help="ViT-B/16: a weight file or a tag (openai); default: the kit's small stand-in"
    )
    features.add_argument("--shard", default="0/1", help="i/n: every n-th video from the i-th on; default: all")
    features.add_argument("--jobs", type=int, help="processes; default: one per core, or one where a GPU computes")
    features.add_argument("--allow-missing", action="store_true", help="go on without videos that cannot be read")
    weights = commands.add_parser("weights", help="fetch and verify the published weights that a profile needs")
    weights.add_argument("--profile", help="as ucf_crime; default: list all weights, their licences and homes")
    weights.add_argument("--root", type=Path, help="folder of weights; default: cache/weights")
    weights.add_argument("--mirror", default="", help="address of a folder with the same files, asked first")
    weights.add_argument("--check", action="store_true", help="verify what is there, fetch nothing")
    commands.add_parser("doctor", help="check this machine")
    options = parser.parse_args(arguments)
    run = dict(
        score=_score,
        calibrate=_calibrate,
        live=_live,
        evaluate=_evaluate,
        features=_features,
        weights=_weights,
        doctor=_doctor,
    )
    return run[options.command](options)


def _add_words(command: argparse.ArgumentParser) -> None:
    command.add_argument("--captions", type=Path, help="text file: one sentence per line on what is normal there")
    command.add_argument("--scene", default="", help="where it is, as 'in a corridor'; default: what the camera shows")


def _add_fps(command: argparse.ArgumentParser) -> None:
    command.add_argument("--fps", type=float, help="frames per second of folders of frames; default: 10")


def _video(text: str) -> Path:
    if re.match(r"\w+://", text):
        raise ZsadError(
            f"{text}: an address is no file; `live {text}` (make live SOURCE=...) scores a stream as it comes"
        )
    return Path(text)


def _words(options: argparse.Namespace) -> "Words":
    from zsad_lib.own_video.detector import Words, read_sentences

    given = {"normal": options.captions, "abnormal": getattr(options, "prompts", None)}
    return Words(**{name: read_sentences(path) for name, path in given.items() if path}, scene=options.scene)


def _one_thread() -> None:
    """The stand-ins are so small that threads wait for each other longer than they compute, above all on a busy machine."""
    import torch

    torch.set_num_threads(1)


def _score(options: argparse.Namespace) -> int:
    from zsad_lib.files.paths import atomic
    from zsad_lib.own_video.events import in_words, read_truth
    from zsad_lib.own_video.scoring import output_for, score_video

    output, words = output_for(options.video, options.output), _words(options)
    truth = read_truth(options.truth, options.video) if options.truth else None
    _one_thread()
    table = score_video(
        options.video, run=options.run, words=words, causal=options.causal, fps=options.fps, progress=True
    )
    from zsad_lib.own_video import pictures  # drawing loads slowly, and a file that is no video shall not wait for it

    with atomic(output) as handle:
        table.to_csv(handle, index=False, lineterminator="\n")
    if truth:  # scores are safe by now, should the labels not fit
        table["truth"] = truth(len(table))
        with atomic(output) as handle:
            table.to_csv(handle, index=False, lineterminator="\n")
    top = table.loc[table["score"].where(~table["warmup"], float("-inf")).idxmax()]
    highest = "" if top["warmup"] else f", highest score {top['score']:.3f} at {top['time_s']:.1f} s"
    print(f"{len(table)} frames{highest}, written to {output}")
    made = pictures.write_all(options.video, table, output.with_suffix(""), not options.no_overlay, progress=True)
    print(in_words(table))
    print(
        f"{', '.join(path.name for path in made.values())} in {output.with_suffix('')}; {pictures.threshold_kind(table)}"
    )
    if options.run is None:
        print("the shipped detector has seen rendered footage only: look, do not guard a place with it")
    return 0


def _calibrate(options: argparse.Namespace) -> int:
    from zsad_lib.own_video.calibrate import calibrate, in_words
    from zsad_lib.own_video.detector import read_sentences

    name = options.name or f"calibrated-{options.normal.resolve().name}"
    captions = read_sentences(options.captions) if options.captions else ()
    _one_thread()
    target, _ = calibrate(
        options.normal,
        name,
        options.run,
        options.far,
        captions,
        fps=options.fps,
        allow_missing=options.allow_missing,
    )
    print(f"{in_words(target)}; score with --run {name}")
    return 0


def _live(options: argparse.Namespace) -> int:
    from zsad_lib.own_video.watch import watch

    _one_thread()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a service that is stopped reports as on Ctrl-C
    for line in watch(options.source, options.run, options.seconds, _words(options)):
        print(line, flush=True, file=sys.stderr if line.startswith("#") else sys.stdout)
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from zsad_lib.results.evaluate_folders import evaluate_folders

    evaluate_folders(options.scores, options.labels, options.out, normal=options.normal, fps=options.fps)
    return 0


def _features(options: argparse.Namespace) -> int:
    from functools import partial

    from zsad_lib.features import clip_frames
    from zsad_lib.features.backbones import processes
    from zsad_lib.files.weights import SHIPPED
    from zsad_lib.pipeline.processes import read_shard

    make = (
        partial(clip_frames.official_encoder, options.weights)
        if options.weights
        else partial(clip_frames.stand_in_encoder, SHIPPED)
    )
    videos = options.videos.resolve()
    folder = options.out or videos.parent / f"{videos.name}-features"
    listed, shard = clip_frames.list_videos(videos), read_shard(options.shard)
    jobs = options.jobs or (processes(os.cpu_count() or 1) if options.weights else os.cpu_count() or 1)
    found = clip_frames.extract(listed, folder, make, shard, options.allow_missing, jobs)
    print(f"{len(found)} of {len(listed)} videos: features in {folder}")
    return 0


def _weights(options: argparse.Namespace) -> int:
    from zsad_lib.features import published_weights

    return published_weights.main(options.profile, options.root, options.check, options.mirror)


def _doctor(options: argparse.Namespace) -> int:
    from zsad_lib.maintenance import doctor

    return doctor.main()


if __name__ == "__main__":
    sys.exit(main())
