"""The compute steps of each data set, declared: which function makes a step, and which steps it needs."""

Step = tuple[str, tuple[str, ...]]  # "module:function", needed steps

ZERO_SHOT = {
    "features": ("zsad_lib.features:extract", ("data",)),
    "train": ("zsad_lib.train:fit", ("features",)),
    "score": ("zsad_lib.score:score_all", ("train",)),
}
WEAK = {  # after "weak_data"
    "frame_features": ("zsad_lib.frame_features:extract_listed", ("weak_data",)),
    "weak_train": ("zsad_lib.weak:fit", ("frame_features",)),
    "weak_score": ("zsad_lib.weak_score:score_all", ("weak_train",)),
}
LISTED = {"weak_data": ("data_prep.weak_lists:prepare", ("data",)), **WEAK}


def last(*scored: str) -> dict[str, Step]:
    """The steps after the scores of `scored`."""
    return {
        "evaluate": ("zsad_lib.evaluate:detection", scored),
        "tables": ("zsad_lib.tables:write", ("evaluate",)),
        "figures": ("zsad_lib.figures:draw", ("evaluate",)),
        "films": ("zsad_lib.example_films:draw", ("evaluate",)),
    }


STEPS: dict[str, dict[str, Step]] = {  # data set -> step, in the order of computing
    "scene_rules": {
        "data": ("data_prep.scene_rules.prepare:prepare", ()),
        **ZERO_SHOT,
        "weak_data": ("data_prep.scene_rules.weak:prepare", ("data",)),
        **WEAK,
        **last("score", "weak_score"),
    },
    "ucsd_ped2": {
        "data": ("data_prep.ucsd_ped2:prepare", ()),
        "train": ("zsad_lib.predictive:fit", ("data",)),
        "score": ("zsad_lib.predictive_score:score_all", ("train",)),
        **last("score"),
    },
    "ucf_crime": {"data": ("data_prep.ucf_crime:prepare", ()), **ZERO_SHOT, **LISTED, **last("score", "weak_score")},
    "shanghaitech": {"data": ("data_prep.shanghaitech:prepare", ()), **LISTED, **last("weak_score")},
    "xd_violence": {"data": ("data_prep.xd_violence:prepare", ()), **LISTED, **last("weak_score")},
    "avenue": {"data": ("data_prep.avenue:prepare", ())},
    "nwpu_campus": {"data": ("data_prep.nwpu_campus:prepare", ())},
    "ubnormal": {"data": ("data_prep.ubnormal:prepare", ())},
}
