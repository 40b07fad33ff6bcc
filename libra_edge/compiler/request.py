"""What to compile, and everything a request names, loaded and checked before any work is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from libra_edge.bundle.members import MANIFEST
from libra_edge.catalog import Recipe, Target, load_recipe, load_target, require_supported
from libra_edge.compiler.cache import StageCache, default_cache
from libra_edge.compiler.engines.large_policy import SAMPLES as LARGE_SAMPLES
from libra_edge.compiler.engines.large_policy import is_large, require_drawn
from libra_edge.compiler.engines.plan import EnginePlan, plan_engines
from libra_edge.compiler.graphs.fuse import Form
from libra_edge.compiler.quantization.assign import require_calibration_runs_here
from libra_edge.compiler.quantization.calibration_data import CalibrationData, open_calibration_data
from libra_edge.engines import engine
from libra_edge.errors import InputError
from libra_edge.limits import Gates, gates_between, read_gates
from libra_edge.parity.samples import Sample, choose_samples
from libra_edge.paths import to_paths
from libra_edge.policy.checkpoint import CONFIG, Checkpoint, load_checkpoint
from libra_edge.policy.config import read_config

GATE_SAMPLES = 32
# A gate on a percentile needs more to stand on.
QUANTISED_GATE_SAMPLES = 128


@dataclass(frozen=True)
class Request:
    """What to compile.

    Args:
        checkpoint: the checkpoint folder.
        target: name of a target.
        recipe: name of a recipe; None takes the target's default.
        out: the release directory; None names it after release, target and recipe.
        name: the release's name; None takes the robot's.
        data: LeRobot dataset for the golden vectors and the gates; None makes up observations.
        calibrate: LeRobot dataset to find ranges on; needed by recipes that quantise.
        calibration_samples: how many of its frames; None as many as the recipe wants.
        auto_precision: keep the worst layers of the recipe in high precision until the gates hold.
        max_action_error: then the gate of action errors, a fraction of each dimension's range, no
            larger than the recipe's; None takes the recipe's.
        gates: TOML file of limits that replace the recipe's; None takes those.
        allow_loose: take limits that are looser than the recipe's; the manifest says so.
        form: the refiner's form; None keeps the faster.
        cache: folder of stage outputs; None takes the user's cache folder.
        force: replace a release that stands at `out`.
        samples: observations every gate is measured on; None as many as the recipe's gates need.
        seed: of the samples and their noise.
        engine: kind of the engines; None takes what the target prefers.
        engines_on_device: leave building the engines to the robot.
        random_weights: draw the policy's weights; the release is for measuring alone.
    """

    checkpoint: Path
    target: str = "cpu-x86_64"
    recipe: str | None = None
    out: Path | None = None
    name: str | None = None
    data: Path | None = None
    calibrate: Path | None = None
    calibration_samples: int | None = None
    auto_precision: bool = False
    max_action_error: float | None = None
    gates: Path | None = None
    allow_loose: bool = False
    form: Form | None = None
    cache: Path | None = None
    force: bool = False
    samples: int | None = None
    seed: int = 0
    engine: str | None = None
    engines_on_device: bool = False
    random_weights: bool = False

    def __post_init__(self) -> None:
        """Take paths as text too."""
        to_paths(self)


@dataclass(frozen=True)
class Job:
    """A request with everything it names loaded and checked."""

    name: str
    out: Path
    checkpoint: Checkpoint
    target: Target
    plan: EnginePlan
    recipe: Recipe
    samples: Sequence[Sample]
    cache: StageCache
    calibration: CalibrationData | None
    gates: Gates


def resolve(request: Request) -> Job:
    """Refuse what can be refused before any work is done, cheapest first."""
    target = load_target(request.target)
    recipe = load_recipe(request.recipe or target.default_recipe)
    require_supported(target, recipe)
    plan = plan_engines(target, kind=request.engine, on_device=request.engines_on_device)
    engine(plan.settings.kind).tools()
    require_calibration_runs_here(recipe)
    gates = _gates(request, recipe)
    if recipe.quantizes and request.calibrate is None:
        raise InputError(
            "calibration-data-missing",
            f"Recipe {recipe.name!r} needs data to find the ranges of activations on.",
            "Name the training data: --calibrate DATASET.",
        )
    if request.out is not None:
        _require_free(request.out, replace=request.force)
    cache = StageCache(request.cache or default_cache())
    torch.set_num_threads(1)
    config = read_config(request.checkpoint / CONFIG)
    large = is_large(config)
    if large:
        require_drawn(config, recipe, plan, random=request.random_weights)
    checkpoint = load_checkpoint(
        request.checkpoint, random_weights=request.random_weights, in_half=large
    )
    robot = checkpoint.config.embodiment
    name = request.name or robot.name + ("-random-weights" if request.random_weights else "")
    out = request.out or Path(f"{name}-{target.name}-{recipe.name}")
    _require_free(out, replace=request.force)
    usual = QUANTISED_GATE_SAMPLES if recipe.quantizes else GATE_SAMPLES
    count = request.samples or (LARGE_SAMPLES if large else usual)
    samples = choose_samples(
        robot, checkpoint.config, checkpoint.tokenizer, count, request.seed, request.data
    )
    calibration = None
    if request.calibrate is not None and recipe.quantizes:
        frames = request.calibration_samples or recipe.samples
        calibration = open_calibration_data(request.calibrate, request.data, checkpoint, frames)
    return Job(name, out, checkpoint, target, plan, recipe, samples, cache, calibration, gates)


def _gates(request: Request, recipe: Recipe) -> Gates:
    """The recipe's gates, with what was asked for in their place."""
    gates = read_gates(request.gates, recipe.gates, allow_loose=request.allow_loose)
    limits = gates.limits
    if request.auto_precision and not recipe.quantizes:
        raise InputError(
            "recipe-quantises-nothing",
            f"Recipe {recipe.name!r} has no layers that could be kept in high precision.",
            "Start from a recipe with calibration, or leave out --auto-precision.",
        )
    if request.max_action_error is None:
        return gates
    if not request.auto_precision or request.max_action_error > limits.action:
        raise InputError(
            "action-error-gate",
            f"The gate of recipe {recipe.name!r} is {limits.action:.3%} of each range; "
            f"{request.max_action_error:.3%} was asked for"
            + ("." if request.auto_precision else " without --auto-precision."),
            "--max-action-error goes with --auto-precision and makes a gate stricter, never wider.",
        )
    stricter = limits.model_copy(update={"action": request.max_action_error})
    return gates_between(recipe.gates, stricter)


def _require_free(out: Path, *, replace: bool) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    is_release = (out / MANIFEST).is_file()
    if not (replace and is_release):
        raise InputError(
            "destination-exists",
            f"{out} exists and is not empty.",
            "Choose another place with --out, or pass --force to replace the release there."
            if is_release
            else "Choose another place with --out; it holds no release, so it is not replaced.",
        )
