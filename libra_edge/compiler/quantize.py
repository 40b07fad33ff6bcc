"""Quantise a policy: NVIDIA ModelOpt finds the ranges, own layers carry them into the graphs.

ModelOpt's own modules cannot be exported (decision 0030), so they only calibrate: what they find
is read off, and a copy of the policy gets `qlayers` in place of its layers. That copy is a policy
like any other for the stages that follow.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from libra_edge.catalog import HIGH, LayerPrecision, Number, PartName, Recipe
from libra_edge.compiler.blocks import fills_blocks
from libra_edge.compiler.cache import StageCache
from libra_edge.compiler.calibration_data import CalibrationData
from libra_edge.compiler.flat import flatten_blocks
from libra_edge.compiler.half import HALF, halve
from libra_edge.compiler.qlayers import QuantisedLinear, Ranges
from libra_edge.compiler.qstem import QuantisedImageTokens
from libra_edge.compiler.ranges import of_convolution, search_inputs, watch, whole_inputs
from libra_edge.engines.base import QdqForm
from libra_edge.errors import IncompatibleError
from libra_edge.policy.checkpoint import Checkpoint
from libra_edge.policy.layers import ImageTokens
from libra_edge.policy.model import LibraVLA

BATCH = 16
# What passes through a layer is looked at on this part of the calibration data.
WATCH_EVERY = 4
_SMALLEST: dict[type[nn.Module], float] = {nn.GELU: -0.17, nn.SiLU: -0.2785}
# How ModelOpt writes a number's format: bits, or exponent and mantissa bits.
_BITS: dict[Number, Any] = {"int8": 8, "int4": 4, "fp8": (4, 3)}
# The longest name that matches decides.
_PARTS: dict[str, PartName | None] = {
    "planner.backbone": "planner.backbone",
    "planner.backbone.state": "embeddings",
    "planner.blocks": "planner.head",
    "planner.output": "outputs",
    "refiner.images": "refiner.encoder",
    "refiner.encoder": "refiner.encoder",
    "refiner.state": "embeddings",
    "refiner.noisy": "embeddings",
    "refiner.blocks": "refiner.blocks",
    "refiner.output": "outputs",
    # Evaluated while compiling: learned queries and rows of a table, no layers of any graph.
    "planner.blocks.0.attention.query": None,
    "refiner.time": None,
    "refiner.modulate": None,
}
# Of these there is a form in standard ONNX that engines take.
_WRITTEN = frozenset({"fp32", "fp16", "int8", "int8-weights", "int4-weights", "fp8", "int4-fp8"})
Precisions = Mapping[str, LayerPrecision]


@dataclass(frozen=True)
class Quantised:
    """A policy with quantised layers, and why each layer is as it is.

    precisions: of every layer that could be quantised; ranges: what calibration found; reasons:
    why a layer is not as the recipe says.
    """

    policy: LibraVLA
    precisions: Precisions
    ranges: Mapping[str, Ranges]
    reasons: Mapping[str, str] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """Hash of every integer, scale and float that the graphs will hold."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.policy.state_dict().items()):
            content = tensor.reshape(-1).contiguous().view(torch.uint8)
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(content.numpy().tobytes())
        return digest.hexdigest()


def layers(policy: LibraVLA) -> dict[str, PartName]:
    """Every layer that can be quantised and its part; an image stem counts as one layer."""
    found: dict[str, PartName] = {}
    for name, module in policy.named_modules():
        part = _part(name)
        if part is not None and isinstance(module, nn.Linear | ImageTokens):
            found[name] = part
    return found


def _part(name: str) -> PartName | None:
    prefixes = [prefix for prefix in _PARTS if f"{name}.".startswith(f"{prefix}.")]
    return _PARTS[max(prefixes, key=len)] if prefixes else None


def choose_precisions(policy: LibraVLA, recipe: Recipe, form: QdqForm) -> Precisions:
    """What the recipe makes of every layer that it can be made of.

    Raises:
        InputError: the recipe keeps a layer that is not there.
    """
    recipe.require_layers(layers(policy))
    left = left_out(policy, recipe, form)
    parts = layers(policy).items()
    return {name: HIGH if name in left else recipe.layer(name, part) for name, part in parts}


