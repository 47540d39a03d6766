"""What the ablations compare: every row of every grid, declared and not computed.

A `Row` of the context-aware method is a trained variant, the score terms that it adds up, and the row of the same grid
that it is compared with. A `RecipeRow` of AnomalyCLIP is a change of the profile's recipe.

Notebook: 31_ablate_components
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from zsad_lib.ablations.stream_arrays import LOCAL, PASSES
from zsad_lib.ablations.trial import BASE
from zsad_lib.config import nearest
from zsad_lib.errors import ZsadError
from zsad_lib.files.weights import SHIPPED
from zsad_lib.methods.context_aware.train import Variant
from zsad_lib.models.gates import GATES
from zsad_lib.released_defects import AS_RELEASED, DEFECTS

SEMANTIC, FULL = ("s_sem",), ("s_sem", "s_pred")
# The paper's Table 3: ROC-AUC on UCF-Crime.
REPORTED = {"B1": 0.462, "B2": 0.518, "B3": 0.579, "B4": 0.704, "B5": 0.845}
FUSED = (*FULL, "s_mem", "s_mem_global")
PREDICTIVE, MEMORIES = {"s_pred", "s_all", "s_peak"}, {"s_mem", "s_mem_global"}
DEMO_STEPS = 200  # of a pass, in the profile demo


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of an ablation table of the context-aware method."""

    name: str  # column `variant`; in the gate grid the gate's name
    says: str  # what it is, in a few words
    variant: Variant = BASE
    terms: tuple[str, ...] = FULL  # added up in standard deviations of held-out normal windows
    weights: tuple[float, ...] = ()  # of the terms; (): equal
    fusion: str = "z"  # or `mixture`: mean and standard deviation of every term depend on the scene
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


@dataclasses.dataclass(frozen=True)
class StreamRow(Row):
    """One row of the ablation table on streams: terms are those of frames, and a row with a memory has a `score` of its
    own."""

    variant: Variant = LOCAL
    passes: int = PASSES  # factor of the profile's steps that the predictive stream is tuned for; 0: as pretrained
    former: bool = False  # the kit's former stand-ins, which have no regions

    @property
    def score(self) -> str:
        """Column `score`: `fused` where a memory enters, `full` where prediction alone does, else `semantic`."""
        return "fused" if MEMORIES & set(self.terms) else super().score

    @property
    def tuned(self) -> bool:
        """Whether a tuned predictive stream enters."""
        return "s_pred" in self.terms and self.passes > 0


@dataclasses.dataclass(frozen=True)
class RecipeRow:
    """One row of AnomalyCLIP's ablation table."""

    name: str  # column `variant`
    says: str  # what it is, in a few words
    change: dict[str, Any] = dataclasses.field(default_factory=dict)  # of `anomaly_clip_recipes.Recipe`
    control: str = "anomaly_clip"  # all rows are compared with the whole method
    score: str = "weak"
    objective: str = "plain"

    @property
    def key(self) -> str:
        """Unique within the grid."""
        return self.name


AnyRow = Row | RecipeRow


def _with(**changes: Any) -> Variant:
    return dataclasses.replace(BASE, **changes)


def _both(
    name: str, says: str, variant: Variant, control: str, terms: Sequence[str] = SEMANTIC, fusion: str = "z"
) -> list[Row]:
    """A row without and one with prediction; `control` is name/objective."""
    return [
        Row(name, says, variant, (*terms, *prediction), fusion=fusion, control=control and f"{control}/{score}")
        for score, prediction in (("semantic", ()), ("full", ("s_pred",)))
    ]


