"""What quantising each layer alone does to the policy's outputs, ranked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from libra_edge.catalog import Recipe, load_recipe, load_target, require_supported
from libra_edge.compiler.cache import StageCache, default_cache
from libra_edge.compiler.quantization.assign import (
    require_calibration_runs_here,
    require_layers,
)
from libra_edge.compiler.quantization.calibration_data import open_calibration_data
from libra_edge.compiler.quantization.quantize import quantize
from libra_edge.compiler.search.simulation import Allowed, Effect, Trial
from libra_edge.engines import engine
from libra_edge.errors import InputError
from libra_edge.parity.samples import choose_samples
from libra_edge.paths import to_paths
from libra_edge.policy.checkpoint import CONFIG, Checkpoint, load_checkpoint, outline
from libra_edge.policy.config import read_config
from libra_edge.policy.libra_vla.model import LibraVLA

SAMPLES = 128


@dataclass(frozen=True)
class Sensitivity:
    """One layer, quantised alone.

    gate_used: the largest share of a gate that it uses up alone; parameters: of its weights.
    """

    layer: str
    precision: str
    effect: Effect
    gate_used: float
    parameters: int

    def to_json(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**vars(self), "effect": vars(self.effect)}


@dataclass(frozen=True)
class Request:
    """What to measure.

    Args:
        checkpoint: the checkpoint folder.
        recipe: name of a recipe that quantises.
        calibrate: LeRobot dataset to find ranges on.
        data: LeRobot dataset to measure on; None takes frames of `calibrate`.
        target: name of the target whose engines' form is tried.
        samples: observations to measure on.
        calibration_samples: frames to calibrate on; None as many as the recipe wants.
        cache: folder of stage outputs; None takes the user's cache folder.
        seed: of the samples and their noise.
    """

    checkpoint: Path
    recipe: str
    calibrate: Path
    data: Path | None = None
    target: str = "cpu-x86_64"
    samples: int = SAMPLES
    calibration_samples: int | None = None
    cache: Path | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Take paths as text too."""
        to_paths(self)


@dataclass(frozen=True)
class Measured:
    """Every layer's effect, the worst first, and that of quantising all of them."""

    checkpoint: Checkpoint
    recipe: Recipe
    samples: int
    allowed: Allowed
    together: Effect
    layers: tuple[Sensitivity, ...]

    def to_json(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "checkpoint_sha256": self.checkpoint.sha256,
            "recipe": self.recipe.name,
            "samples": self.samples,
            "allowed": vars(self.allowed),
            "together": {**vars(self.together), "gate_used": self.allowed.used(self.together)},
            "layers": [one.to_json() for one in self.layers],
        }


def measure(
    request: Request, on_progress: Callable[[int, int, str], None] = lambda done, of, what: None
) -> Measured:
    """Measure every layer that a recipe quantises.

    Sets PyTorch's intra-op threads to 1, so that results do not depend on the core count.

    Args:
        request: what to measure.
        on_progress: called with layers done, their number, and what begins.

    Raises:
        LibraError: something about the request, the checkpoint or the data does not fit.
    """
    target, recipe = load_target(request.target), load_recipe(request.recipe)
    require_supported(target, recipe)
    require_calibration_runs_here(recipe)
    if not recipe.quantizes:
        raise InputError(
            "recipe-quantises-nothing",
            f"Recipe {recipe.name!r} quantises no layer one by one.",
            "Choose a recipe with calibration; see `libra-edge recipes`.",
        )
    require_layers(recipe, outline(read_config(request.checkpoint / CONFIG)))
    torch.set_num_threads(1)
    checkpoint = load_checkpoint(request.checkpoint)
    data = open_calibration_data(
        request.calibrate, request.data, checkpoint, request.calibration_samples or recipe.samples
    )
    samples = choose_samples(
        checkpoint.config.embodiment,
        checkpoint.config,
        checkpoint.tokenizer,
        request.samples,
        request.seed,
        request.data or request.calibrate,
    )
    on_progress(0, 1, f"{recipe.algorithm} on {len(data)} samples")
    form = engine(target.engines[0].kind).qdq
    cache = StageCache(request.cache or default_cache())
    quantized = quantize(checkpoint, recipe, data, form, cache)
    trial = Trial(checkpoint, recipe, quantized, form, samples)
    allowed, count = trial.allowed(recipe.gates), len(trial.layers)
    done = iter(range(count))
    ranked = measure_layers(
        trial, checkpoint.policy, allowed, lambda name: on_progress(next(done), count, name)
    )
    together = trial.effect(trial.layers)
    return Measured(checkpoint, recipe, len(samples), allowed, together, tuple(ranked))


def measure_layers(
    trial: Trial,
    policy: LibraVLA,
    allowed: Allowed,
    on_layer: Callable[[str], None] = lambda _: None,
) -> list[Sensitivity]:
    """Quantise every layer of a trial alone; the worst comes first.

    Args:
        trial: the policy on samples.
        policy: the same, for the sizes of its layers.
        allowed: the gates.
        on_layer: called with each layer's name before it is measured.
    """
    found = []
    for name, precision in trial.layers.items():
        on_layer(name)
        effect = trial.effect([name])
        parameters = _weights(policy.get_submodule(name))
        found.append(Sensitivity(name, str(precision), effect, allowed.used(effect), parameters))
    return sorted(found, key=_rank)


def _rank(found: Sensitivity) -> tuple[float, float, float, str]:
    effect = found.effect
    return (-found.gate_used, -effect.margin_shift, -effect.action, found.layer)


def _weights(module: nn.Module) -> int:
    return sum(p.numel() for name, p in module.named_parameters() if name.endswith("weight"))
