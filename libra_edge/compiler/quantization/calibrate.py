"""In which ranges values lie: NVIDIA ModelOpt and our own data find them, kept in the cache.

ModelOpt's own modules cannot be exported (decision 0030), so they only calibrate, and what they
find is read off.
"""

from __future__ import annotations

import contextlib
import copy
import io
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, cast

import safetensors.torch
import torch
from torch import Tensor, nn

from libra_edge.catalog import LayerPrecision, Number, Recipe
from libra_edge.compiler.cache import StageCache
from libra_edge.compiler.quantization.algorithms import Algorithm, algorithm
from libra_edge.compiler.quantization.assign import Precisions
from libra_edge.compiler.quantization.calibration_data import CalibrationData
from libra_edge.compiler.quantization.linear import Ranges
from libra_edge.compiler.quantization.ranges import of_convolution, watch
from libra_edge.policy.family import Policy
from libra_edge.policy.imported import AnyCheckpoint, AnyPolicy, module_of
from libra_edge.policy.libra_vla.layers import ImageTokens
from libra_edge.policy.libra_vla.model import LibraVLA

BATCH = 16
# What passes through a layer is looked at on this part of the calibration data.
WATCH_EVERY = 4
_SMALLEST: dict[type[nn.Module], float] = {nn.GELU: -0.17, nn.SiLU: -0.2785}
# How ModelOpt writes a number's format: bits, or exponent and mantissa bits.
_BITS: dict[Number, Any] = {"int8": 8, "int4": 4, "fp8": (4, 3)}


def calibrate(
    checkpoint: AnyCheckpoint,
    recipe: Recipe,
    precisions: Precisions,
    data: CalibrationData,
    cache: StageCache,
) -> dict[str, Ranges]:
    """The ranges of every layer that changes; kept by weights, recipe, data and code.

    They are of the policy as it was trained, whatever floats surround the layers later.
    """
    precisions = {name: precision.beside("fp32") for name, precision in precisions.items()}
    inputs = {
        "checkpoint": checkpoint.sha256,
        "recipe": recipe.model_dump_json(exclude={"gates"}),
        "layers": repr(sorted((name, str(p)) for name, p in precisions.items())),
        "data": data.sha256,
        "modelopt": version("nvidia-modelopt"),
    }
    stored, _ = cache.get_or_make(
        "calibrate", inputs, lambda: _pack(_calibrate(checkpoint.policy, recipe, precisions, data))
    )
    return _unpack(stored)


def convolutions(name: str, tokens: ImageTokens) -> list[str]:
    """Names of the convolutions of an image stem."""
    return [f"{name}.stem.{i}" for i, m in enumerate(tokens.stem) if isinstance(m, nn.Conv2d)]


def _calibrate(
    policy: AnyPolicy, recipe: Recipe, precisions: Precisions, data: CalibrationData
) -> dict[str, Ranges]:
    with warnings.catch_warnings():
        # Its warnings are about optional packages.
        warnings.simplefilter("ignore")
        import modelopt.torch.quantization as mtq
    model = copy.deepcopy(module_of(policy))
    names = _modelopt_layers(policy, precisions)
    chosen = algorithm(recipe.algorithm)
    config = _modelopt_config(recipe, names, chosen)
    # It narrates on stdout, where results belong.
    with torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
        if chosen.collected is not None:
            mtq.quantize(model, {**config, "algorithm": None})
            _collect(model, recipe, chosen.collected(recipe), data)
        else:
            mtq.quantize(model, config, forward_loop=lambda m: run(m, data))
    ranges = {n: _read(model.get_submodule(n), _floor(policy, n)) for n in sorted(names)}
    stems = [name for name in ranges if ".stem." in name]
    rounded = [name for name in ranges if names[name].activations == "int8"]
    watched = set(rounded if chosen.inputs else []).union(stems)
    seen = watch(module_of(policy), sorted(watched), lambda m: run(m, data[::WATCH_EVERY]))
    ranges |= {name: of_convolution(ranges[name], seen.pop(name)) for name in stems}
    return chosen.inputs(ranges, seen) if chosen.inputs else ranges


def _modelopt_layers(policy: AnyPolicy, precisions: Precisions) -> dict[str, LayerPrecision]:
    """The modules to calibrate; a stem counts as its convolutions here."""
    found: dict[str, LayerPrecision] = {}
    for name, precision in precisions.items():
        module = module_of(policy).get_submodule(name)
        names = convolutions(name, module) if isinstance(module, ImageTokens) else [name]
        if not precision.high:
            found |= dict.fromkeys(names, precision)
    return found


