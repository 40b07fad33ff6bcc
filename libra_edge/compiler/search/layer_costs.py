"""What keeping a layer in high precision costs, so that a search knows which ones to keep.

Where the engine runs here, a layer's product is timed by itself in both precisions; elsewhere the
weight bytes that a call moves stand for time. Times are rounded to powers of two and cached, so
that a busy machine does not change what is released.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from libra_edge.catalog import BITS, LayerPrecision, Number, Target, TargetEngine
from libra_edge.compiler.cache import StageCache
from libra_edge.compiler.engines.build import interleaved_medians, load_built
from libra_edge.compiler.graphs.export import export, to_bytes
from libra_edge.compiler.quantization.convert import quantized_layer
from libra_edge.compiler.quantization.quantize import Quantized
from libra_edge.engines import engine
from libra_edge.policy.family import Graph
from libra_edge.policy.libra_vla.model import LibraVLA

# Shorter than what can be told apart.
_SHORTEST_US = 1.0


@dataclass(frozen=True)
class Costs:
    """Per layer, what high precision costs in each control chunk, in powers of two.

    unit: `us` where it was measured, else `bytes`.
    """

    unit: str
    layers: Mapping[str, int]


@dataclass(frozen=True)
class _Use:
    """How a chunk uses a layer: an input like its own, and how often it runs."""

    like: Tensor
    calls: float


def layer_costs(
    policy: LibraVLA,
    quantized: Quantized,
    target: Target,
    settings: TargetEngine,
    cache: StageCache,
) -> Costs:
    """The cost of each layer that `quantised` rounds, in the engine that `settings` names."""
    precisions = {name: p for name, p in quantized.precisions.items() if not p.high}
    uses = _uses(policy, list(precisions))
    rest = engine(settings.kind).qdq.rest
    if not engine(settings.kind).is_available(settings.provider):
        saved = {
            name: _bytes_saved(policy.get_submodule(name), precision, rest) * uses[name].calls
            for name, precision in precisions.items()
        }
        return Costs("bytes", {name: _octave(value) for name, value in saved.items()})
    keys = {name: _key(policy, name, p, uses[name]) for name, p in precisions.items()}
    first = {key: name for name, key in reversed(keys.items())}
    inputs = {"layers": json.dumps(sorted(first)), "engine": settings.model_dump_json()}
    stored, _ = cache.get_or_make(
        "layer-costs", inputs, lambda: _measure(policy, quantized, target, settings, first, uses)
    )
    longer_us: dict[str, float] = json.loads(stored["longer_us"])
    return Costs(
        "us", {name: _octave(longer_us[key] * uses[name].calls) for name, key in keys.items()}
    )


def _octave(value: float) -> int:
    return int(2 ** round(math.log2(max(value, _SHORTEST_US))))


def _key(policy: LibraVLA, name: str, precision: LayerPrecision, use: _Use) -> str:
    shapes = [tuple(p.shape) for p in policy.get_submodule(name).parameters()]
    return f"{tuple(use.like.shape)} by {shapes}, {precision}"


def _bytes_saved(layer: nn.Module, precision: LayerPrecision, rest: Number) -> float:
    weights = sum(p.numel() for name, p in layer.named_parameters() if name.endswith("weight"))
    return weights * (BITS[rest] - BITS[precision.weights]) / 8


@torch.inference_mode()
def _uses(policy: LibraVLA, names: list[str]) -> dict[str, _Use]:
    """What one planner and one refiner call do; a plan's share of a chunk is one of M."""
    inputs: dict[str, list[Tensor]] = {name: [] for name in names}

    def note(name: str, _: nn.Module, given: tuple[Tensor, ...]) -> None:
        x = given[0]
        inputs[name].append(x.flatten(0, -2) if x.is_floating_point() else x)

    hooks = [
        policy.get_submodule(name).register_forward_pre_hook(partial(note, name)) for name in names
    ]
    config, robot = policy.config, policy.config.embodiment
    images = torch.zeros(
        1, config.num_cameras, robot.image_height, robot.image_width, 3, dtype=torch.uint8
    )
    instruction = torch.zeros(1, config.instruction_length, dtype=torch.int64)
    state = torch.zeros(1, config.state_dim)
    intent, _ = policy.plan(images, instruction, state)
    noise = torch.zeros(1, config.chunk, config.action_dim)
    policy.refine(images, state, intent[:, : config.chunk], noise)
    for hook in hooks:
        hook.remove()
    share = {"planner": 1 / config.chunks_per_plan, "refiner": 1.0}
    return {
        name: _Use(torch.zeros_like(found[0]), len(found) * share[name.split(".")[0]])
        for name, found in inputs.items()
    }


class _Halved(nn.Module):
    """A layer in 16-bit floats, between the 32-bit ones that an engine takes and gives."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = copy.deepcopy(layer)
        for parameter in self.layer.parameters():
            parameter.data = parameter.data.half()

    def forward(self, x: Tensor) -> Tensor:
        """X float32 → float32."""
        y: Tensor = self.layer(x.half())
        return y.float()


def _measure(
    policy: LibraVLA,
    quantized: Quantized,
    target: Target,
    settings: TargetEngine,
    first: Mapping[str, str],
    uses: Mapping[str, _Use],
) -> dict[str, bytes]:
    """Microseconds that one call of each kind of layer takes longer in high precision."""
    form = engine(settings.kind).qdq
    floats = torch.float16 if form.rest == "fp16" else torch.float32
    calls = {}
    for key, name in first.items():
        precision, x = quantized.precisions[name], uses[name].like
        low = quantized_layer(policy, name, quantized.ranges, precision, form, floats)
        for kind, layer in (("high", policy.get_submodule(name)), ("low", low)):
            module = _Halved(layer) if floats == torch.float16 else layer
            graph = Graph("layer", module.eval(), (x,), ("x",), ("y",))
            built = engine(settings.kind).build(to_bytes(export(graph)), settings, target)
            calls[f"{kind} {key}"] = partial(load_built(built).run, {"x": x.numpy()})
    seconds = interleaved_medians(calls)
    longer = {k: round(1e6 * (seconds[f"high {k}"] - seconds[f"low {k}"]), 3) for k in first}
    return {"longer_us": json.dumps(longer, sort_keys=True).encode()}
