"""Settings are typed, and a wrong one names the right one."""

import dataclasses
import inspect
import json
import re
import typing

import pytest

from zsad_lib.config import FAR_TARGET, PROFILES, Profile, as_dict, changes, get_profile, nearest, typed
from zsad_lib.errors import ZsadError
from zsad_lib.evaluate.inputs import normal_thresholds
from zsad_lib.evaluate.protocol import estimates
from zsad_lib.own_video.calibrate import calibrate
from zsad_lib.results import tables


def test_every_threshold_from_normal_video_lets_the_same_share_alarm():
    asks = {calibrate: "far", normal_thresholds: "far_target", estimates: "far_target", tables.save: "far_target"}
    assert {inspect.signature(call).parameters[name].default for call, name in asks.items()} == {FAR_TARGET}
    assert {profile.far_target for profile in PROFILES.values()} == {FAR_TARGET}


def test_profiles_are_frozen_named_and_well_typed():
    for name, profile in PROFILES.items():
        assert profile.name == profile.run_name == name
        for field, hint in typing.get_type_hints(Profile).items():
            assert typed(field, getattr(profile, field), hint) == getattr(profile, field)
    with pytest.raises(dataclasses.FrozenInstanceError):
        PROFILES["demo"].seeds = ()
    assert not PROFILES["smoke"].is_result and PROFILES["demo"].is_result
    assert len(PROFILES["demo"].seeds) == 5 and len(PROFILES["ped2"].seeds) == 3


def test_every_field_has_a_comment():
    lines = re.findall(r"^    (\w+): .*? = (.*)$", inspect.getsource(Profile), re.MULTILINE)
    assert {name for name, _ in lines} == set(typing.get_type_hints(Profile)) - {"name", "dataset"}
    assert all("  # " in rest for _, rest in lines)


def test_overrides_as_the_makefile_gives_them():
    profile = get_profile("demo", DATA_ROOT="/some/where", BENCH_SEED="3", seeds="0, 1", is_result="no", alpha="1")
    assert (profile.data_root, profile.bench_seed, profile.seeds) == ("/some/where", 3, (0, 1))
    assert profile.is_result is False and profile.alpha == 1.0 and isinstance(profile.alpha, float)
    assert profile.run_name == "demo-seed3" and get_profile("demo", PRETRAIN_SEED="2").run_name == "demo-pretrained2"
    assert get_profile("demo") == PROFILES["demo"]
    assert get_profile("demo", alpha=1, released=["a"]).released == ("a",)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("dmo", {}), "profile 'dmo' is unknown; did you mean 'demo'?"),
        (("demo", {"bench_sed": 1}), "setting 'bench_sed' is unknown; did you mean 'bench_seed'?"),
        (("demo", {"dataset": "ucsd_ped2"}), "setting 'dataset' is unknown; did you mean 'data_root'?"),
        (("demo", {"jobs": "two"}), "setting jobs='two': a whole number is needed"),
        (("demo", {"jobs": 2.0}), "setting jobs=2.0: a whole number is needed"),
        (("demo", {"jobs": True}), "setting jobs=True: a whole number is needed"),
        (("demo", {"is_result": "maybe"}), "setting is_result='maybe': yes or no is needed"),
        (("demo", {"alpha": None}), "setting alpha=None: a number is needed"),
        (("demo", {"seeds": "0,x"}), "setting seeds='x': a whole number is needed"),
        (("demo", {"seeds": 3}), "setting seeds=3: give values separated by commas"),
        (("demo", {"data_root": 3}), "setting data_root=3: a text is needed"),
    ],
)
def test_what_does_not_fit_is_one_line(arguments, line):
    with pytest.raises(ZsadError) as error:
        get_profile(arguments[0], **arguments[1])
    assert str(error.value) == line


def test_optional_and_literal_types():
    assert typed("x", "none", int | None) is None and typed("x", "4", int | None) == 4
    assert typed("x", None, typing.Optional[str]) is None  # noqa: UP045
    assert typed("x", "b", typing.Literal["a", "b"]) == "b"
    with pytest.raises(ZsadError, match="did you mean 'raw'"):
        typed("x", "rw", typing.Literal["raw", "smoothed"])
    assert nearest("PED", PROFILES) == "ped2"


def test_changes_restore_the_profile():
    profile = get_profile("demo", seeds="1,2", jobs=3)
    assert changes(profile) == {"seeds": (1, 2), "jobs": 3} and get_profile("demo", **changes(profile)) == profile
    assert json.loads(json.dumps(as_dict(profile))) == as_dict(profile)
