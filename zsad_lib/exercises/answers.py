"""What checks end in: an answer is right, or one line says what is wrong with it; a prediction is noted.

A check hands `judge` cases (arguments and what is right) and a table: words for a usual mistake -> a function that
makes it. Faults are told in one order: nothing returned, an error, type, shape, "not a number", and then the mistake
whose results are the answer's.
"""

import copy
import os
import sysconfig
import textwrap
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zsad_lib.errors import ZsadError
from zsad_lib.exercises import solutions

Case = tuple[tuple, Any]  # arguments, and the right result
OTHERS = (str(Path(__file__).parents[1]) + os.sep, *map(sysconfig.get_path, ("stdlib", "purelib")))  # not the learner's


class WrongAnswer(ZsadError, AssertionError):
    """What is wrong with an answer, in one line."""


def judge(
    answer: Callable,
    what: str,
    cases: Sequence[Case],
    mistakes: Mapping[str, Callable],
    see: Callable[[Callable], Callable] = lambda function: function,
    tolerance: float = 1e-6,
) -> None:
    """Prints that an answer is right, or raises what is wrong with it.

    Args:
        answer: the learner's function.
        what: what it computes.
        cases: arguments, each answer gets its own copy of them, and the right result.
        mistakes: words -> the function with that mistake.
        see: what of a function is compared: the function itself, or another one that uses it.
        tolerance: absolute and relative.

    Raises:
        WrongAnswer: the answer is wrong; the line names the mistake where its results are those of one.

    >>> judge(sum, "the sum", [(([1, 2],), 3)], {})
    the sum: right
    >>> judge(max, "the sum", [(([1, 2],), 3)], {"this is the largest number": max})
    Traceback (most recent call last):
    ...
    zsad_lib.exercises.answers.WrongAnswer: the sum, asked for ([1, 2]): this is the largest number; got 2, wanted 3
    """
    if not callable(answer):
        raise WrongAnswer(f"{what}: give the function itself, without brackets, not its result ({_kind(answer)})")
    results = [see(_told(answer, what))(*args) for args, _ in cases]
    for fault in FAULTS:
        for number, (args, right) in enumerate(cases):
            if told := fault(results[number], right, tolerance):
                named = _named(mistakes, see, cases, results, number, tolerance)
                raise WrongAnswer(f"{what}{_asked(args)}: {named}{told}")
    print(f"{what}: right{_whose(answer)}")


def close(yours: Any, expected: Any, what: str, tolerance: float = 1e-6) -> None:
    """Passes where two numbers, texts or arrays agree within `tolerance` (absolute and relative).

    >>> close(0.5, 0.5, "the mean")
    the mean: right
    """
    judge(lambda: yours, what, [((), expected)], {}, tolerance=tolerance)


def like(yours: Any, example: Any, what: str) -> np.ndarray:
    """What an answer returned, as an array of the example's type and shape, for a check that looks further into it.

    Raises:
        WrongAnswer: it has another type or shape, or is not finite.
    """
    for fault in FAULTS[:-1]:
        if told := fault(yours, example, 0.0):
            raise WrongAnswer(f"{what}: {told}")
    return _array(yours)


# --- predictions -----------------------------------------------------------------------------------------------------


def ordering(answer: Sequence[str], names: Iterable[str]) -> None:
    """A prediction, best first: it may be wrong, but must name everything once."""
    _names(answer, names := list(names))
    if missing := [name for name in names if name not in answer]:
        raise WrongAnswer(f"prediction: {', '.join(missing)} missing; name each of {', '.join(names)} once")
    _noted(answer)


def families(answer: Mapping[str, str], names: Iterable[str]) -> None:
    """A prediction, component -> family: it may be wrong, but must name a family for each component."""
    if not isinstance(answer, Mapping):
        raise WrongAnswer(f"prediction: give a dict, component to family, not {_kind(answer)}")
    _names(list(answer), names := list(names))
    if missing := [name for name in names if name not in answer]:
        raise WrongAnswer(f"prediction: name a family for {', '.join(missing)} too")
    valid = ("semantic", "temporal", "contextual")
    if wrong := [family for family in answer.values() if family not in valid]:
        raise WrongAnswer(f"prediction: {wrong[0]!r} is no family; families are {', '.join(valid)}")
    _noted(answer)


def some_of(answer: Sequence[str], names: Iterable[str], count: int) -> None:
    """A prediction: it may be wrong, but must name `count` different ones of `names`."""
    _names(answer, names)
    if len(answer) != count:
        raise WrongAnswer(f"prediction: {len(answer)} rows named, wanted {count}")
    _noted(answer)


def _names(answer: Any, names: Iterable[str]) -> None:
    names = list(names)
    if not isinstance(answer, list | tuple) or not all(isinstance(name, str) for name in answer):
        raise WrongAnswer(f"prediction: give a list of names, not {_kind(answer)}")
    for name in answer:
        if name not in names:
            near = get_close_matches(name, names, 1) or [f"one of {', '.join(names)}"]
            raise WrongAnswer(f"prediction: there is no {name!r}; did you mean {near[0]}?")
        if answer.count(name) > 1:
            raise WrongAnswer(f"prediction: {name} is named {answer.count(name)} times")


def _noted(answer: Any) -> None:
    print(f"prediction: noted{_whose(answer)}")


