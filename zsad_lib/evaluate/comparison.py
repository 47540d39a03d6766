"""Differences of two methods on the same draws, their p-values over a whole grid (Holm), and the rows of an ablation
table.

Notebook: 32_ablate_released
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from zsad_lib.errors import ZsadError
from zsad_lib.evaluate.evaluation import COLUMNS, EXTRA, tidy
from zsad_lib.evaluate.protocol import Estimate
from zsad_lib.evaluate.weighted_auc import interval


def paired_difference(first: Sequence[Estimate], second: Sequence[Estimate]) -> pd.DataFrame:
    """First minus second method for every metric, group and family that both have, on the same bootstrap draws.

    Args:
        first, second: from `zsad_lib.evaluate.protocol.estimates` on the same videos with the same draws and seed.

    Returns:
        columns metric, group, family, difference, low, high (95 %, percentiles), p (two-sided, from the draws'
        standard deviation under a normal law: a share of R draws could not fall below 1 / R, and Holm's correction
        would drown it) and p_holm (`holm` over all rows).
    """
    others = {(e.metric, e.group, e.family): e for e in second}
    rows = []
    for e in first:
        key = (e.metric, e.group, e.family)
        if key not in others:
            continue
        other = others[key]
        if (e.n_videos, e.n_frames, len(e.draws)) != (other.n_videos, other.n_frames, len(other.draws)):
            raise ZsadError(f"{' '.join(key)}: the two methods were not evaluated on the same videos and draws")
        gap = e.draws - other.draws
        drawn = gap[1:][np.isfinite(gap[1:])]
        spread = float(drawn.std()) if len(drawn) else 0.0  # standard deviation
        p = math.erfc(abs(gap[0]) / spread / math.sqrt(2)) if spread > 0 else float(gap[0] == 0)
        rows.append((*key, gap[0], *interval(drawn), p))
    table = pd.DataFrame(rows, columns=["metric", "group", "family", "difference", "low", "high", "p"])
    return table.assign(p_holm=holm(table["p"]))


def tabulate(rows: Sequence[Any], estimates: Mapping[str, Sequence[Estimate]]) -> pd.DataFrame:
    """The tidy table of an ablation grid: every row's estimates, and their differences from its control on equal draws.

    Args:
        rows: with `key`, `name`, `score`, `objective` and `control` (key of another row, or ""), as
            `zsad_lib.ablations.grids.Row`.
        estimates: key of a row -> its estimates.

    Returns:
        `COLUMNS` and `EXTRA`; p is Holm-corrected over the grid, for each metric.
    """
    parts = []
    for row in rows:
        part = tidy(estimates[row.key], row.score, row.name).assign(objective=row.objective, score=row.score)
        part["control"] = row.control.split("/")[0]
        if row.control:
            gaps = paired_difference(estimates[row.key], estimates[row.control])
            gaps = gaps.rename(columns={"difference": "delta", "low": "delta_low", "high": "delta_high"})
            keys = ["metric", "group", "family"]
            part = part.merge(gaps[[*keys, "delta", "delta_low", "delta_high", "p"]], "left", keys)
        parts.append(part)
    table = pd.concat(parts, ignore_index=True).reindex(columns=[*COLUMNS, *EXTRA])
    compared = table.p.notna()
    table.loc[compared, "p"] = table[compared].groupby("metric").p.transform(holm)
    return table


def holm(p: pd.Series) -> pd.Series:
    """Holm's correction for several comparisons: the k-th smallest of n times n - k + 1, never falling, at most 1.

    >>> holm(pd.Series([0.01, 0.04, 0.03])).tolist()
    [0.03, 0.06, 0.06]
    """
    order = p.argsort(kind="stable")
    corrected = (p.iloc[order] * np.arange(len(p), 0, -1)).cummax().clip(upper=1.0)
    return corrected.reindex(p.index)
