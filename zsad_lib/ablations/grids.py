"""What the ablations compare: every row of every grid, declared and not computed.

A row is a trained variant, the score terms that it adds up, and the row of the same grid that it is compared with.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from zsad_lib.ablations.trial import BASE
from zsad_lib.config import nearest
from zsad_lib.errors import ZsadError
from zsad_lib.methods.context_aware.train import Variant
from zsad_lib.models.gates import GATES
from zsad_lib.released_defects import AS_RELEASED, DEFECTS

SEMANTIC, FULL = ("s_sem",), ("s_sem", "s_pred")
REPORTED = {
    "B1": 0.462,
    "B2": 0.518,
    "B3": 0.579,
    "B4": 0.704,
    "B5": 0.845,
}  # the paper's Table 3, ROC-AUC on UCF-Crime
PREDICTIVE = {"s_pred", "s_all", "s_peak"}


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of an ablation table."""

    name: str  # column `variant`; in the gate grid the gate's name
    says: str  # what it is, in a few words
    variant: Variant = BASE
    terms: tuple[str, ...] = FULL  # added up in deviations of held-out normal windows
    weights: tuple[float, ...] = ()  # of the terms; (): equal
    fusion: str = "z"  # or `mixture`: mean and deviation of every term depend on the scene
    control: str = ""  # key of the row that it is compared with; "": none
    released: tuple[str, ...] = ()  # defects of the released code
    held_out: bool = False  # stand-ins that never saw a fight, a fall or a fire

    @property
    def score(self) -> str:
        """Column `score`: `full` where prediction enters, else `semantic`."""
        return "full" if PREDICTIVE & set(self.terms) else "semantic"

    @property
    def objective(self) -> str:
        """Column `objective`."""
        return self.variant.objective

    @property
    def key(self) -> str:
        """Unique within a grid: name, objective and score."""
        return f"{self.name}/{self.objective}/{self.score}"


def _with(**changes) -> Variant:
    return dataclasses.replace(BASE, **changes)


def _both(name: str, says: str, variant: Variant, control: str, terms=SEMANTIC, **more) -> Iterator[Row]:
    """A row without and with prediction; `control` is name/objective."""
    for score, added in (("semantic", ()), ("full", ("s_pred",))):
        yield Row(name, says, variant, (*terms, *added), control=control and f"{control}/{score}", **more)


def gate(held_out: bool = False) -> list[Row]:
    """Gates x objectives, controls of the best one, and baselines without a gate."""
    rows = [*_both("none", "no context", _with(gate="none", objective="plain"), "", held_out=held_out)]
    for kind in GATES:
        for objective in ("plain", "swap", "reject") if kind != "none" else ():
            variant = _with(gate=kind, objective=objective)
            rows += _both(kind, GATES[kind].__doc__.split(". ")[0], variant, "none/plain", held_out=held_out)
    for source, says in (
        ("shuffled", "relevance, other clips' scenes"),
        ("zero", "relevance, no scene"),
        ("global", "relevance, video feature as context"),
    ):
        rows += _both(source, says, _with(context=source), "relevance/swap", held_out=held_out)
    none = _with(gate="none", objective="plain")
    rows += _both(
        "mixture",
        "no gate; score terms modulated by the scene",
        none,
        "none/plain",
        fusion="mixture",
        held_out=held_out,
    )
    rows += _both(
        "retrieval", "no gate; captions of look-alike scenes", none, "none/plain", ("s_retrieval",), held_out=held_out
    )
    rows += _both("neighbours", "no text; nearest training windows", none, "none/plain", ("s_mem",), held_out=held_out)
    rows += _both("memory", "relevance and neighbours", BASE, "neighbours/plain", ("s_sem", "s_mem"), held_out=held_out)
    return rows


def held_out() -> list[Row]:
    """The gate grid once more, on stand-ins that never saw a fight, a fall or a fire."""
    return gate(held_out=True)


