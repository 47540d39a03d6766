"""What the command `score` does: the scores of one video as a table, and its pictures."""

from __future__ import annotations

import sys
from pathlib import Path

from zsad_lib.errors import one_line
from zsad_lib.files.own_results import note_video
from zsad_lib.files.score_tables import write_table
from zsad_lib.own_video.detector import trust, what_sees
from zsad_lib.own_video.events import in_words, read_truth
from zsad_lib.own_video.output_folder import local_video, output_for
from zsad_lib.own_video.scoring import score_in_blocks
from zsad_lib.own_video.words import read_words
from zsad_lib.processes import use_one_thread


def score(
    video: str,
    run: str | None,
    causal: bool,
    output: Path | None,
    format: str | None,
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
    target, words = output_for(path, output, format), read_words(captions, prompts, scene, prompt_weight)
    sees = what_sees(backbones, without)
    labels = read_truth(truth, path) if truth else None
    use_one_thread()
    table, rows = score_in_blocks(path, run=run, words=words, sees=sees, causal=causal, fps=fps, progress=True)
    from zsad_lib.own_video import pictures  # drawing loads slowly, and a file that is no video shall not wait for it

    target = output_for(path, output, format)  # again: another process may have taken the name meanwhile
    folder = target.with_suffix("")
    note_video(folder, path)
    print(one_line(f"{path}: results in {Path.cwd() / target}, and {folder.name} beside it"), file=sys.stderr)
    write_table(target, rows())
    if labels:  # scores are safe by now, should the labels not fit
        truth = table["truth"] = labels(len(table))
        write_table(target, (block.assign(truth=truth[block.index]) for block in rows()))
    top = table.loc[table["score"].where(~table["warmup"], float("-inf")).idxmax()]
    highest = "" if top["warmup"] else f", highest score {top['score']:.3f} at {top['time_s']:.1f} s"
    print(one_line(f"{len(table)} frames{highest}, written to {target}"))
    files = pictures.write_all(path, table, folder, not no_overlay, progress=True, rows=rows)
    print(in_words(table))
    print(one_line(f"{', '.join(file.name for file in files.values())} in {folder}; {pictures.threshold_kind(table)}"))
    if line := trust(run, sees):
        print(line)