def _whose(answer: Any) -> str:
    """A word to those who run a notebook without having written anything."""
    kit = any(answer is value for value in vars(solutions).values())
    return "; this is the kit's solution, replace it by your own" if kit else ""


# --- running an answer -----------------------------------------------------------------------------------------------


def _told(answer: Callable, what: str) -> Callable:
    """The answer, telling in one line that it returned nothing or raised an error."""

    def call(*args: Any) -> Any:
        try:
            result = answer(*copy.deepcopy(args))
        except Exception as error:
            line = f"your function raised {type(error).__name__}: {textwrap.shorten(str(error), 200)}{_where(error)}"
            raise WrongAnswer(f"{what}{_asked(args)}: {line}") from None
        if result is None:
            raise WrongAnswer(f"{what}{_asked(args)}: your function returned nothing; is there a return?")
        return result

    return call


def _where(error: Exception) -> str:
    """The innermost line of the learner's own code, neither the kit's nor a library's."""
    lines = [part for part in traceback.extract_tb(error.__traceback__) if not part.filename.startswith(OTHERS)]
    return f" (in line {lines[-1].lineno}: {lines[-1].line})" if lines else ""


def _asked(args: tuple) -> str:
    """The arguments, where they are short enough to read."""
    text = ", ".join(map(repr, args))
    return f", asked for ({text})" if args and len(text) <= 70 and "\n" not in text else ""


def _named(
    mistakes: Mapping[str, Callable],
    see: Callable[[Callable], Callable],
    cases: Sequence[Case],
    results: Sequence[Any],
    number: int,
    tolerance: float,
) -> str:
    """Words of the mistake that gives the answer's results, in the faulty case and in most others; "" for none."""

    def same(wrong: Callable, one: int) -> bool:
        theirs = see(wrong)(*copy.deepcopy(cases[one][0]))
        return not any(fault(results[one], theirs, tolerance) for fault in FAULTS)

    with np.errstate(all="ignore"):
        likely = {name: wrong for name, wrong in mistakes.items() if same(wrong, number)}
        agree = {name: sum(same(wrong, one) for one in range(len(cases))) for name, wrong in likely.items()}
    return f"{max(agree, key=agree.get)}; " if agree else ""


# --- faults: each compares a result with the right one, and gives words, or "" where it finds nothing -----------------


def _wrong_type(yours: Any, right: Any, _: float) -> str:
    array, wanted = _array(yours), _array(right)
    if not array.size or array.dtype.kind == wanted.dtype.kind:
        return ""
    return f"your function returned {_kind(yours)}, wanted {'text' if wanted.dtype.kind == 'U' else 'numbers'}"


def _wrong_shape(yours: Any, right: Any, _: float) -> str:
    array, wanted = _array(yours), _array(right)
    got, shape = (f"shape {some.shape}" if some.ndim else "a single value" for some in (array, wanted))
    return "" if array.shape == wanted.shape else f"got {got}, wanted {shape}"


def _not_a_number(yours: Any, right: Any, _: float) -> str:
    array, wanted = _array(yours), _array(right)
    return _first(~np.isfinite(array) & np.isfinite(wanted), array, wanted) if wanted.dtype.kind == "f" else ""


def _differs(yours: Any, right: Any, tolerance: float) -> str:
    array, wanted = _array(yours), _array(right)
    if wanted.dtype.kind == "U":
        return _first(array != wanted, array, wanted)
    if wanted.dtype.kind == "O":  # of a mistake: no number is wanted anywhere
        return "" if repr(array) == repr(wanted) else "another thing"
    return _first(~np.isclose(array, wanted, tolerance, tolerance, equal_nan=True), array, wanted)


FAULTS = (_wrong_type, _wrong_shape, _not_a_number, _differs)  # in the order in which they are told


def _first(faulty: np.ndarray, array: np.ndarray, wanted: np.ndarray) -> str:
    """Where the first faulty value is, what it is and what it should be."""
    for place in zip(*np.nonzero(np.atleast_1d(faulty))):
        got, right = (np.atleast_1d(some)[place] for some in (array, wanted))
        digits = next((n for n in (4, 8) if _word(got, n) != _word(right, n)), 17)
        at = f" at {list(map(int, place))}" if array.ndim else ""
        return f"got {_word(got, digits)}{at}, wanted {_word(right, digits)}"
    return ""


def _word(value: Any, digits: int) -> str:
    if isinstance(value, str):
        return repr(str(value))
    return "not a number" if np.isnan(value) else f"{value:.{digits}g}".replace("inf", "infinity")


def _kind(value: Any) -> str:
    """What something is, in words: "dict", "list of str"."""
    parts = sorted({type(part).__name__ for part in value}) if isinstance(value, list | tuple | set) else ()
    return type(value).__name__ + (f" of {' and '.join(parts)}" if parts else "")


def _array(value: Any, around: tuple = ()) -> np.ndarray:
    """Numbers (as floats) or texts as an array, also of tensors and lists of them; dtype object for anything else."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if any(value is one for one in around):  # a list that holds itself
        return np.array(None, object)
    if isinstance(value, list | tuple):
        around = *around, value
        value = [part if isinstance(part, int | float | str) else _array(part, around) for part in value]
    try:
        array = np.asarray(value)
    except ValueError:  # rows of different lengths
        return np.fromiter(value, object)
    if array.dtype.kind in "biuf":
        return array.astype(float)
    return array.astype(str) if all(isinstance(part, str) for part in array.flat) else array.astype(object)
