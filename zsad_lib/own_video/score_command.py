"""What the command `score` does: the scores of one video as a table, and its pictures."""

from __future__ import annotations

import sys
from pathlib import Path

from zsad_lib.errors import one_line
from zsad_lib.files.own_results import note_video
from zsad_lib.files.paths import atomic
from zsad_lib.own_video.detector import trust, what_sees
from zsad_lib.own_video.events import in_words, read_truth
from zsad_lib.own_video.output_folder import local_video, output_for
from zsad_lib.own_video.scoring import score_video
from zsad_lib.own_video.words import read_words
from zsad_lib.processes import use_one_thread


def score(
    video: str,
    run: str | None,
    causal: bool,
    output: Path | None,
    fps: float | None,
    captions: Path | None,
    prompts: Path | None,
    scene: str,
    truth: Path | None,
    no_overlay: bool,
    backbones: str | None,
    without: str,
    prompt_weight: float,
) -> None:
    """Scores one video: its table, then its pictures."""
    path = local_video(video)
    target, words = output_for(path, output), read_words(captions, prompts, scene, prompt_weight)
    sees = what_sees(backbones, without)
    labels = read_truth(truth, path) if truth else None
    use_one_thread()
    table = score_video(path, run=run, words=words, sees=sees, causal=causal, fps=fps, progress=True)
    from zsad_lib.own_video import pictures  # drawing loads slowly, and a file that is no video shall not wait for it

    target = output_for(path, output)  # again: another process may have taken the name meanwhile
    folder = target.with_suffix("")
    note_video(folder, path)
    print(one_line(f"{path}: results in {Path.cwd() / target}, and {folder.name} beside it"), file=sys.stderr)
    with atomic(target) as handle:
        table.to_csv(handle, index=False, lineterminator="\n")
    if labels:  # scores are safe by now, should the labels not fit
        table["truth"] = labels(len(table))
        with atomic(target) as handle:
            table.to_csv(handle, index=False, lineterminator="\n")
    top = table.loc[table["score"].where(~table["warmup"], float("-inf")).idxmax()]
    highest = "" if top["warmup"] else f", highest score {top['score']:.3f} at {top['time_s']:.1f} s"
    print(one_line(f"{len(table)} frames{highest}, written to {target}"))
    files = pictures.write_all(path, table, folder, not no_overlay, progress=True)
    print(in_words(table))
    print(one_line(f"{', '.join(file.name for file in files.values())} in {folder}; {pictures.threshold_kind(table)}"))
    if line := trust(run, sees):
        print(line)