def components() -> list[Row]:
    """Each stream, each score term and each training choice, on or off."""
    base = Row("full", "relevance gate, swaps, both terms")
    against = dict(control=base.key)
    joint = dataclasses.replace(BASE, live=Variant().live)
    rows = [
        base,
        Row("no_text", "prediction alone", terms=("s_pred",), **against),
        Row("no_prediction", "text alone", terms=SEMANTIC, **against),
        Row("no_gate", "captions as they are", _with(gate="none", objective="plain"), **against),
        Row("no_swaps", "relevance gate, plain InfoNCE", _with(objective="plain"), **against),
        Row("no_anchor", "v = P([timesformer ; dpc]), trained from scratch", _with(anchored=False), **against),
        Row("no_dpc_in_v", "P reads TimeSformer alone", _with(streams=("timesformer",)), **against),
        Row("no_timesformer", "P reads DPC alone, no anchor", _with(streams=("dpc",), anchored=False), **against),
        Row("memory", "and neighbours", terms=("s_sem", "s_pred", "s_mem"), **against),
        Row("memory_alone", "neighbours alone", terms=("s_mem",), **against),
        Row("memory_no_text", "neighbours and prediction", terms=("s_mem", "s_pred"), **against),
        Row("mixture", "score terms modulated by the scene", fusion="mixture", **against),
        Row("all_cells", "s_pred over all cells and steps", terms=("s_sem", "s_all"), **against),
        Row("worst_cell", "s_pred in the worst place", terms=("s_sem", "s_peak"), **against),
    ]
    for weight in (0.1, 0.25, 0.75, 0.9):
        says = f"weight {weight:g} on prediction, {1 - weight:g} on text"
        rows.append(Row(f"weight_{weight:g}", says, weights=(1 - weight, weight), **against))
    for alpha in (0.2, 0.5, 0.8, 1.0):
        tuned = dataclasses.replace(joint, alpha=alpha)
        rows.append(Row(f"joint_alpha_{alpha:g}", f"predictive stream tuned, alpha {alpha:g}", tuned, **against))
    for anchored in (True, False):
        for blocks in (0, 1, 2, 4):
            if (anchored, blocks) == (True, BASE.blocks):
                continue
            name = f"blocks_{blocks}" + ("" if anchored else "_no_anchor")
            if (anchored, blocks) != (False, BASE.blocks):  # that one is `no_anchor`
                variant = _with(blocks=blocks, anchored=anchored)
                rows.append(Row(name, f"residual projection, {blocks} blocks", variant, **against))
        name = "projection_mlp" + ("" if anchored else "_no_anchor")
        rows.append(Row(name, "MLP projection", _with(projection="mlp", anchored=anchored), **against))
    return rows


def released() -> list[Row]:
    """The paper's rows B1 to B5, and the defects of the released code, each alone and all together.

    B2 and B3 differ in the weight of the alignment loss (0.8 and 0.2), as published.
    """
    plain = dict(objective="plain", anchored=False, cells="all", live=Variant().live)
    b1 = Variant(**{**plain, "live": 0}, gate="none", projection="mlp", streams=("timesformer",))
    b2 = Variant(**plain, gate="none", projection="mlp", alpha=0.8)
    b3 = dataclasses.replace(b2, alpha=0.2)
    b4 = dataclasses.replace(b3, projection="residual")
    b5 = dataclasses.replace(b4, gate="ln")
    terms = ("s_sem", "s_all")
    rows = [
        Row("B1", "CLIP and TimeSformer", b1, SEMANTIC),
        Row("B2", "and the DPC loss, alpha 0.8", b2, terms, control="B1/plain/semantic"),
        Row("B3", "alpha 0.2", b3, terms, control="B2/plain/full"),
        Row("B4", "residual projection", b4, terms, control="B3/plain/full"),
        Row("B5", "LN gate: the paper's method", b5, terms, control="B4/plain/full"),
    ]
    for name in DEFECTS:
        rows.append(Row(name, DEFECTS[name][1], b5, terms, control=rows[4].key, released=(name,)))
    rows.append(Row("as_released", "all of these together", b5, terms, control=rows[4].key, released=AS_RELEASED))
    return rows


def prompts() -> list[Row]:
    """What stands in the bank of texts, and what the gate sees."""
    base = Row("captions", "training captions", BASE, SEMANTIC)
    more = dict(control=base.key)
    rows = [
        base,
        Row("class", "one prompt per ordinary action", terms=("s_class",), **more),
        Row("class_places", "one per ordinary action and scene, which it names", terms=("s_class_places",), **more),
        Row("abnormal", "captions against abnormal prompts", terms=("s_abnormal",), **more),
        Row("abnormal_places", "the same, naming the scenes", terms=("s_abnormal_places",), **more),
        Row(
            "captions_abnormal",
            "captions, and abnormal prompts as a further term",
            terms=("s_sem", "s_abnormal"),
            **more,
        ),
        Row("no_text", "nothing: neighbours instead", terms=("s_mem",), **more),
    ]
    for source in ("shuffled", "zero", "global"):
        rows.append(Row(f"context_{source}", f"captions; context: {source}", _with(context=source), SEMANTIC, **more))
    for width in (4, 8, 128):
        variant = _with(context_dim=width)
        rows.append(Row(f"context_dim_{width}", f"captions; context of {width} numbers", variant, SEMANTIC, **more))
    return rows


GRIDS = {"gate": gate, "components": components, "released": released, "prompts": prompts, "held_out": held_out}
WEAKLY = (
    "anomaly_clip"  # the grid of the weakly supervised method, whose rows are in `zsad_lib.ablations.anomaly_clip_grid`
)


def grid(name: str) -> list[Row]:
    """The rows of a grid.

    Raises:
        ZsadError: no such grid; names the nearest one.
    """
    if name not in GRIDS:
        raise ZsadError(f"grid {name!r} is unknown; did you mean {nearest(name, (*GRIDS, WEAKLY, 'all'))!r}?")
    return GRIDS[name]()
