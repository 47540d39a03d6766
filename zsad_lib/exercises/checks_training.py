"""Checks of the exercises on training, scores and evaluation (notebooks 20 to 23)."""

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score

from zsad_lib.evaluate.inputs import normal_thresholds
from zsad_lib.exercises.answers import judge, like
from zsad_lib.features.window_plan import BLOCK_LEN, WINDOW, to_frames, window_count
from zsad_lib.losses import info_nce, swap_similarities
from zsad_lib.models import regions
from zsad_lib.models.gates import ContextGate

# --- 20: joint training ----------------------------------------------------------------------------------------------


def alignment_chance(answer: Callable) -> None:
    """`answer(batch, swaps)` against the library's loss of equal vectors."""
    equal = torch.ones(6, 4, dtype=torch.float64) / 2
    right = info_nce(equal, equal, extra=torch.ones(6, 8, dtype=torch.float64))
    mistakes = {
        "the swaps count in both directions; they are answers for videos alone": lambda b, m: math.log(b + m),
        "the swaps are left out": lambda b, m: math.log(b),
        "the two directions are added, not averaged": lambda b, m: math.log(b + m) + math.log(b),
        "a video chooses among captions and swaps, not among swaps alone": lambda b, m: (math.log(m) + math.log(b)) / 2,
        "the numbers are averaged before the logarithm; average the logarithms": lambda b, m: math.log(b + m / 2),
        "the loss is counted in bits, not in nats": lambda b, m: (math.log2(b + m) + math.log2(b)) / 2,
        "the sign is wrong; the loss is minus the logarithm of a share": lambda b, m: (
            -(math.log(b + m) + math.log(b)) / 2
        ),
    }
    judge(answer, "alignment loss of a network that knows nothing", [((6, 8), right)], mistakes)


def swap_matrix(answer: Callable) -> None:
    """`answer(gate, v, text, context, unlike)` against the library's swaps of each pair."""
    torch.manual_seed(0)
    gate = ContextGate("relevance", 8, 4).double().requires_grad_(False)
    v, text = F.normalize(torch.randn(2, 5, 8).double(), dim=-1)
    context, unlike = torch.randn(5, 4).double(), ~torch.eye(5, dtype=torch.bool)
    unlike[1, 3] = unlike[3, 1] = unlike[0, 4] = False
    right = swap_similarities(gate, v, text, context, torch.arange(5).expand(5, 5), unlike)

    def swaps(gate, v, text, context, unlike, fill=-torch.inf):
        return torch.einsum("id,ijd->ij", v, gate.paired(text[:, None], context[None])).masked_fill(~unlike, fill)

    mistakes = {
        "rows and columns are exchanged: row i is video i": lambda gate, v, text, context, unlike: (
            swaps(gate, v, text, context, unlike.T).T
        ),
        "the captions are exchanged, not the contexts": lambda gate, v, text, context, unlike: (
            v @ gate.paired(text, context).T
        ).masked_fill(~unlike, -torch.inf),
        "captions go with the contexts; video i keeps its own": lambda gate, v, text, context, unlike: torch.einsum(
            "id,ijd->ij", v, gate.paired(text[None], context[:, None])
        ).masked_fill(~unlike, -torch.inf),
        "like scenes are not masked": lambda *args: swaps(*args[:4], torch.ones_like(args[4])),
        "only the diagonal is masked, not all like scenes": lambda *args: swaps(
            *args[:4], ~torch.eye(5, dtype=torch.bool)
        ),
        "unlike scenes are masked; mask the like ones": lambda *args: swaps(*args[:4], ~args[4]),
        "like scenes are 0, not minus infinity": lambda *args: swaps(*args, fill=0),
        "the gated caption is scaled to norm 1, which undoes the gate": lambda gate, v, text, context, unlike: (
            (v * text).sum(1, keepdim=True).expand(5, 5).masked_fill(~unlike, -torch.inf)
        ),
    }
    judge(answer, "swap negatives", [((gate, v, text, context, unlike), right)], mistakes)


