"""`python -m zsad_lib COMMAND`: the one command line of the kit, which every target of the Makefile calls.

`COMMANDS` says which function a command is and which `OPTIONS` it takes; the function receives them by name. It imports
what it needs when it runs: neither the list of commands nor a run in which nothing is to be done loads torch or pandas.
"""

import argparse
import io
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from zsad_lib import ram
from zsad_lib.config import FAR_TARGET, Profile, get_profile
from zsad_lib.errors import ZsadError, run_command
from zsad_lib.processes import use_one_thread


def calibrate(
    normal: Path | None,
    cameras: Path | None,
    name: str | None,
    run: str | None,
    far: float,
    captions: Path | None,
    prompts: Path | None,
    fps: float | None,
    allow_missing: bool,
    predict: str,
    backbones: str | None,
    without: str,
    prompt_weight: float,
) -> None:
    """Fits the detector to a camera, or to several with one gate."""
    from zsad_lib.own_video.calibrate import calibrate, in_words, name_for
    from zsad_lib.own_video.cameras import calibrate_cameras
    from zsad_lib.own_video.detector import what_sees
    from zsad_lib.own_video.words import read_words

    if (normal is None) == (cameras is None):
        raise ZsadError("calibrate: give a folder of one camera's normal videos, or --cameras a folder of cameras")
    name, sees = name or name_for(normal or cameras), what_sees(backbones, without)
    words = read_words(captions, prompts, prompt_weight=prompt_weight)
    use_one_thread()
    how = dict(far=far, words=words, sees=sees, predict=predict == "train", fps=fps, allow_missing=allow_missing)
    if normal is not None:
        target, _ = calibrate(normal, name, run, **how)
        print(f"{in_words(target)}; score with --run {name}")
        return
    table, targets = calibrate_cameras(cameras, name, run, **how)
    print("how far the gate opens each sentence at each camera (1: as it stands, 0: closed)")
    print(table.to_string(float_format="{:.2f}".format))
    for camera, target in targets.items():
        print(f"{in_words(target)}; score with --run {name}-{camera}")


def live(
    source: str,
    run: str | None,
    captions: Path | None,
    prompts: Path | None,
    scene: str,
    seconds: float,
    backbones: str | None,
    without: str,
    prompt_weight: float,
) -> None:
    """Prints a line for every frame of a camera."""
    from zsad_lib.own_video.detector import what_sees
    from zsad_lib.own_video.watch import watch
    from zsad_lib.own_video.words import read_words

    use_one_thread()
    words = read_words(captions, prompts, scene, prompt_weight)
    for line in watch(source, run, seconds, words, what_sees(backbones, without)):
        print(line, flush=True, file=sys.stderr if line.startswith("#") else sys.stdout)


def features(
    videos: Path,
    out: Path | None,
    weights: str | None,
    shard: str,
    jobs: int | None,
    allow_missing: bool,
    backbones: str | None,
) -> None:
    """CLIP features of a folder of videos."""
    from functools import partial

    from zsad_lib.features import clip_frames
    from zsad_lib.features.backbones import processes
    from zsad_lib.features.camera_streams import camera_clip
    from zsad_lib.files.paths import as_text
    from zsad_lib.files.video_folders import list_videos
    from zsad_lib.files.weights import SHIPPED
    from zsad_lib.processes import read_shard

    if backbones == "official":
        weights = weights or str(camera_clip())
    encoder, cores = partial(clip_frames.stand_in_encoder, SHIPPED), os.cpu_count() or 1
    if weights:
        encoder, cores = partial(clip_frames.official_encoder, weights), processes(cores)
    folder = out or videos.resolve().parent / f"{as_text(videos.resolve().name)}-features"
    listed = list_videos(videos.resolve())
    files = clip_frames.extract(listed, folder, encoder, read_shard(shard), allow_missing, jobs or cores)
    print(f"{len(files)} of {len(listed)} videos: features in {folder}")


def ablate(profile: Profile, notebooks: Sequence[str], grid: str, cluster: str) -> None:
    """Runs the grids that are named, and then the notebooks."""
    from zsad_lib.ablations import run
    from zsad_lib.pipeline.run_notebooks import execute

    for path in run.ablate(run.ALL if grid == "all" else grid.split(","), profile, cluster=cluster).values():
        print(path.with_suffix(".md").read_text(encoding="utf-8"))
        print(path)
    execute([Path(name) for name in notebooks], profile)


