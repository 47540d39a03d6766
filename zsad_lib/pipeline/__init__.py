"""Brings a step up to date: what it depends on, whether it is done, locks, launchers, notebooks.

Nothing here knows what a step computes: steps are named as text and imported when they run. No number passes through,
so a change here makes no result outdated.
"""

from typing import Any

from zsad_lib.extensions import first_use

_HOME = {  # public name -> the module of zsad_lib that holds it
    "LAUNCHED": "pipeline.launch",
    "LOCK_WAIT_S": "pipeline.lock",
    "NOT_IN_FINGERPRINT": "pipeline.run_step",
    "artefact_paths": "pipeline.run_step",
    "current": "pipeline.run_step",
    "ensure": "pipeline.run_step",
    "ensure_apart": "pipeline.launch",
    "ensure_together": "pipeline.launch",
    "fingerprint": "pipeline.run_step",
    "locked": "pipeline.lock",
    "provenance": "pipeline.run_step",
    "run_child": "pipeline.launch",
    "run_folder": "pipeline.run_step",
    "steps_of": "pipeline.run_step",
    "survey": "pipeline.run_step",
}


def __getattr__(name: str) -> Any:
    return first_use(__name__, name, _HOME)