def gate(held_out: bool = False) -> list[Row]:
    """Gates x objectives, controls of the best one, and baselines without a gate."""
    none = _with(gate="none", objective="plain")
    rows = _both("none", "no context", none, "")
    for kind in GATES:
        for objective in ("plain", "swap", "reject") if kind != "none" else ():
            variant = _with(gate=kind, objective=objective)
            rows += _both(kind, GATES[kind].__doc__.split(". ")[0], variant, "none/plain")
    sources = {"shuffled": "other clips' scenes", "zero": "no scene", "global": "video feature as context"}
    for source, says in sources.items():
        rows += _both(source, f"relevance, {says}", _with(context=source), "relevance/swap")
    rows += _both("mixture", "no gate; score terms modulated by the scene", none, "none/plain", fusion="mixture")
    rows += _both("retrieval", "no gate; captions of look-alike scenes", none, "none/plain", ("s_retrieval",))
    rows += _both("neighbours", "no text; nearest training windows", none, "none/plain", ("s_mem",))
    rows += _both("memory", "relevance and neighbours", BASE, "neighbours/plain", ("s_sem", "s_mem"))
    return [dataclasses.replace(row, held_out=held_out) for row in rows]


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
        suffix = "" if anchored else "_no_anchor"
        for blocks in (0, 1, 2, 4):
            if blocks != BASE.blocks:  # these two are `full` and `no_anchor`
                variant, says = _with(blocks=blocks, anchored=anchored), f"residual projection, {blocks} blocks"
                rows.append(Row(f"blocks_{blocks}{suffix}", says, variant, **against))
        variant = _with(projection="mlp", anchored=anchored)
        rows.append(Row(f"projection_mlp{suffix}", "MLP projection", variant, **against))
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
    against = dict(control=rows[-1].key)
    rows += [Row(name, DEFECTS[name][1], b5, terms, released=(name,), **against) for name in DEFECTS]
    return [*rows, Row("as_released", "all of these together", b5, terms, released=AS_RELEASED, **against)]


def prompts() -> list[Row]:
    """What stands in the bank of texts, and what the gate sees."""
    base, both = Row("captions", "training captions", BASE, SEMANTIC), ("s_sem", "s_abnormal")
    against = dict(control=base.key)
    rows = [
        base,
        Row("class", "one prompt per ordinary action", terms=("s_class",), **against),
        Row("class_places", "one per ordinary action and scene, which it names", terms=("s_class_places",), **against),
        Row("abnormal", "captions against abnormal prompts", terms=("s_abnormal",), **against),
        Row("abnormal_places", "the same, naming the scenes", terms=("s_abnormal_places",), **against),
        Row("captions_abnormal", "captions, and abnormal prompts as a further term", terms=both, **against),
        Row("no_text", "nothing: neighbours instead", terms=("s_mem",), **against),
    ]
    for source in ("shuffled", "zero", "global"):
        variant = _with(context=source)
        rows.append(Row(f"context_{source}", f"captions; context: {source}", variant, SEMANTIC, **against))
    for width in (4, 8, 128):
        variant = _with(context_dim=width)
        rows.append(Row(f"context_dim_{width}", f"captions; context of {width} numbers", variant, SEMANTIC, **against))
    return rows


ANOMALY_CLIP = (
    RecipeRow("anomaly_clip", "directions from m, temporal model, all losses", control=""),
    RecipeRow("no_temporal", "p_A of a frame from that frame alone", {"temporal": False}),
    RecipeRow("no_centring", "m = 0: features and directions as they are", {"centred": False}),
    RecipeRow("origin_directions", "frames from m, but classes from the origin", {"directions_from_normal": False}),
    RecipeRow("fixed_text", "no learned context, text projection as pretrained", {"learned": False}),
    RecipeRow("concat", "the temporal model also reads the similarities S", {"concat_similarity": True}),
    RecipeRow("no_directions", "without both direction losses", {"without": ("dir_abn", "dir_nor")}),
    RecipeRow("no_topk_abnormal", "top segments of abnormal videos unused", {"without": ("topk_abn",)}),
    RecipeRow("no_bottomk_abnormal", "bottom segments of abnormal videos unused", {"without": ("bottomk_abn",)}),
    RecipeRow("no_topk_normal", "top segments of normal videos unused", {"without": ("topk_nor",)}),
    RecipeRow("no_smooth_sparse", "without both regularisers", {"without": ("smooth", "sparse")}),
    RecipeRow(
        "published_smoothness", "as published: smoothness also across the borders of videos", {"across_videos": True}
    ),
    RecipeRow("published_logarithm", "as published: logarithms of probabilities unclamped", {"unclamped": True}),
    RecipeRow(
        "published_order", "as published: class names sorted by the alphabet under unsorted ids", {"resorted": True}
    ),
)