def batch_of_step(answer: Callable) -> None:
    """`answer(count, size, step, seed)` must repeat, draw no window twice in an epoch, and shuffle anew in the next."""

    def see(function: Callable) -> Callable:
        def epoch(number: int, seed: int) -> list:
            steps = (number * 4 + piece for piece in (2, 0, 3, 1))  # in any order: a step needs no memory of others
            return [like(function(22, 5, step, seed), np.zeros(5), "batches").tolist() for step in steps]

        return lambda fact: FACTS[fact](epoch)

    def shuffled(count: int, size: int, step: int, *seeds: int) -> list[int]:
        return np.random.default_rng(seeds).permutation(count)[step * size :][:size].tolist()

    mistakes = {
        "no seed is set; the same step draws other windows each time": lambda count, size, step, seed: torch.randperm(
            count
        )[:size],
        "each step shuffles anew, so that windows come twice in an epoch": lambda count, size, step, seed: shuffled(
            count, size, 0, seed, step
        ),
        "windows are drawn with repeats": lambda count, size, step, seed: np.random.default_rng((seed, step)).integers(
            0, count, size
        ),
        "nothing is shuffled": lambda count, size, step, seed: range(step % (count // size) * size, count)[:size],
        "every epoch has the same shuffle; seed it with the epoch too": lambda count, size, step, seed: shuffled(
            count, size, step % (count // size), seed
        ),
        "the seed is left out": lambda count, size, step, seed: shuffled(
            count, size, step % (count // size), step // (count // size)
        ),
        "seed plus epoch: the second epoch of a seed is the first of the next": lambda count, size, step, seed: (
            shuffled(count, size, step % (count // size), seed + step // (count // size))
        ),
    }
    judge(answer, "batches", [((fact,), 0) for fact in FACTS], mistakes, see)


FACTS = {  # what must not happen; epoch(number, seed) -> its four batches of 5 of 22 windows
    "windows that do not exist": lambda epoch: not set(sum(epoch(0, 3), [])) <= set(range(22)),
    "a window twice in a batch": lambda epoch: min(map(len, map(set, epoch(0, 3)))) < 5,
    "a window twice in an epoch": lambda epoch: len(set(sum(epoch(0, 3), []))) < 20,
    "other windows when a step is asked again": lambda epoch: epoch(0, 3) != epoch(0, 3),
    "windows in the order of the data": lambda epoch: sorted(epoch(0, 3)[1]) == [0, 1, 2, 3, 4],
    "an epoch like the one before": lambda epoch: epoch(0, 3) == epoch(1, 3) or epoch(1, 3) == epoch(2, 3),
    "an epoch like that of another seed": lambda epoch: epoch(0, 3) == epoch(0, 4),
    "an epoch like the one before of the next seed": lambda epoch: epoch(1, 3) == epoch(0, 4),
}


# --- 21: scores ------------------------------------------------------------------------------------------------------


def frame_scores(answer: Callable) -> None:
    """`answer(windows, n_frames, length, stride)` against the library, for short, whole and odd lengths."""

    def covered(windows, n_frames, length, stride, pool=np.mean, first=0, late=0, after=None):
        found = [
            [w for i, w in enumerate(windows) if i * stride + first <= t < i * stride + length + late]
            for t in range(n_frames)
        ]
        return [pool(some or ([windows[-1]] if after is None else [after])) for some in found]

    mistakes = {
        "frames after the last window's end get 0; they take the last window": lambda *args: covered(*args, after=0.0),
        "frames after the last window's end get no number; they take the last window": lambda *args: covered(
            *args, after=math.nan
        ),
        "windows are summed; take their mean": lambda *args: covered(*args, pool=np.sum),
        "the highest window is taken; take the mean": lambda *args: covered(*args, pool=np.max),
        "the latest window is taken; take the mean of all that cover the frame": lambda *args: covered(
            *args, pool=lambda some: some[-1]
        ),
        "the earliest window is taken; take the mean of all that cover the frame": lambda *args: covered(
            *args, pool=lambda some: some[0]
        ),
        "a window counts one frame too long": lambda *args: covered(*args, late=1),
        "a window's last frame is left out": lambda *args: covered(*args, late=-1),
    }
    cases = []
    for n_frames in (12, 30, 48, 60):
        windows = [float((7 * w) % 5 - 2) for w in range(window_count(n_frames))]
        cases.append(((windows, n_frames, WINDOW, BLOCK_LEN), to_frames(windows, n_frames)))
    judge(answer, "scores of frames", cases, mistakes)


def causal_scores(answer: Callable) -> None:
    """`answer(windows, n_frames, length, stride, before)` against the library."""

    def latest(windows, n_frames, length, stride, before, late=0):
        ended = [(t - length + 1 - late) // stride for t in range(n_frames)]
        return [windows[min(n, len(windows) - 1)] if n >= 0 else before for n in ended]

    mistakes = {
        "the future is used: a window counts before it has ended": lambda windows, n, length, stride, before: latest(
            windows, n, 1, stride, before
        ),
        "the future is used: means over the windows that cover a frame": lambda w, n, length, stride, before: to_frames(
            w, n
        ),
        "a window counts one frame too late": lambda *args: latest(*args, late=1),
        "a window counts one frame too early": lambda *args: latest(*args, late=-1),
        "frames before the first window has ended take `before`, not the first window": lambda *args: latest(
            *args[:4], args[0][0]
        ),
        "frames before the first window has ended take `before`, not 0": lambda *args: latest(*args[:4], 0.0),
        "this is the mean of all windows that have ended; take the latest": lambda windows, n, length, stride, before: (
            [np.mean(windows[: max(0, (t - length + 1) // stride + 1)] or [before]) for t in range(n)]
        ),
    }
    windows = [1.0, 5.0, 2.0, 4.0, 3.0]
    right = to_frames(windows, 53, causal=True, before=0.5)
    judge(answer, "causal scores", [((windows, 53, WINDOW, BLOCK_LEN, 0.5), right)], mistakes)


# --- 22: evaluation --------------------------------------------------------------------------------------------------


def auc_by_pairs(answer: Callable) -> None:
    """`answer(scores, labels)` against scikit-learn, with ties and scores below 0."""
    draw = np.random.default_rng(0)
    scores, labels = draw.integers(-3, 3, 50) / 5, draw.integers(0, 2, 50)

    def pairs(scores, labels, ties=0.5):
        high, low = scores[labels == 1][:, None], scores[labels == 0]
        return (high > low) + ties * (high == low)

    mistakes = {
        "ties count nothing; they count one half": lambda *args: pairs(*args, ties=0).mean(),
        "ties count whole; they count one half": lambda *args: pairs(*args, ties=1).mean(),
        "turned round: pairs count where the normal frame scores higher": lambda *args: 1 - pairs(*args).mean(),
        "this is a number of pairs, not their share": lambda *args: pairs(*args).sum(),
        "divided by all pairs of frames, not by those of an abnormal and a normal one": lambda scores, labels: (
            pairs(scores, labels).sum() / len(labels) ** 2
        ),
        "this is the share of frames on the right side of one half": lambda scores, labels: (
            (scores > 0.5) == labels
        ).mean(),
    }
    judge(answer, "ROC-AUC with ties", [((scores, labels), roc_auc_score(labels, scores))], mistakes)


def normal_threshold(answer: Callable) -> None:
    """`answer(normal, share)` against the protocol's threshold, and its promise."""
    normal = [0.3, 0.1, 0.9, 0.5, 0.5, 0.2, 0.7, -0.4, 0.6, 0.8]

    def place(normal, share, rounded=math.ceil, later=0):
        number = rounded((1 - share) * len(normal)) - 1 + later
        return np.nextafter(sorted(normal)[min(max(number, 0), len(normal) - 1)], np.inf)

    mistakes = {
        "the threshold is a normal frame's own score, which is an alarm; it lies just above": lambda normal, share: (
            np.nextafter(place(normal, share), -np.inf)
        ),
        "a quantile between two scores; the lowest threshold lies just above one": lambda normal, share: np.quantile(
            normal, 1 - share
        ),
        "rounded down: too many alarms; the place is rounded up": lambda *args: place(*args, rounded=math.floor),
        "one place too high": lambda *args: place(*args, later=1),
        "one place too low: too many alarms": lambda *args: place(*args, later=-1),
        "the share is that of silent frames; it should be that of alarms": lambda normal, share: place(
            normal, 1 - share
        ),
        "well above the score; just above it, np.nextafter, is the lowest": lambda normal, share: (
            place(normal, share) + 1e-6
        ),
    }

    def see(function: Callable) -> Callable:
        def look(normal: list[float], share: float) -> list[float]:
            threshold = float(like(function(normal, share), 0.0, "threshold"))
            return [threshold, sum(score >= threshold for score in normal)]

        return look

    cases = []
    for some, share in [(normal, share) for share in (0.0, 0.1, 0.25, 0.5)] + [([score - 1 for score in normal], 0.2)]:
        right = normal_thresholds({"n": some}, share)[0]
        cases.append(((some, share), [right, sum(score >= right for score in some)]))
    judge(answer, "threshold and its alarms", cases, mistakes, see, 1e-12)


BLIND = 0.8  # micro AUC to beat


def blind_score(answer: Callable) -> None:
    """`answer(n_frames, abnormal)` must reach a micro AUC above 0.8 on an annotation it cannot see."""
    draw, labels = np.random.default_rng(0), []
    for video in range(40):
        labels.append(label := np.zeros(draw.integers(80, 400), int))
        if video % 2:
            first = draw.integers(len(label) // 5, len(label) // 2)
            label[first : first + len(label) // 4] = 1

    def see(function: Callable) -> Callable:
        def reached() -> float:
            scores = [
                like(function(len(label), bool(video % 2)), label, "scores of one video")
                for video, label in enumerate(labels)
            ]
            return min(BLIND, roc_auc_score(np.concatenate(labels), np.concatenate(scores)))

        return reached

    mistakes = {
        "the label alone, which says nothing of where in the video": lambda n, abnormal: [float(abnormal)] * n,
        "one number for all": lambda n, abnormal: [0.5] * n,
        "a ramp that rises to the end": lambda n, abnormal: [abnormal * t / n for t in range(n)],
        "highest at the ends, where events seldom are": lambda n, abnormal: [
            abnormal * (0.1 + abs(t / n - 0.5)) for t in range(n)
        ],
    }
    judge(answer, f"micro AUC above {BLIND} without any picture", [((), BLIND)], mistakes, see)


# --- 23: streams -----------------------------------------------------------------------------------------------------


def strongest(answer: Callable) -> None:
    """`answer(scores, picture, pictures, top)` against the library, with an empty picture and scores below 0."""
    scores, picture = np.array([0.1, 0.9, 0.5, -0.2, -0.7, 0.3]), np.array([0, 0, 0, 0, 2, 3])

    def pooled(scores, picture, pictures, pool, empty=math.nan):
        some = [np.sort(scores[picture == number])[::-1] for number in range(pictures)]
        return [float(pool(one)) if len(one) else empty for one in some]

    mistakes = {
        "the mean of all scores, not of the largest": lambda s, p, n, top: pooled(s, p, n, np.mean),
        "the largest score alone; take the mean of `top`": lambda s, p, n, top: pooled(s, p, n, np.max),
        "the smallest scores; take the largest": lambda s, p, n, top: pooled(s, p, n, lambda one: one[-top:].mean()),
        "the sum of the largest scores; take their mean": lambda s, p, n, top: pooled(
            s, p, n, lambda one: one[:top].sum()
        ),
        "divided by `top` also where a picture has fewer scores": lambda s, p, n, top: pooled(
            s, p, n, lambda one: one[:top].sum() / top
        ),
        "a picture without scores is 0; it is not a number": lambda s, p, n, top: pooled(
            s, p, n, lambda one: one[:top].mean(), 0.0
        ),
        "the first scores of a picture; take the largest": lambda s, p, n, top: [
            s[p == number][:top].mean() if (p == number).any() else math.nan for number in range(n)
        ],
    }
    at = np.stack([np.zeros_like(picture), picture, picture, picture], 1)
    cases = [((scores, picture, 4, top), regions.strongest(scores, at, 1, 4, top)[0]) for top in (3, 2)]
    judge(answer, "mean of the largest scores", cases, mistakes)


def best_clause(answer: Callable) -> None:
    """`answer(vector, clauses, vectors)` must name the clause that fits best, for regions like one, unlike another."""
    vectors = torch.linalg.qr(torch.randn(8, 4, generator=torch.Generator().manual_seed(0))).Q.T
    clauses = ["a man walks by", "a car passes", "someone is running", "two people are fighting"]
    mistakes = {
        "this is the clause that fits least; take the largest product": lambda vector, clauses, vectors: clauses[
            int((vectors @ vector).argmin())
        ],
        "the sign is lost: a clause of the opposite meaning fits least": lambda vector, clauses, vectors: clauses[
            int((vectors @ vector).abs().argmax())
        ],
        "this is the clause's number; give the clause": lambda vector, clauses, vectors: int(
            (vectors @ vector).argmax()
        ),
    }
    regions_like = [
        F.normalize(vectors[i] - unlike * vectors[i - 1], dim=-1) for i, unlike in enumerate((0, 2, 0.5, 2))
    ]
    cases = [((region, clauses, vectors), clause) for region, clause in zip(regions_like, clauses)]
    judge(answer, "clause", cases, mistakes)
