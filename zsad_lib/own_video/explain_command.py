"""What the command `explain` does: the strongest moments of one video in words, and their figures."""

from __future__ import annotations

import sys
from pathlib import Path

from zsad_lib.errors import one_line
from zsad_lib.files.own_results import note_video
from zsad_lib.files.paths import atomic
from zsad_lib.own_video.detector import trust, what_sees
from zsad_lib.own_video.explain import Why, explain, strongest_moments
from zsad_lib.own_video.output_folder import local_video, output_for
from zsad_lib.own_video.words import read_words
from zsad_lib.processes import use_one_thread

CURVE, MOMENT = "why.png", "why_{}.png"  # figures: of the video, and of its moments


def explain_video(
    video: str,
    run: str | None,
    at: float | None,
    output: Path | None,
    fps: float | None,
    captions: Path | None,
    prompts: Path | None,
    scene: str,
    backbones: str | None,
    without: str,
    prompt_weight: float,
) -> None:
    """Prints a line for each of the strongest moments, or for the one at `at` seconds, and writes the figures.

    Figures go beside what `score` draws: the contributions over the whole video, and an `overview` per moment.

    Raises:
        ZsadError: as `explain` and `output_for`.
    """
    path = local_video(video)
    output_for(path, output)
    words, sees = read_words(captions, prompts, scene, prompt_weight), what_sees(backbones, without)
    use_one_thread()
    moments = None if at is None else [at]
    why = explain(path, run, words, moments, scenes={}, sees=sees, fps=fps, progress=True)
    from zsad_lib.own_video.pictures import in_title  # drawing loads slowly, and no video shall wait for it

    chosen = strongest_moments(why.times, why.score) if at is None else why.at.tolist()
    folder = output_for(path, output).with_suffix("")  # again: another process may have taken the name meanwhile
    why = why._replace(video=in_title(path.resolve().name))
    note_video(folder, path)
    print(one_line(f"{path}: figures in {Path.cwd() / folder}"), file=sys.stderr)
    for w in chosen:
        print(one_line(moment_in_words(why, w)))
    print(one_line(f"{', '.join(draw(why, chosen, folder))} in {folder}"))
    if line := trust(run, sees):
        print(line)


def moment_in_words(why: Why, w: int) -> str:
    """A window as a line: time, score, what its region is, the strongest term, and the best-fitting normal caption."""
    from zsad_lib.results import style

    most = max(why.terms, key=lambda name: why.terms[name][w])
    told = f"{why.times[w]:.1f} s, score {why.score[w]:.2f}: {why.in_words(w)}"
    told += f"; most from {style.TERMS[most]} ({why.terms[most][w]:+.2f})"
    if why.fired[w] < 0:
        return told
    best = why.sentences[int(why.gated[w, : why.captions].argmax())]
    return f"{told}; best normal caption: {best}"


def draw(why: Why, moments: list[int], folder: Path) -> list[str]:
    """Writes the figures of an explanation, those of an earlier one replaced; gives their names."""
    import matplotlib.pyplot as plt

    from zsad_lib.own_video import explain_figures
    from zsad_lib.results import style

    style.style()
    for old in folder.glob(MOMENT.format("*")):
        old.unlink()
    figures = {CURVE: explain_figures.contributions(why)}
    for number, w in enumerate(moments, start=1):
        figures[MOMENT.format(number)] = explain_figures.overview(why, float(why.times[w]))
    for name, figure in figures.items():
        for text in figure.findobj(plt.Text):
            text.set_parse_math(False)  # names and sentences may hold $
        with atomic(folder / name, mode=None) as temporary:
            figure.savefig(temporary, metadata={"Software": None}, format="png")
        plt.close(figure)
    return [*figures]