def left_out(policy: LibraVLA, recipe: Recipe, form: QdqForm) -> dict[str, str]:
    """Layers that stay in high precision against the recipe, and why."""
    reasons = {}
    for name, part in layers(policy).items():
        precision, module = recipe.layer(name, part), policy.get_submodule(name)
        if precision.high:
            continue
        if isinstance(module, ImageTokens):
            integers = precision == LayerPrecision(weights="int8", activations="int8")
            if not (integers and form.images_in_integers):
                reasons[name] = f"there are no convolutions of {precision} in this engine's form"
        elif precision.weights == "int4":
            assert isinstance(module, nn.Linear)
            if fills_blocks(module.in_features, recipe.block):
                continue
            reasons[name] = f"its inputs are not two or more blocks of {recipe.block}"
    return reasons


def require_calibration_runs_here(recipe: Recipe) -> None:
    """Refuse a recipe that this compiler or this machine cannot carry out.

    Raises:
        IncompatibleError: it needs a CUDA GPU, or a way to write graphs that is not there yet.
    """
    if recipe.needs_gpu and not torch.cuda.is_available():
        raise IncompatibleError(
            "recipe-needs-gpu",
            f"Recipe {recipe.name!r} is calibrated on a CUDA GPU, and this machine has none.",
            "Compile on a machine with one, or choose --recipe int8 or fp8.",
        )
    if missing := ", ".join(sorted(recipe.needs - _WRITTEN)):
        raise IncompatibleError(
            "recipe-not-compiled",
            f"Recipe {recipe.name!r} ({missing}) cannot be written as a graph yet.",
            f"Choose a recipe of {', '.join(sorted(_WRITTEN))}.",
        )


def quantise(
    checkpoint: Checkpoint,
    recipe: Recipe,
    data: CalibrationData,
    form: QdqForm,
    cache: StageCache,
    precisions: Precisions | None = None,
) -> Quantised:
    """Calibrate and convert.

    Args:
        checkpoint: what to quantise.
        recipe: how.
        data: what to calibrate on.
        form: the engine kind's way to write quantised layers.
        cache: keeps the ranges.
        precisions: of each layer; None as the recipe says.
    """
    wanted = choose_precisions(checkpoint.policy, recipe, form)
    ranges = calibrate(checkpoint, recipe, wanted, data, cache)
    chosen = wanted if precisions is None else precisions
    policy = convert(checkpoint.policy, ranges, chosen, form)
    return Quantised(policy, chosen, ranges, left_out(checkpoint.policy, recipe, form))


def in_half(checkpoint: Checkpoint) -> Quantised:
    """Every layer in 16-bit floats, which needs no ranges."""
    policy = checkpoint.policy
    return Quantised(halve(policy), dict.fromkeys(layers(policy), HALF), {})


def calibrate(
    checkpoint: Checkpoint,
    recipe: Recipe,
    precisions: Precisions,
    data: CalibrationData,
    cache: StageCache,
) -> dict[str, Ranges]:
    """The ranges of every layer that changes; kept by weights, recipe, data and code."""
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


def convert(
    policy: LibraVLA,
    ranges: Mapping[str, Ranges],
    precisions: Precisions,
    form: QdqForm,
) -> LibraVLA:
    """A copy of the policy with the layers that `precisions` quantises replaced."""
    result = copy.deepcopy(policy).eval()
    for name, precision in precisions.items():
        if not precision.high:
            new = quantised_layer(policy, name, ranges, precision, form)
            replace_layer(result, name, new)
    if form.flat:
        flatten_blocks(result)
    return result.eval()


def quantised_layer(
    policy: LibraVLA,
    name: str,
    ranges: Mapping[str, Ranges],
    precision: LayerPrecision,
    form: QdqForm,
) -> nn.Module:
    """What stands for one layer of the policy when it is quantised."""
    module = policy.get_submodule(name)
    if isinstance(module, ImageTokens):
        stem = [ranges[conv] for conv in _convolutions(name, module)]
        width = policy.config.embodiment.image_width
        return QuantisedImageTokens(module, stem, form, width).eval()
    assert isinstance(module, nn.Linear)
    return QuantisedLinear(module, ranges[name], precision, form).eval()


def replace_layer(policy: LibraVLA, name: str, new: nn.Module) -> None:
    """Put a module in a layer's place."""
    parent, _, own = name.rpartition(".")
    setattr(policy.get_submodule(parent), own, new)


def _convolutions(name: str, tokens: ImageTokens) -> list[str]:
    return [f"{name}.stem.{i}" for i, m in enumerate(tokens.stem) if isinstance(m, nn.Conv2d)]


