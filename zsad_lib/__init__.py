"""Context-aware zero-shot anomaly detection in surveillance video: a thin library behind ordered notebooks.

Names load when first used, so that ``import zsad_lib as z`` is fast and torch is imported only by what needs it.
"""

import importlib
import importlib.abc
import importlib.machinery
import sys
from types import ModuleType
from typing import Any

from zsad_lib import extensions

__version__ = "0.1.0"

_NAMES = {
    "begin": "notebook",
    "say": "notebook",
    "mark": "notebook",
    "interval": "notebook",
    "show": "notebook",
    "progress": "pipeline.progress",
    "ZsadError": "errors",
    "get_profile": "config",
    "PROFILES": "config",
    "ensure": "pipeline.run_step",
    "read_video": "files.video",
    "iter_frames": "files.video",
    "write_video": "files.video",
    "probe": "files.video",
    "load_manifest": "files.manifest",
    "frame_labels": "files.manifest",
    "load_weights": "files.weights",
    "score_video": "own_video.scoring",
    "Words": "own_video.words",
    "Sees": "own_video.detector",
    "LiveScorer": "own_video.frame_by_frame",
    "watch": "own_video.watch",
    "explore": "results.explorer",
    "Text": "results.explorer",
    "explain": "own_video.explain",
}
MOVED = {  # path that a module once had -> the modules (of zsad_lib, where it says no more) that hold its names now
    "data_prep.fetch": ("files.downloads",),
    "data_prep.scene_rules.weak": ("data_prep.scene_rules.video_level",),
    "data_prep.weak_lists": ("data_prep.video_level_lists",),
    "zsad_lib.ablate": ("ablations.run", "ablations.context_aware_grid", "ablations.engine", "ablations.grids"),
    "zsad_lib.ablation_figures": ("results.ablation_plots",),
    "zsad_lib.backbones": ("features.backbones",),
    "zsad_lib.bench": ("maintenance.speed", "maintenance.timing", "maintenance.baselines"),
    "zsad_lib.calibrate": ("own_video.calibrate",),
    "zsad_lib.cards": ("results.report_cards",),
    "zsad_lib.checks": (
        "exercises.answers",
        "exercises.checks_components",
        "exercises.checks_training",
        "exercises.checks_ablations",
        "exercises.checks_anomaly_clip",
        "exercises.checks_results",
    ),
    "zsad_lib.containers": ("files.foreign_checkpoints",),
    "zsad_lib.cost": ("maintenance.cost",),
    "zsad_lib.doctor": ("maintenance.doctor",),
    "zsad_lib.estimates": ("evaluate.protocol",),
    "zsad_lib.evaluate": ("evaluate.evaluation",),
    "zsad_lib.events": ("evaluate.events",),
    "zsad_lib.example_films": ("results.example_films",),
    "zsad_lib.explorers": ("results.explorer",),
    "zsad_lib.features": ("features.extraction",),
    "zsad_lib.figures": ("results.plots", "results.style", "results.run_figures"),
    "zsad_lib.film": ("results.film",),
    "zsad_lib.findings": ("maintenance.findings",),
    "zsad_lib.fingerprint": ("pipeline.fingerprints",),
    "zsad_lib.floors": ("evaluate.floors",),
    "zsad_lib.frame_features": ("features.clip_frames",),
    "zsad_lib.frames": ("evaluate.inputs",),
    "zsad_lib.frozen": ("ablations.frozen_windows",),
    "zsad_lib.grids": ("ablations.grids",),
    "zsad_lib.live": ("own_video.watch",),
    "zsad_lib.live_pass": ("methods.context_aware.gradient_windows",),
    "zsad_lib.loading": ("features.load_published",),
    "zsad_lib.manifest": ("files.manifest", "files.spans", "files.annotations"),
    "zsad_lib.memory": ("methods.context_aware.memory_plan",),
    "zsad_lib.metrics": ("evaluate.weighted_auc",),
    "zsad_lib.motion": ("features.motion_floor",),
    "zsad_lib.notebook_map": ("maintenance.notebook_map",),
    "zsad_lib.notebook_page": ("results.notebook_page",),
    "zsad_lib.notebooks": ("pipeline.run_notebooks",),
    "zsad_lib.official": ("features.published_weights",),
    "zsad_lib.overlay": ("own_video.pictures", "results.film"),
    "zsad_lib.own_detector": ("own_video.detector", "own_video.words"),
    "zsad_lib.own_events": ("own_video.events", "evaluate.events", "files.score_files"),
    "zsad_lib.own_video": ("own_video.scoring",),
    "zsad_lib.page": ("results.html_page",),
    "zsad_lib.paths": ("files.paths",),
    "zsad_lib.pipeline": ("pipeline.run_step",),
    "zsad_lib.pipeline.__main__": ("__main__",),
    "zsad_lib.predictive": ("methods.predictive_coding.train",),
    "zsad_lib.predictive_score": ("methods.predictive_coding.score",),
    "zsad_lib.pretrain": ("methods.pretraining",),
    "zsad_lib.recognition": ("evaluate.class_metrics",),
    "zsad_lib.released": ("released_defects",),
    "zsad_lib.report": ("results.report",),
    "zsad_lib.rollout": ("models.attention_rollout",),
    "zsad_lib.run": ("notebook", "pipeline.progress"),
    "zsad_lib.score": (
        "methods.context_aware.scores",
        "methods.context_aware.scorer",
        "files.score_files",
        "methods.context_aware.score_step",
    ),
    "zsad_lib.series": ("files.score_files",),
    "zsad_lib.showcase": ("maintenance.front_page",),
    "zsad_lib.solutions": ("exercises.solutions",),
    "zsad_lib.steps": ("pipeline.steps",),
    "zsad_lib.streaming": ("own_video.frame_by_frame",),
    "zsad_lib.tables": ("results.tables", "results.run_tables"),
    "zsad_lib.train": ("methods.context_aware.train",),
    "zsad_lib.trial": ("ablations.trial",),
    "zsad_lib.video": ("files.video", "files.decoding", "files.frame_folders"),
    "zsad_lib.weak": ("methods.anomaly_clip.train",),
    "zsad_lib.weak_ablate": ("ablations.anomaly_clip_grid", "ablations.grids"),
    "zsad_lib.weak_score": ("methods.anomaly_clip.score",),
    "zsad_lib.weights": ("files.weights",),
    "zsad_lib.why": ("own_video.explain",),
    "zsad_lib.why_explorers": ("own_video.explain_explorers",),
    "zsad_lib.why_figures": ("own_video.explain_figures",),
    "zsad_lib.windows": ("methods.context_aware.training_windows",),
    "zsad_lib.workers": ("processes",),
}
KEPT = {  # old names that go on working, as `z.name` and in an import: notebooks and docs/extend.md speak of them
    "ablate", "ablation_figures", "backbones", "calibrate", "checks", "config", "doctor", "evaluate",
    "features", "figures", "grids", "live", "losses", "manifest", "models", "overlay", "own_events",
    "own_video", "paths", "pipeline", "predictive", "run", "score", "solutions", "steps", "tables", "train",
    "trial", "video", "weights",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        value = getattr(importlib.import_module(f"zsad_lib.{_NAMES[name]}"), name)
    elif name in KEPT:
        value = importlib.import_module(f"zsad_lib.{name}")
    else:
        raise AttributeError(f"module 'zsad_lib' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_NAMES, *KEPT})


def full_name(home: str) -> str:
    """Import path of an entry of `MOVED`."""
    return home if home.startswith("data_prep.") else f"zsad_lib.{home}"


class _Moved(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports a module of `MOVED` from where it is now; one that nobody outside was promised ends in a line that says
    where."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name not in MOVED:
            return None
        if name.removeprefix("zsad_lib.") not in KEPT:
            raise ModuleNotFoundError(f"{name} is now {full_name(MOVED[name][0])}; change the import", name=name)
        return importlib.machinery.ModuleSpec(name, self)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        homes = MOVED[spec.name]
        if len(homes) > 1:
            return _Parts(spec.name)
        module = importlib.import_module(full_name(homes[0]))
        spec.loader_state = module.__spec__  # the import system is about to write over it
        return module

    def exec_module(self, module: ModuleType) -> None:
        if not isinstance(module, _Parts):
            module.__spec__ = module.__spec__.loader_state

    def get_code(self, name: str) -> None:
        """For ``python -m``: where a module has moved, what it ran is a command of the kit."""
        raise ImportError(f"{name} is now {full_name(MOVED[name][0])}; python -m zsad_lib lists all commands")


class _Parts(ModuleType):
    """A module that has been split: its names are those of all its parts, the first of which comes first."""

    def __getattr__(self, name: str) -> Any:
        for home in MOVED[self.__name__] if not name.startswith("__") else ():
            value = getattr(importlib.import_module(full_name(home)), name, None)
            if value is not None and not isinstance(value, ModuleType):  # a part's own name, no module that it imports
                return value
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")


sys.meta_path.append(_Moved())
extensions.load()  # last: they import what is above
