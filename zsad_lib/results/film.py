"""The film of a scored video: the picture with a border that shows alarm, the prompts as bars, and the score curve with
a cursor.

Everything but the picture is drawn once; per frame only bars, cursor and one line of text change.
"""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from zsad_lib.evaluate.events import alarms
from zsad_lib.files.decoding import resize
from zsad_lib.files.own_results import FILM_NOTE
from zsad_lib.files.score_files import prompt_columns, prompt_of
from zsad_lib.files.spans import labels_to_spans, parse_spans
from zsad_lib.files.video import timed_frames, write_video
from zsad_lib.pipeline.progress import report_progress

WIDTHS = (320, 1280)  # pixels: narrower pictures are scaled up, so that words can be read, and wider ones down
TALLEST = 4096  # pixels: a taller picture has black sides; an encoder takes no film of any height
STRIP = 0.22  # height of the curve, as a share of the picture's width
BORDER = 0.02  # width of the frame that shows an alarm, as a share of the picture's width
REGION = 0.3  # side of the frame around a region, as a share of the picture's shorter side
WORDS = 0.6  # share of the width for a prompt's words; its bar has the rest
BARS = 6  # prompts shown, at most: those with the highest probability somewhere in the video
ALARM, CALM, SCORE, PROMPT = (213, 94, 0), (90, 90, 90), (1, 115, 178), (2, 158, 115)
TRUTH = (204, 121, 167)  # the orange that stands for truth in the tables' figures is an alarm's here
PAPER, INK = (255, 255, 255), (40, 40, 40)

OWN_THRESHOLD = "threshold of this video alone: it marks what stands out here, it is no calibrated alarm"


def extremes(score: np.ndarray, pieces: int) -> np.ndarray:
    """Frame numbers of the lowest and the highest score in each of so many equal pieces; every frame of a short video.

    >>> extremes(np.array([0.0, 5.0, 1.0, 2.0, 9.0, 3.0, 4.0, 4.0]), 2)
    array([0, 1, 4, 5])
    """
    if len(score) <= 2 * pieces:
        return np.arange(len(score))
    parts = np.array_split(score, pieces)
    starts = np.cumsum([0, *map(len, parts[:-1])])
    return np.unique([start + pick(part) for start, part in zip(starts, parts) for pick in (np.argmin, np.argmax)])