def _calibrate(
    policy: LibraVLA, recipe: Recipe, precisions: Precisions, data: CalibrationData
) -> dict[str, Ranges]:
    with warnings.catch_warnings():
        # Its warnings are about optional packages.
        warnings.simplefilter("ignore")
        import modelopt.torch.quantization as mtq
    model = copy.deepcopy(policy)
    names = _modelopt_layers(policy, precisions)
    config = _modelopt_config(recipe, names)
    # It narrates on stdout, where results belong.
    with torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
        if recipe.algorithm in ("percentile", "entropy"):
            mtq.quantize(model, {**config, "algorithm": None})
            _collect(model, recipe, data)
        else:
            mtq.quantize(model, config, forward_loop=lambda m: run(m, data))
    ranges = {n: _read(model.get_submodule(n), _floor(policy, n)) for n in sorted(names)}
    convolutions = [name for name in ranges if ".stem." in name]
    rounded = [name for name in ranges if names[name].activations == "int8"]
    two_ended = {"max": whole_inputs, "mse": search_inputs}.get(recipe.algorithm)
    watched = set(rounded if two_ended else []).union(convolutions)
    seen = watch(policy, sorted(watched), lambda m: run(m, data[::WATCH_EVERY]))
    ranges |= {name: of_convolution(ranges[name], seen.pop(name)) for name in convolutions}
    return two_ended(ranges, seen) if two_ended else ranges


def _modelopt_layers(policy: LibraVLA, precisions: Precisions) -> dict[str, LayerPrecision]:
    """The modules to calibrate; a stem counts as its convolutions here."""
    found: dict[str, LayerPrecision] = {}
    for name, precision in precisions.items():
        module = policy.get_submodule(name)
        names = _convolutions(name, module) if isinstance(module, ImageTokens) else [name]
        if not precision.high:
            found |= dict.fromkeys(names, precision)
    return found


def _modelopt_config(recipe: Recipe, names: Mapping[str, LayerPrecision]) -> dict[str, Any]:
    rules: list[dict[str, Any]] = [{"quantizer_name": "*", "enable": False}]
    histogram = recipe.algorithm in ("percentile", "entropy")
    activation = {"axis": None, **({"calibrator": "histogram"} if histogram else {})}
    for name, precision in names.items():
        weights = {"num_bits": _BITS[precision.weights], "axis": 0}
        if precision.weights == "int4":
            weights = {"num_bits": 4, "block_sizes": {-1: recipe.block, "type": "static"}}
        rules.append({"quantizer_name": f"{name}.weight_quantizer", "cfg": weights})
        if precision.activations != "fp32":
            cfg = {"num_bits": _BITS[precision.activations], **activation}
            rules.append({"quantizer_name": f"{name}.input_quantizer", "cfg": cfg})
    methods: dict[str, Any] = {
        "awq": {"method": "awq_lite", "alpha_step": 0.1},
        "smoothquant": {"method": "smoothquant", "alpha": 0.5},
    }
    return {"quant_cfg": rules, "algorithm": methods.get(recipe.algorithm, "max")}


def _collect(model: nn.Module, recipe: Recipe, data: CalibrationData) -> None:
    """Histograms of inputs; of weights the largest value."""
    from modelopt.torch.quantization.model_calib import enable_stats_collection
    from modelopt.torch.quantization.nn import TensorQuantizer

    enable_stats_collection(model)
    run(model, data)
    options = {"percentile": recipe.percentile} if recipe.algorithm == "percentile" else {}
    for name, module in model.named_modules():
        if isinstance(module, TensorQuantizer) and module.is_enabled:
            if not name.endswith("input_quantizer"):
                module.load_calib_amax()
            else:
                module.load_calib_amax(recipe.algorithm, **options)
            module.enable_quant()
            module.disable_calib()


def _floor(policy: LibraVLA, name: str) -> float | None:
    """The smallest value that the activation function before a layer gives, if there is one."""
    parent, _, own = name.rpartition(".")
    sequence = policy.get_submodule(parent)
    if not isinstance(sequence, nn.Sequential) or own == "0":
        return None
    return _SMALLEST.get(type(sequence[int(own) - 1]))


def _read(module: Any, floor: float | None) -> Ranges:
    """What one calibrated ModelOpt module knows."""

    def amax(quantiser: Any) -> Tensor | None:
        enabled = quantiser is not None and quantiser.is_enabled
        return quantiser.amax.detach().flatten().clone() if enabled else None

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

    The refiner runs its whole denoising loop from fresh noise, once on recorded intents and once
    on the planner's own, as the activations of late steps and of wrong plans differ.
    """
    assert isinstance(model, LibraVLA)
    for begin in range(0, len(data), BATCH):
        batch = data[begin : begin + BATCH]
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
