"""Everything a request names, loaded and checked before any work is done."""

from __future__ import annotations

from pathlib import Path

import torch

from libra_edge.bundle.members import MANIFEST
from libra_edge.bundle.signing.keys import load_private
from libra_edge.catalog import Recipe, load_recipe, load_target, require_supported
from libra_edge.compiler.cache import StageCache, default_cache
from libra_edge.compiler.engines.large_policy import SAMPLES as LARGE_SAMPLES
from libra_edge.compiler.engines.large_policy import is_large, require_drawn
from libra_edge.compiler.engines.plan import EnginePlan, plan_engines
from libra_edge.compiler.import_folder import import_folder, require_none
from libra_edge.compiler.quantization.assign import (
    require_calibration_runs_here,
    require_layers,
)
from libra_edge.compiler.quantization.calibration_data import open_calibration_data
from libra_edge.compiler.request import Job, Request
from libra_edge.engines import engine
from libra_edge.errors import InputError
from libra_edge.limits import Gates, gates_between, read_gates
from libra_edge.parity.samples import choose_samples
from libra_edge.policy.checkpoint import CONFIG, load_checkpoint, outline
from libra_edge.policy.config import read_config
from libra_edge.policy.family import Family
from libra_edge.policy.imported import AnyCheckpoint, family_of, is_heavy
from libra_edge.user_cache import require_writable

GATE_SAMPLES = 32
# A gate on a percentile needs more to stand on.
QUANTIZED_GATE_SAMPLES = 128
# The precisions that the policies of every family have.
_IN_FLOATS = ("fp32", "fp16")


def resolve(request: Request) -> Job:
    """Refuse what can be refused before any work is done, cheapest first."""
    key = load_private(request.sign, None) if isinstance(request.sign, Path) else request.sign
    _require_epoch(request.security_epoch)
    target = load_target(request.target)
    recipe = load_recipe(request.recipe or target.default_recipe)
    require_supported(target, recipe)
    family = family_of(request.checkpoint)
    if family is not None:
        _require_compiled(family, request, recipe)
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
    cache_folder = request.cache or default_cache()
    require_writable(cache_folder, "--cache")
    torch.set_num_threads(1)
    checkpoint, large = _read(family, request, recipe, plan)
    robot = checkpoint.config.embodiment
    name = request.name or robot.name + ("-random-weights" if request.random_weights else "")
    out = request.out or Path(f"{name}-{target.name}-{recipe.name}")
    _require_free(out, replace=request.force)
    heavy = not large and is_heavy(checkpoint)
    usual = QUANTIZED_GATE_SAMPLES if recipe.quantizes else GATE_SAMPLES
    count = request.samples or (LARGE_SAMPLES if large else usual // 4 if heavy else usual)
    samples = choose_samples(
        robot, checkpoint.config, checkpoint.tokenizer, count, request.seed, request.data
    )
    calibration = None
    if request.calibrate is not None and recipe.quantizes:
        frames = request.calibration_samples or recipe.samples
        calibration = open_calibration_data(request.calibrate, request.data, checkpoint, frames)
    return Job(
        request,
        name,
        out,
        checkpoint,
        target,
        plan,
        recipe,
        samples,
        StageCache(cache_folder),
        calibration,
        gates,
        key,
        large,
        heavy,
    )


def _require_epoch(epoch: int) -> None:
    if not 0 <= epoch < 2**31:
        raise InputError(
            "usage",
            f"{epoch} is no security epoch.",
            f"Give a whole number from 0 to {2**31 - 1}.",
        )


def _read(
    family: Family | None, request: Request, recipe: Recipe, plan: EnginePlan
) -> tuple[AnyCheckpoint, bool]:
    """The checkpoint, and whether it is so large that its weights lie in files of their own."""
    options = {n: getattr(request, n) for n in ("robot", "tokenizer", "vlm_config")}
    if family is not None:
        found = import_folder(family, request.checkpoint, data=request.data, **options)
        require_layers(recipe, found.policy)
        return found, False
    require_none(request.checkpoint, options)
    config = read_config(request.checkpoint / CONFIG)
    require_layers(recipe, outline(config))
    large = is_large(config)
    if large:
        require_drawn(config, recipe, plan, random=request.random_weights)
    random = request.random_weights
    return load_checkpoint(request.checkpoint, random_weights=random, in_half=large), large


def _require_compiled(family: Family, request: Request, recipe: Recipe) -> None:
    """Refuse what is there for Libra-VLA's own policies alone."""
    parts = {part for part in family.parts.values() if part is not None}
    rounds = any(not recipe.parts[part].high for part in parts & recipe.parts.keys())
    if recipe.precision not in _IN_FLOATS and not rounds:
        raise InputError(
            "recipe-unsupported",
            f"Recipe {recipe.name!r} has nothing that it could round in policies of the type "
            f"{family.name!r}.",
            f"Take --recipe {' or '.join(_IN_FLOATS)}.",
        )
    if request.auto_precision:
        raise InputError(
            "recipe-unsupported",
            f"--auto-precision is not there yet for policies of the type {family.name!r}.",
            "Leave it out, or write a recipe of your own: `keep` leaves layers in high precision, "
            'and rest = "fp32" everything else in 32 bits on a GPU too.',
        )
    if request.random_weights:
        raise InputError(
            "usage",
            f"--random-weights draws Libra-VLA's weights, not those of {family.name!r}.",
            "Leave it out.",
        )


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
