"""Tiny policies of every kind the compiler knows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from libra_edge.catalog import Recipe, Target
from libra_edge.compiler.cache import StageCache
from libra_edge.compiler.engines.plan import EnginePlan, plan_engines
from libra_edge.compiler.graphs.fuse import Form
from libra_edge.compiler.graphs.make_graphs import Front, make_graphs
from libra_edge.compiler.request import Job, Request
from libra_edge.limits import Gates
from libra_edge.parity.samples import Sample
from libra_edge.policy.checkpoint import Checkpoint, load_checkpoint
from tests.tiny import tiny_config, write_tiny_checkpoint

BLIND = {**tiny_config().model_dump()["refiner"], "visual_encoder": False}
LOOPS: dict[str, dict[str, Any]] = {
    "ddim_sample": {},
    "ddim_epsilon_free": {
        # Not `trailing`: there the first step divides by a signal of almost nothing.
        "schedule": {
            "denoise_steps": 3,
            "prediction_type": "epsilon",
            "timestep_spacing": "leading",
            "clip_sample": None,
        }
    },
    "dpm_velocity": {
        "schedule": {
            "denoise_steps": 4,
            "scheduler": "dpm_solver_pp",
            "prediction_type": "velocity",
        }
    },
    "flow_euler": {
        "schedule": {
            "denoise_steps": 4,
            "scheduler": "flow_euler",
            "prediction_type": "velocity",
        }
    },
    "one_step": {"schedule": {"denoise_steps": 1}},
    "blind": {"refiner": BLIND},
}
VARIANTS = {**LOOPS, "libra_base": {"refiner": None}}


def job_for(
    checkpoint: Checkpoint,
    target: Target,
    recipe: Recipe,
    cache: StageCache,
    plan: EnginePlan | None = None,
    samples: Sequence[Sample] = (),
    form: Form | None = None,
) -> Job:
    """What `resolve` makes of a request, from its parts."""
    return Job(
        Request(checkpoint.path, form=form),
        "tiny",
        Path("nowhere"),
        checkpoint,
        target,
        plan or plan_engines(target),
        recipe,
        samples,
        cache,
        None,
        Gates(recipe.gates),
    )


def make_front(name: str, folder: Path) -> tuple[Checkpoint, Front]:
    """A variant's checkpoint and graphs; what was made before comes from the cache."""
    checkpoint = load_checkpoint(write_tiny_checkpoint(folder / name, **VARIANTS[name]))
    return checkpoint, make_graphs(checkpoint, StageCache(folder / "cache"), lambda *_: None)