def report(profile: Profile) -> None:
    """Writes the report of a run that has been computed."""
    from zsad_lib.results.report import write

    print(f"report: {os.path.relpath(write(profile))}")


def floors(profile: Profile) -> None:
    """Writes the floors of a data set; only its annotation is needed."""
    from data_prep.floors import write

    print(f"floors: {write(profile)}")


def pretrain(held_out: bool, seed: int) -> None:
    """Pretrains the stand-ins, into the kit itself or, with another seed, into the cache."""
    import logging

    from data_prep.scene_rules import world
    from zsad_lib.features.backbones import pretrained
    from zsad_lib.methods import pretraining

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    never_shown, folder = world.SEMANTIC if held_out else (), pretrained(seed, held_out)
    for path in pretraining.run(seed=seed, held_out=never_shown, folder=folder).values():
        print(path)


SWITCH = "store_true"
# Word or option, or "command option" where it means another thing there -> how argparse reads it.
OPTIONS: dict[str, dict[str, Any]] = {
    "video": dict(help="video file or folder of frames; a name that begins with - as ./-name"),
    "normal": dict(type=Path, nargs="?", help="folder of two or more videos in which nothing abnormal happens"),
    "--cameras": dict(
        type=Path,
        help="folder of cameras, each a folder of normal videos with its captions.txt: one"
        " gate learns from all of them",
    ),
    "source": dict(help="number of a camera, an address as rtsp://..., or a file"),
    "scores": dict(type=Path, help="folder with one CSV, Parquet or NPY of frame scores per video"),
    "labels": dict(type=Path, help="folder with one CSV, Parquet or NPY of frame labels per video"),
    "videos": dict(type=Path, help="folder of videos or of folders of frames"),
    "settings": dict(nargs="*", metavar="KEY=VALUE", help="settings of the profile, as JOBS=2"),
    "steps": dict(nargs="*", metavar="KEY=VALUE | STEP", help="settings of the profile, as JOBS=2; steps, as train"),
    "notebooks": dict(nargs="*", metavar="KEY=VALUE | NOTEBOOK", help="settings of the profile, as JOBS=2; notebooks"),
    "--run": dict(help="run whose detector is used, as runs/demo; default: the one shipped with the kit"),
    "--causal": dict(action=SWITCH, help="use only what a live camera has shown so far"),
    "--at": dict(type=float, help="seconds of the moment; default: the strongest ones"),
    "--output": dict(type=Path, help="table to write; default: <video name>.scores.csv in the current folder"),
    "--format": dict(choices=("csv", "parquet"), help="of the table; default: the ending of --output, or csv"),
    "--fps": dict(type=float, help="frames per second of folders of frames; default: 10"),
    "evaluate --fps": dict(type=float, help="frames per second, for false alarms per hour and delays in seconds"),
    "--captions": dict(type=Path, help="text file: one sentence per line on what is normal there"),
    "--prompts": dict(type=Path, help="text file: one sentence per line on what would be abnormal"),
    "--scene": dict(default="", help="where it is, as 'in a corridor'; default: what the camera shows"),
    "--truth": dict(type=Path, help="labels to show: a CSV or NPY, or UCF-Crime's temporal annotation"),
    "--no-overlay": dict(action=SWITCH, help="leave out the video with its curve, which takes longest"),
    "--name": dict(help="run folder to write; default: calibrated-<folder's name>"),
    "--far": dict(type=float, default=FAR_TARGET, help=f"share of normal frames that may alarm; default: {FAR_TARGET}"),
    "--allow-missing": dict(action=SWITCH, help="go on without videos that cannot be read"),
    "--seconds": dict(type=float, default=0.0, help="stop after that many; default: at the end"),
    "evaluate --out": dict(type=Path, help="folder for the tables; default: runs/evaluated-<scores>"),
    "bench-gpu --out": dict(type=Path, help="page; default: docs/results/gpu.md, without a GPU runs/gpu/gpu.md"),
    "features --out": dict(type=Path, help="folder for one file per video; default: <videos>-features"),
    "--normal": dict(type=Path, help="folder of scores of held-out normal videos, which alone set the threshold"),
    "--backbones": dict(
        choices=("stand_in", "official"),
        help="official: published weights (make weights PROFILE=camera); default: those of the run",
    ),
    "--predict": dict(
        choices=("no", "train"),
        default="no",
        help="train: predictive coding from scratch on the camera, which takes minutes",
    ),
    "--without": dict(default="", help="published streams to leave out, as timesformer,dpc"),
    "--prompt-weight": dict(type=float, default=0.0, help="of the abnormal sentences in the score, as 1; default: 0"),
    "--weights": dict(help="ViT-B/16: a weight file or a tag (openai); default: the kit's small stand-in"),
    "features --shard": dict(default="0/1", help="i/n: every n-th video from the i-th on; default: all"),
    "step --shard": dict(help="i/n: with the step features, a share of its videos and no more"),
    "--jobs": dict(type=int, help="processes; default: one per core, or one where a GPU computes"),
    "--profile": dict(default="demo", help="as smoke, ped2, ucf_crime; default: demo"),
    "weights --profile": dict(help="as ucf_crime; default: list all weights, their licences and homes"),
    "--launch": dict(default="", help="command that starts the processes of a step, as torchrun"),
    "--child": dict(action=SWITCH, help=argparse.SUPPRESS),  # started by another step, which tells what happens
    "--grid": dict(default="all", help="as stream, or several as stream,gate; default: all"),
    "--cluster": dict(default="", help="address of a dask scheduler"),
    "--root": dict(type=Path, help="folder of weights; default: cache/weights"),
    "--mirror": dict(default="", help="address of a folder with the same files, asked first"),
    "--check": dict(action=SWITCH, help="verify what is there, fetch nothing"),
    "--held-out": dict(action=SWITCH, help="without fight, fall and fire"),
    "--seed": dict(type=int, default=0, help="of weights and batches; those of another one go to cache/stand_ins"),
    "--upgrade": dict(action=SWITCH, help="take the newest of everything"),
}


