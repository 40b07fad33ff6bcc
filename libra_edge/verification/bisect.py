"""Where does a wrong engine first go wrong? Tensor by tensor, through every denoising step.

Both graphs, the policy's and the release's, are run with all their inner values visible, the loop
unrolled. The culprit is the first operator whose output differs far more than its inputs do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import GraphProto, ModelProto, NodeProto, helper

from libra_edge.atomic import new_directory
from libra_edge.bundle.verify import open_release
from libra_edge.compiler.import_folder import read_any
from libra_edge.errors import InputError
from libra_edge.parity.samples import Sample, choose_samples
from libra_edge.verification.claims.recipe import read_shown
from libra_edge.verification.recompile import graphs_again, require_same_ranges
from libra_edge.verification.request import Request
from libra_edge.verification.unrolled_graphs import trips, unrolled

Array = npt.NDArray[Any]
Values = Mapping[str, Array]
# Below this a difference is rounding; and a jump is a multiple of what came in.
SMALLEST_ERROR = 1e-3
JUMP = 10.0
BISECT_SAMPLES = 8
# What a layer's tensors are called after it, plain or quantised.
_TENSOR_OF_A_LAYER = re.compile(r"(\.(weight|bias|input))?(\.(stored|scale|zeros?))?$")


@dataclass(frozen=True)
class Culprit:
    """The first operator that does not do what the policy does.

    graph: planner or refiner; tensor: what it makes; operator: its ONNX type; layer: the policy's
    name for it, as far as its weights tell; step: denoising step, or None outside the loop; error:
    largest difference of its output, in shares of the largest value; error_in: of its inputs.
    """

    graph: str
    tensor: str
    operator: str
    layer: str
    step: int | None
    error: float
    error_in: float

    def __str__(self) -> str:
        where = self.graph if self.step is None else f"{self.graph}, denoising step {self.step}"
        layer = f" of {self.layer}" if self.layer else ""
        return (
            f"{where}: {self.operator}{layer} ({self.tensor}) is off by {self.error:.2g} of its "
            f"largest value, its inputs by {self.error_in:.2g}"
        )


def release_culprits(request: Request, out: Path) -> list[Culprit]:
    """Bisect both graphs of a release against those compiled from its checkpoint.

    Those of a quantised release are compiled again with its recipe, its kept layers and its
    calibration data, so that both are the same but for the fault.

    Args:
        request: the verification that failed.
        out: folder for a repro per graph.

    Raises:
        InputError: there is no checkpoint, or not the calibration data that it takes.
    """
    if request.checkpoint is None:
        raise InputError(
            "bisect-needs-checkpoint",
            "Without the checkpoint there is nothing to hold the graphs against.",
            "Add --checkpoint CHECKPOINT.",
        )
    release = open_release(request.release)
    loaded = read_any(
        request.checkpoint,
        robot=request.robot,
        data=request.data,
        tokenizer=request.tokenizer,
        vlm_config=request.vlm_config,
    )
    config, manifest = loaded.config, release.manifest
    recipe = read_shown(release).best(manifest.recipe)
    again = graphs_again(manifest, recipe, loaded, request, lambda stage: None)
    require_same_ranges(manifest, again.quantized)
    front = again.front
    samples = choose_samples(
        config.embodiment, config, loaded.tokenizer, BISECT_SAMPLES, request.seed, request.data
    )
    refiner = front.refiners[manifest.engines.refiner.form]
    feeds: dict[str, tuple[bytes, list[dict[str, Array]]]] = {}
    if front.planner is None:
        feeds["refiner"] = (refiner, [whole_feeds(refiner, sample) for sample in samples])
    else:
        planner = _session(front.planner)
        plans = [planner.run(["intent"], planner_feeds(sample))[0] for sample in samples]
        feeds["planner"] = (front.planner, [planner_feeds(sample) for sample in samples])
        pairs = zip(samples, plans, strict=True)
        feeds["refiner"] = (refiner, [refiner_feeds(sample, plan) for sample, plan in pairs])
    found = [
        bisect(
            name, reference, release.member(f"engines/{name}.onnx").read_bytes(), inputs, out / name
        )
        for name, (reference, inputs) in feeds.items()
    ]
    return [culprit for culprit in found if culprit is not None]


def culprits_in_words(out: str, **request: Any) -> dict[str, list[str]]:
    """`release_culprits` for a process of its own: arguments and answer as JSON knows them.

    Args:
        out: folder for a repro per graph.
        request: fields of `Request`; paths as text.
    """
    return {"culprits": [str(one) for one in release_culprits(Request(**request), Path(out))]}


def planner_feeds(sample: Sample) -> dict[str, Array]:
    """A sample's inputs of the planner graph."""
    return {"images": sample.images, "instruction": sample.instruction, "state": sample.state}


def refiner_feeds(sample: Sample, intent: Array) -> dict[str, Array]:
    """A sample's inputs of the refiner graph, with the plan [L, D] it refines."""
    part = intent[sample.part * len(sample.noise) :][: len(sample.noise)]
    return {
        "images": sample.images,
        "state": sample.state,
        "intent": part,
        "noise": sample.noise,
    }


def whole_feeds(graph: bytes, sample: Sample) -> dict[str, Array]:
    """A sample's inputs of the one graph of a policy without a planner."""
    known: dict[str, Array] = {
        "images": sample.images,
        "instruction": sample.instruction,
        "state": sample.state,
        "noise": sample.noise,
    }
    return {value.name: known[value.name] for value in onnx.load_from_string(graph).graph.input}