def write_film(
    path: str | Path,
    table: pd.DataFrame,
    threshold: float,
    kind: str,
    target: Path,
    fps: float,
    progress: bool = False,
    rows: Callable[[], Iterable[pd.DataFrame]] | None = None,
) -> int:
    """Writes the film, one frame in memory at a time.

    Args:
        path: the video.
        table: of `score_video`, one row per decoded frame; a column `truth`, where there is one, marks labelled frames,
            and `region_x` and `region_y` where the oddest region lies, which gets a frame during an alarm.
        threshold: of the alarm.
        kind: what the threshold is, for the legend.
        target: ``.mp4`` to write.
        fps: frames per second to play at.
        progress: tell on standard error how far it is.
        rows: gives the whole rows in blocks, where the table of a long video holds times, scores, warm-up and labels
            alone.

    Returns:
        Frames written: as many as were scored.
    """

    frames = (frame for _, frame in timed_frames(path, tell=False))
    first = next(frames)
    width = int(np.clip(first.shape[1], *WIDTHS))
    height, font = max(2, round(first.shape[0] * width / first.shape[1])), _font(max(11, width // 60))
    height, shown = min(height, TALLEST), round(width * min(1, TALLEST / height)) or 1
    sides = ((0, 0), ((width - shown) // 2, (width - shown + 1) // 2), (0, 0))
    alarm, seconds, score = alarms(table, threshold), table["time_s"].to_numpy(), table["score"].to_numpy()
    warmup = table["warmup"].to_numpy()
    truth = table["truth"].to_numpy() if "truth" in table else np.zeros(len(table), bool)
    blocks = rows or (lambda: [table])
    highest = [block[prompt_columns(block)].max() for block in blocks()]
    likely = pd.DataFrame(highest).max().nlargest(BARS).index if len(highest[0]) else []
    words = _words([prompt_of(name) for name in likely], width, font)
    strip, legend = _strip(table, threshold, width), _legend("truth" in table, threshold, kind, width, font)
    cursor = np.linspace(0, width - 1, len(table)).round().astype(int)

    def draw_frames() -> Iterator[np.ndarray]:
        shown_rows = itertools.chain.from_iterable(_bars_and_places(block, likely) for block in blocks())
        # A recording may grow meanwhile, so that it has more frames than rows.
        for number, ((shares, place), frame) in enumerate(zip(shown_rows, itertools.chain([first], frames))):
            picture = resize(frame, (height, shown))  # some recorders change size in the middle
            if alarm[number] and np.isfinite(place).all():
                picture = _framed(picture, place)
            picture = np.pad(picture, sides)
            under = strip.copy()
            _border(picture, ALARM if alarm[number] else CALM, round(BORDER * width) if alarm[number] else 1)
            under[:, max(0, cursor[number] - 1) : cursor[number] + 1] = INK
            state = "no window has ended yet" if warmup[number] else f"score {score[number]:.1f}"
            line = [(f"{seconds[number]:.1f} s", INK), (state, INK)]
            line += [("ALARM", ALARM)] * bool(alarm[number]) + [("labelled abnormal", TRUTH)] * bool(truth[number])
            yield np.concatenate([picture, _flow(line, width, font), _bars(words, shares, font), under, legend])

    film = report_progress(draw_frames(), "frames drawn", len(table)) if progress else draw_frames()
    return write_video(target, film, fps, crf=23, note=FILM_NOTE)


def _bars_and_places(block: pd.DataFrame, prompts: Sequence[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Probabilities of the prompts shown [A], and the region's place (x, y), NaN for none, of each row."""
    places = block[["region_x", "region_y"]].to_numpy() if "region_x" in block else np.full((len(block), 2), np.nan)
    return zip(block[list(prompts)].to_numpy(), places)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


def _border(picture: np.ndarray, colour: tuple[int, int, int], width: int) -> None:
    for edge in (picture[:width], picture[-width:], picture[:, :width], picture[:, -width:]):
        edge[:] = colour


def _framed(picture: np.ndarray, place: np.ndarray) -> np.ndarray:
    """The picture [H, W, 3] with a frame around the region at `place` (x, y), as shares of it."""
    height, width = picture.shape[:2]
    x, y, half = place[0] * width, place[1] * height, REGION * min(height, width) / 2
    image = Image.fromarray(picture)
    box = (max(0, x - half), max(0, y - half), min(width - 1, x + half), min(height - 1, y + half))
    ImageDraw.Draw(image).rectangle(box, outline=ALARM, width=max(2, width // 160))
    return np.asarray(image)


def _flow(texts: Sequence[tuple[str, tuple[int, int, int]]], width: int, font: ImageFont.FreeTypeFont) -> np.ndarray:
    """Coloured texts one after the other, in as many lines as they need: uint8 [h, width, 3]."""
    row, gap = round(1.4 * font.size), font.size
    texts = [(part, colour) for text, colour in texts for part in textwrap.wrap(text, round(1.6 * width / font.size))]
    corners, x, y = [], gap // 2, 0
    for text, _ in texts:
        if x > gap // 2 and x + font.getlength(text) > width:
            x, y = gap // 2, y + row
        corners.append((x, y))
        x += round(font.getlength(text)) + gap
    picture = Image.new("RGB", (width, y + row), PAPER)
    for corner, (text, colour) in zip(corners, texts):
        ImageDraw.Draw(picture).text(corner, text, colour, font)
    return np.asarray(picture)


def _words(prompts: Sequence[str], width: int, font: ImageFont.FreeTypeFont) -> np.ndarray:
    """What stands left of the bars: a line per prompt, cut where it is too long; uint8 [h, width, 3]."""
    lines = [_flow([("abnormal prompts, probability (they name, and do not score):", INK)], width, font)]
    for prompt in prompts:
        while font.getlength(prompt) > WORDS * width - font.size:
            prompt = prompt.rstrip("…")[:-1] + "…"
        lines.append(_flow([(prompt, INK)], width, font))
    return np.concatenate(lines) if prompts else np.empty((0, width, 3), np.uint8)


def _bars(words: np.ndarray, shares: np.ndarray, font: ImageFont.FreeTypeFont) -> np.ndarray:
    """`_words` with a bar and its number per prompt; shares [A] in 0..1."""
    if not len(shares):
        return words
    picture = Image.fromarray(words)
    draw, width, row = ImageDraw.Draw(picture), words.shape[1], round(1.4 * font.size)
    left = round(WORDS * width)
    full = width - left - 4 * font.size  # room for "100 %"
    for y, share in zip(range(words.shape[0] - row * len(shares), words.shape[0], row), shares):
        draw.rectangle((left, y + 2, left + full, y + row - 3), (225, 225, 225))
        draw.rectangle((left, y + 2, left + round(full * share), y + row - 3), PROMPT)
        draw.text((left + full + font.size // 2, y), f"{share:.0%}", INK, font)
    return np.asarray(picture)


def _legend(labelled: bool, threshold: float, kind: str, width: int, font: ImageFont.FreeTypeFont) -> np.ndarray:
    line = [(f"- - threshold {threshold:.2f}", ALARM)] if np.isfinite(threshold) else []
    texts = [("— score", SCORE), *line, ("| now", INK), ("orange border: alarm", ALARM)]
    return _flow(texts + [("shaded: labelled abnormal", TRUTH)] * labelled + [(kind, INK)], width, font)


def _strip(table: pd.DataFrame, threshold: float, width: int) -> np.ndarray:
    """The curve as a picture uint8 [h, width, 3]."""
    height, last = max(40, round(STRIP * width)), max(1, len(table) - 1)
    figure = Figure(figsize=(width / 100, height / 100), dpi=100, layout="none")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, last)
    score = table["score"].to_numpy()
    kept = extremes(score, width)
    axes.plot(kept, np.where(table["warmup"], np.nan, score)[kept], color=hexed(SCORE), linewidth=1)
    if np.isfinite(threshold):
        axes.axhline(threshold, color=hexed(ALARM), linewidth=0.8, linestyle="--")
    for first, end in parse_spans(labels_to_spans(table["truth"])) if "truth" in table else ():
        axes.axvspan(first, end + 1, color=hexed(TRUTH), alpha=0.35, linewidth=0)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:, :, :3].copy()


def hexed(colour: tuple[int, int, int]) -> str:
    """A colour as matplotlib takes it."""
    return f"#{bytes(colour).hex()}"
