"""The compute steps of each data set, declared: which function makes a step, and which steps it needs."""

from collections.abc import Iterable

AFTER_NOTEBOOKS = "zsad_lib.results.notebook_page:refresh"  # called with the folder of notebooks when some have run
SHARED_OUT = {"features": "zsad_lib.features.extraction:extract_share"}  # machines share it: (profile, run, shard)
PRETRAINED = "zsad_lib.features.backbones:pretrained"  # (seed, held out) -> folder of the stand-ins' weights
PUBLISHED = "ablation_*"  # files in the folder of a step, `tables`, that the ablations have put there and look after

Step = tuple[str, tuple[str, ...]]  # "module:function", needed steps

ZERO_SHOT = {
    "features": ("zsad_lib.features.extraction:extract", ("data",)),
    "train": ("zsad_lib.methods.context_aware.train:fit", ("features",)),
    "score": ("zsad_lib.methods.context_aware.score_step:score_all", ("train",)),
}
WEAK = {  # after "weak_data"
    "frame_features": ("zsad_lib.features.clip_frames:extract_listed", ("weak_data",)),
    "weak_train": ("zsad_lib.methods.anomaly_clip.train:fit", ("frame_features",)),
    "weak_score": ("zsad_lib.methods.anomaly_clip.score:score_all", ("weak_train",)),
}
LISTED = {"weak_data": ("data_prep.video_level_lists:prepare", ("data",)), **WEAK}


def last(*scored: str) -> dict[str, Step]:
    """The steps after the scores of `scored`."""
    return {
        "evaluate": ("zsad_lib.evaluate.run_evaluation:detection", scored),
        "tables": ("zsad_lib.results.run_tables:write", ("evaluate",)),
        "figures": ("zsad_lib.results.run_figures:draw", ("evaluate",)),
        "films": ("zsad_lib.results.example_films:draw", ("evaluate",)),
    }


STEPS: dict[str, dict[str, Step]] = {  # data set -> step, in the order of computing
    "scene_rules": {
        "data": ("data_prep.scene_rules.prepare:prepare", ()),
        **ZERO_SHOT,
        "weak_data": ("data_prep.scene_rules.video_level:prepare", ("data",)),
        **WEAK,
        **last("score", "weak_score"),
    },
    "ucsd_ped2": {
        "data": ("data_prep.ucsd_ped2:prepare", ()),
        "train": ("zsad_lib.methods.predictive_coding.train:fit", ("data",)),
        "score": ("zsad_lib.methods.predictive_coding.score:score_all", ("train",)),
        **last("score"),
    },
    "ucf_crime": {"data": ("data_prep.ucf_crime:prepare", ()), **ZERO_SHOT, **LISTED, **last("score", "weak_score")},
    "shanghaitech": {"data": ("data_prep.shanghaitech:prepare", ()), **LISTED, **last("weak_score")},
    "xd_violence": {"data": ("data_prep.xd_violence:prepare", ()), **LISTED, **last("weak_score")},
    "avenue": {"data": ("data_prep.avenue:prepare", ())},
    "nwpu_campus": {"data": ("data_prep.nwpu_campus:prepare", ())},
    "ubnormal": {"data": ("data_prep.ubnormal:prepare", ())},
}


def needed(dataset: str, steps: Iterable[str]) -> list[str]:
    """The steps and all that they start from, in the order of computing."""
    wanted = set(steps)
    for step, (_, needs) in reversed(STEPS[dataset].items()):
        wanted |= set(needs) if step in wanted else set()
    return [step for step in STEPS[dataset] if step in wanted]