def bisect(
    name: str, reference: bytes, candidate: bytes, feeds: Sequence[Values], out: Path | None = None
) -> Culprit | None:
    """Compare two graphs on the sample on which they differ most.

    Args:
        name: planner or refiner.
        reference: the policy's graph, as compiled from the checkpoint.
        candidate: the release's.
        feeds: inputs of several samples.
        out: folder for a repro that `polygraphy run` takes, or None.

    Returns:
        The culprit, or None where no value differs.
    """
    wanted, found = (unrolled(onnx.load_from_string(model)) for model in (reference, candidate))
    steps = [_steps(onnx.load_from_string(model).graph) for model in (reference, candidate)]
    worst = max(feeds, key=lambda one: _end_error(reference, candidate, one))
    expected, traced = trace(wanted, worst), trace(found, worst)
    culprit = _first_jump(name, found.graph, expected, traced)
    if steps[0] != steps[1]:
        words = f"{steps[1]} denoising steps, the policy takes {steps[0]}"
        culprit = Culprit(name, "loop/count", "Loop", words, None, 1.0, 0.0)
    elif culprit is not None and out is not None:
        _write_repro(out, found, culprit, expected, {**worst, **traced})
    return culprit


def trace(model: ModelProto, feeds: Values) -> dict[str, Array]:
    """Every value of a graph without loops, in the order it is made."""
    shown = ModelProto()
    shown.CopyFrom(model)
    names = [name for node in model.graph.node for name in node.output if name]
    del shown.graph.output[:]
    shown.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    return dict(
        zip(names, _session(shown.SerializeToString()).run(names, dict(feeds)), strict=True)
    )


def _steps(graph: GraphProto) -> int | None:
    """Trips of the graph's loop; None where it has none."""
    loops = [node for node in graph.node if node.op_type == "Loop"]
    return trips(loops[0], graph) if loops else None


def _first_jump(name: str, graph: GraphProto, expected: Values, traced: Values) -> Culprit | None:
    errors: dict[str, float] = {}
    worst: Culprit | None = None
    for node in graph.node:
        error_in = max((errors.get(each, 0.0) for each in node.input), default=0.0)
        for tensor in filter(None, node.output):
            known = tensor in expected and expected[tensor].shape == traced[tensor].shape
            # What the policy does not have is as wrong as what it is made of.
            error = _error(expected[tensor], traced[tensor]) if known else error_in
            errors[tensor] = error
            culprit = Culprit(
                name, tensor, node.op_type, _layer(node, graph), _step(tensor), error, error_in
            )
            if error > SMALLEST_ERROR and error > JUMP * error_in:
                return culprit
            if error > SMALLEST_ERROR and (worst is None or error > worst.error):
                worst = culprit
    return worst


def _error(expected: Array, found: Array) -> float:
    """Largest difference as a share of the largest expected value; infinite where not finite."""
    a, b = expected.astype(np.float64), found.astype(np.float64)
    if a.size == 0 or np.array_equal(a, b):
        return 0.0
    if not np.isfinite(b).all():
        return float("inf")
    return float(np.abs(a - b).max() / (np.abs(a).max() + 1e-6))


def _end_error(reference: bytes, candidate: bytes, feeds: Values) -> float:
    wanted, found = (_session(m).run(None, dict(feeds)) for m in (reference, candidate))
    return max(_error(a, b) for a, b in zip(wanted, found, strict=True))


def _layer(node: NodeProto, graph: GraphProto) -> str:
    """The policy's name of a layer: that of the weights it reads, less what graphs add."""
    weights = {tensor.name for tensor in graph.initializer}
    named = [each for each in node.input if each in weights and "." in each]
    for name in named:
        plain: str = name.rpartition("/")[2].removeprefix("policy.")
        if not plain.startswith("_"):
            return _TENSOR_OF_A_LAYER.sub("", plain)
    return ""


def _step(tensor: str) -> int | None:
    first, separator, _ = tensor.partition("/")
    return int(first) if separator and first.isdecimal() else None


def _session(model: bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _write_repro(
    out: Path, model: ModelProto, culprit: Culprit, expected: Values, values: Values
) -> None:
    """The one operator as a model, its inputs, and what the policy would have made of them."""
    from polygraphy.json import save_json

    node = next(each for each in model.graph.node if culprit.tensor in each.output)
    weights = [tensor for tensor in model.graph.initializer if tensor.name in node.input]
    fixed = {tensor.name for tensor in weights}
    inputs = {each: values[each] for each in node.input if each and each not in fixed}
    outputs = [each for each in node.output if each]
    graph = helper.make_graph(
        [node],
        "repro",
        [_info(name, array) for name, array in inputs.items()],
        [_info(name, values[name]) for name in outputs],
        weights,
    )
    repro = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    with new_directory(out) as folder:
        onnx.save(repro, folder / "repro.onnx")
        save_json([inputs], str(folder / "inputs.json"))
        right = {name: expected[name] for name in outputs if name in expected}
        save_json([right], str(folder / "expected.json"))
        words = (
            f"{culprit}\n\npolygraphy run repro.onnx --onnxrt --load-inputs inputs.json\n"
            "expected.json holds what the policy's own graph makes at this place.\n"
        )
        (folder / "README.txt").write_text(words, encoding="utf-8")


def _info(name: str, array: Array) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(
        name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
    )