def anomaly_clip() -> Sequence[RecipeRow]:
    """Directions, losses, temporal model and prototype of AnomalyCLIP, and what its published code does otherwise."""
    return ANOMALY_CLIP


GLOBAL = dataclasses.replace(LOCAL, readout="global")
SCORES = {"semantic": SEMANTIC, "full": FULL, "fused": FUSED}


def stream() -> list[StreamRow]:
    """Gates, controls, read-outs, terms and lengths of training, on continuous video."""
    rows = []

    def add(name: str, says: str, control: str, scores: Sequence[str] = tuple(SCORES), **changes: Any) -> None:
        variant = dataclasses.replace(LOCAL, **changes)
        for score in scores:
            against = control and f"{control}/{score}"
            rows.append(StreamRow(name, says, variant, SCORES[score], control=against))

    add("none", "no context", "", gate="none", objective="plain")
    for kind in ("silu", "ln", "film", "relevance"):
        for objective in ("plain", "swap"):
            add(kind, GATES[kind].__doc__.splitlines()[0], "none/plain", gate=kind, objective=objective)
    add("zero", "relevance, no scene", "relevance/swap", context="zero")
    add("shuffled", "relevance, other windows' scenes", "relevance/swap", context="shuffled")
    add("relevance_global", "one vector of the whole window, not its regions", "relevance/swap", readout="global")
    for passes in (1, 5):
        says = f"{passes} of {PASSES} parts of the gate's steps"
        add(f"gate_steps_{DEMO_STEPS * passes}", says, "relevance/swap", ("semantic",), passes=passes)
    for passes in (0, 1, 3):
        says = f"predictive stream tuned for {passes} of {PASSES} parts of its steps" if passes else "as pretrained"
        name, control = f"prediction_steps_{DEMO_STEPS * passes}", "relevance/swap/full"
        rows.append(StreamRow(name, says, passes=passes, control=control))
    fused = dict(control="relevance/swap/fused")
    left_out = {"text": "s_sem", "prediction": "s_pred", "local_memory": "s_mem", "global_memory": "s_mem_global"}
    for name, term in left_out.items():
        terms = tuple(other for other in FUSED if other != term)
        rows.append(StreamRow(f"no_{name}", f"all terms but {term}", terms=terms, **fused))
    for name in ("local_memory", "global_memory"):
        says = f"{left_out[name]} alone: no text, no prediction"
        rows.append(StreamRow(f"{name}_alone", says, terms=(left_out[name],), **fused))
    rows.append(StreamRow("prediction_alone", "s_pred alone", terms=("s_pred",), control="relevance/swap/full"))
    for score, terms in SCORES.items() if (SHIPPED / "former").is_dir() else ():
        without = tuple(term for term in terms if term != "s_mem")
        row = StreamRow("old_stand_ins", "former stand-ins; no local memory", GLOBAL, without, former=True)
        rows.append(dataclasses.replace(row, control=f"relevance_global/swap/{score}"))
    return rows


WEAKLY = "anomaly_clip"  # the grid of the weakly supervised method
GRIDS: dict[str, Callable[[], Sequence[AnyRow]]] = {
    "gate": gate, "components": components, "released": released, "prompts": prompts, "held_out": held_out,
    "stream": stream, WEAKLY: anomaly_clip,
}  # fmt: skip


def grid(name: str) -> Sequence[AnyRow]:
    """The rows of a grid.

    Raises:
        ZsadError: no such grid; names the nearest one.
    """
    if name not in GRIDS:
        raise ZsadError(f"grid {name!r} is unknown; did you mean {nearest(name, (*GRIDS, 'all'))!r}?")
    return GRIDS[name]()