def _modelopt_config(
    recipe: Recipe, names: Mapping[str, LayerPrecision], chosen: Algorithm
) -> dict[str, Any]:
    rules: list[dict[str, Any]] = [{"quantizer_name": "*", "enable": False}]
    activation = {"axis": None, **({"calibrator": "histogram"} if chosen.collected else {})}
    for name, precision in names.items():
        weights = {"num_bits": _BITS[precision.weights], "axis": 0}
        if precision.weights == "int4":
            weights = {"num_bits": 4, "block_sizes": {-1: recipe.block, "type": "static"}}
        rules.append({"quantizer_name": f"{name}.weight_quantizer", "cfg": weights})
        if precision.rounds_inputs:
            cfg = {"num_bits": _BITS[precision.activations], **activation}
            rules.append({"quantizer_name": f"{name}.input_quantizer", "cfg": cfg})
    return {"quant_cfg": rules, "algorithm": chosen.method}


def _collect(
    model: nn.Module, recipe: Recipe, options: Mapping[str, Any], data: CalibrationData
) -> None:
    """Histograms of inputs; of weights the largest value."""
    from modelopt.torch.quantization.model_calib import enable_stats_collection
    from modelopt.torch.quantization.nn import TensorQuantizer

    enable_stats_collection(model)
    run(model, data)
    for name, module in model.named_modules():
        if isinstance(module, TensorQuantizer) and module.is_enabled:
            if not name.endswith("input_quantizer"):
                module.load_calib_amax()
            else:
                module.load_calib_amax(recipe.algorithm, **options)
            module.enable_quant()
            module.disable_calib()


def _floor(policy: AnyPolicy, name: str) -> float | None:
    """The smallest value that the activation function before a layer gives, if there is one."""
    parent, _, own = name.rpartition(".")
    sequence = module_of(policy).get_submodule(parent)
    if not isinstance(sequence, nn.Sequential) or own == "0":
        return None
    return _SMALLEST.get(type(sequence[int(own) - 1]))


def _read(module: Any, floor: float | None) -> Ranges:
    """What one calibrated ModelOpt module knows."""

    def amax(quantizer: Any) -> Tensor | None:
        enabled = quantizer is not None and quantizer.is_enabled
        return quantizer.amax.detach().flatten().clone() if enabled else None

    given = amax(module.input_quantizer)
    scale = getattr(module.input_quantizer, "pre_quant_scale", None)
    return Ranges(
        module.weight.detach().clone(),
        module.weight_quantizer.amax.detach().flatten().clone(),
        0.0 if given is None else float(given.max()),
        # Smoothing moves the bound with each channel.
        floor if scale is None else None,
        None if scale is None else scale.detach().flatten().clone(),
    )


@torch.inference_mode()
def run(model: nn.Module, data: CalibrationData) -> None:
    """Everything a robot would compute on the calibration data: planner, then every chunk of it.

    The refiner runs its whole denoising loop from fresh noise; of a policy with a planner once on
    recorded intents and once on the planner's own, as the activations of late steps and of wrong
    plans differ.
    """
    if isinstance(model, LibraVLA):
        for begin in range(0, len(data), BATCH):
            _run_batch(model, data[begin : begin + BATCH])
        return
    policy = cast("Policy", model)
    arrays = (data.images, data.states, data.instructions, data.noise)
    for row in zip(*arrays, strict=True):
        policy.refine(*(torch.from_numpy(array) for array in row))


def _run_batch(model: LibraVLA, batch: CalibrationData) -> None:
    images, states, truth = (
        torch.from_numpy(a) for a in (batch.images, batch.states, batch.tokens)
    )
    planned, _ = model.plan(images[:, 0], torch.from_numpy(batch.instructions), states[:, 0])
    for part in range(model.config.chunks_per_plan):
        chunk = slice(part * model.config.chunk, (part + 1) * model.config.chunk)
        for source, plan in enumerate((truth, planned)):
            noise = torch.from_numpy(batch.noise[:, part, source])
            model.refine(images[:, part], states[:, part], plan[:, chunk], noise)


def _pack(ranges: Mapping[str, Ranges]) -> dict[str, bytes]:
    tensors: dict[str, Tensor] = {}
    for name, found in ranges.items():
        for key, value in vars(found).items():
            if value is not None:
                tensor = value if isinstance(value, Tensor) else torch.tensor(value).double()
                tensors[f"{name}:{key}"] = tensor.contiguous()
    return {"ranges": safetensors.torch.save(tensors)}


def _unpack(stored: Mapping[str, bytes]) -> dict[str, Ranges]:
    fields: dict[str, dict[str, Any]] = {}
    for key, tensor in safetensors.torch.load(stored["ranges"]).items():
        name, own = key.split(":")
        scalar = own in ("input_amax", "input_floor")
        fields.setdefault(name, {})[own] = float(tensor) if scalar else tensor
    return {name: Ranges(**values) for name, values in sorted(fields.items())}