class Command(NamedTuple):
    """A command: what `--help` says, its `OPTIONS`, and the function they go to, here or as "module:function"."""

    help: str
    options: str
    function: Callable[..., Any] | str  # an int that it returns is the exit status
    resumes: bool = False  # works on a run folder: goes on after an interruption, and ends with the make that called it
    failed: int = 2  # exit status after a `ZsadError`


SEEN_WITH = "--backbones --without --prompt-weight"
CALIBRATED = "--cameras --name --run --far --captions --prompts --fps --allow-missing --predict"
WATCHED = f"--run --captions --prompts --scene {SEEN_WITH}"
COMMANDS: dict[str, dict[str, Command]] = {
    "your own videos and scores": {
        "score": Command("a score for every frame of one video",
                         f"video {WATCHED} --causal --output --format --fps --truth --no-overlay",
                         "zsad_lib.own_video.score_command:score"),
        "explain": Command("the strongest moments of one video in words: where, what, and why",
                           f"video {WATCHED} --at --output --fps",
                           "zsad_lib.own_video.explain_command:explain_video"),
        "calibrate": Command("fit the detector to one's own camera, from its normal video",
                             f"normal {CALIBRATED} {SEEN_WITH}", calibrate),
        "live": Command("scores while a camera records, one line per frame", f"source {WATCHED} --seconds", live),
        "evaluate": Command("anybody's frame scores through the protocol, beside the content-free floors",
                            "scores labels --out --normal --fps", "zsad_lib.results.evaluate_folders:evaluate_folders"),
        "features": Command("CLIP features of every frame, for AnomalyCLIP",
                            "videos --out --weights --shard --jobs --allow-missing --backbones", features),
    },
    "a profile: its data and its run folder": {
        "run": Command("all steps, then the notebooks named", "notebooks --profile", "zsad_lib.pipeline.commands:run",
                       resumes=True, failed=1),
        "step": Command("bring the steps named up to date", "steps --profile --launch --shard --child",
                        "zsad_lib.pipeline.commands:step", resumes=True),
        "status": Command("what is up to date and what would run", "notebooks --profile",
                          "zsad_lib.pipeline.commands:status"),
        "report": Command("write the report page from what has been computed", "settings --profile", report),
        "ablate": Command("the ablations, then the notebooks named", "notebooks --profile --grid --cluster", ablate,
                          resumes=True),
        "floors": Command("what scores without a picture reach, from the annotation", "settings --profile", floors),
        "cost": Command("what a run at published size will cost on this device", "settings --profile",
                        "zsad_lib.maintenance.cost:report"),
        "weights": Command("fetch and verify the published weights that a profile needs",
                           "--profile --root --mirror --check", "zsad_lib.features.published_weights:main"),
    },
    "the kit itself": {
        "doctor": Command("check this machine", "", "zsad_lib.maintenance.doctor:main"),
        "pretrain": Command("pretrain the stand-in backbones again", "--held-out --seed", pretrain),
        "bench": Command("time the kit's ways against the usual ones", "", "zsad_lib.maintenance.speed:compare_all"),
        "bench-gpu": Command("what training and extraction at published size reach on this GPU", "--out",
                             "zsad_lib.maintenance.gpu_figures:main"),
        "showcase": Command("copy tables and pictures of runs to docs/results and README.md", "",
                            "zsad_lib.maintenance.front_page:update"),
        "notebook-map": Command("write the map of notebooks again", "",
                                "zsad_lib.maintenance.notebook_map:write"),
        "lock": Command("pin what pyproject.toml newly needs", "--upgrade", "zsad_lib.maintenance.lock:write"),
        "lock-check": Command("which pins are yanked or gone, and whether today's newest versions pass", "",
                              "zsad_lib.maintenance.lock:check"),
    },
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, 1 (something is missing), 2 (``error: <line>``), 130 (Ctrl-C)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(
            stream, io.TextIOWrapper
        ):  # a name may hold letters that the console has not, or bytes that are none
            stream.reconfigure(errors="backslashreplace")
    words = sys.argv[1:] if arguments is None else list(arguments)
    words = [re.sub(r"\s", "%20", word) if re.match(r"\w[\w+.-]+://", word) else word for word in words]  # as in a URL
    name, command = choose(words[:1])
    options = read(name, command, words[1:])
    is_child = options.get("child", False)
    if is_child or (command.resumes and "MAKELEVEL" in os.environ):
        from zsad_lib.processes import die_with_parent

        die_with_parent()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # who is stopped ends as on Ctrl-C
    interrupted = "interrupted; the same command resumes" if command.resumes else "interrupted"
    return run_command(lambda: start(command, options), "" if is_child else interrupted, command.failed)


def choose(words: Sequence[str]) -> tuple[str, Command]:
    """The command that is named; ends the process with the list of all where none is, as argparse does."""
    lines = ["Zero-shot anomaly detection in video. The options of a command: python -m zsad_lib COMMAND --help"]
    for group, commands in COMMANDS.items():
        lines += ["", f"{group}:", *(f"  {name:<14}{command.help}" for name, command in commands.items())]
    parser = argparse.ArgumentParser("python -m zsad_lib", "python -m zsad_lib COMMAND ...", "\n".join(lines))
    parser.formatter_class = argparse.RawDescriptionHelpFormatter  # lines stay as they are
    by_name = {name: command for commands in COMMANDS.values() for name, command in commands.items()}
    parser.add_argument("command", choices=by_name, metavar="COMMAND", help=argparse.SUPPRESS)
    name = parser.parse_args(words).command
    return name, by_name[name]


def read(name: str, command: Command, words: Sequence[str]) -> dict[str, Any]:
    """The command's options by name."""
    parser = argparse.ArgumentParser(f"python -m zsad_lib {name}", description=command.help)
    options = command.options.split()
    for option in options:
        parser.add_argument(option, **OPTIONS.get(f"{name} {option}", OPTIONS.get(option, {})))
    # Options may stand between KEY=VALUE, steps and notebooks. Other commands know `--`, before a name like -d.mp4.
    mixed = {"settings", "steps", "notebooks"} & set(options)
    return vars((parser.parse_intermixed_args if mixed else parser.parse_args)(words))


def start(command: Command, options: dict[str, Any]) -> int:
    """Runs a command, with its ``KEY=VALUE`` read into the profile."""
    for kind in {"settings", "steps", "notebooks"} & options.keys():
        words = options.pop(kind)
        settings = dict(word.split("=", 1) for word in words if "=" in word)
        if data_root := settings.get("DATA_ROOT"):
            settings["DATA_ROOT"] = os.path.abspath(data_root)
        options["profile"] = get_profile(options["profile"], **settings)
        if kind != "settings":
            options[kind] = [word for word in words if "=" not in word]
        elif len(settings) < len(words):
            raise ZsadError(f"{next(word for word in words if '=' not in word)!r}: only KEY=VALUE can follow")
    function = command.function
    with ram.told():
        if isinstance(function, str):
            from zsad_lib.pipeline.run_step import import_function

            function = import_function(function)
        status = function(**options)
    return status if isinstance(status, int) else 0


if __name__ == "__main__":
    sys.exit(main())
