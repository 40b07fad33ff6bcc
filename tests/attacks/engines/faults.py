"""The fault catalogue: what can go wrong between a policy and its release, one function each.

A fault harms the graphs, the members or the manifest of a good release; the release is then made
anew around them, with golden vectors from the faulty engines, so that hashes and golden vectors
agree with the fault and only the comparison with the checkpoint can tell.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper

from libra_edge.bundle.manifest import Manifest
from tests.attacks.engines.runtime_faults import RUNTIME_FAULTS
from tests.attacks.engines.surgery import (
    after,
    bodies,
    constant,
    gather,
    multiply,
    product,
    rename_output,
    store,
    tensor,
    values,
    weight,
)


@dataclass
class Case:
    """A release in the making.

    planner, refiner: the plain graphs, the refiner's as a Loop; other_planner, other_refiner: of
    a policy with other weights; facts: replaces fields of the manifest; members: replaces files;
    sources: text of the runtime's sources to replace, by file.
    """

    manifest: Manifest
    planner: ModelProto
    refiner: ModelProto
    other_planner: ModelProto
    other_refiner: ModelProto
    random: np.random.Generator
    facts: dict[str, Any] = field(default_factory=dict)
    members: dict[str, bytes] = field(default_factory=dict)
    sources: dict[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def cameras(self) -> int:
        return len(self.manifest.embodiment.cameras)

    @property
    def dims(self) -> int:
        return len(self.manifest.embodiment.actions)

    @property
    def chunk(self) -> int:
        return self.manifest.policy.chunk

    @property
    def both(self) -> tuple[ModelProto, ModelProto]:
        return self.planner, self.refiner


Fault = Callable[[Case], None]
FAULTS: dict[str, Fault] = {}
# Where bisecting must find a fault: graph, denoising step, and words of the culprit.
PLACES: dict[str, tuple[str, int | None, str]] = {
    "transposed weight": ("planner", None, "planner.backbone.blocks.0.attention.output"),
    "word embeddings of the next word": ("planner", None, "planner.backbone.words"),
    "bias of one logit": ("planner", None, "planner.output"),
    "zeroed attention head": ("refiner", None, "refiner.encoder.0.attention.output"),
    "scale off by two": ("refiner", 0, "refiner.blocks.0.mlp.0"),
    "layers of the denoiser swapped": ("refiner", 0, "refiner.blocks.0.mlp.0"),
    "one bit of one weight": ("refiner", 0, "refiner.blocks.1.mlp.2"),
    "modulation of another step": ("refiner", 0, "0/loop/row"),
    "a step is missing": ("refiner", None, "denoising steps, the policy takes"),
}


def fault(function: Fault) -> Fault:
    """Put a fault into the catalogue under its name."""
    FAULTS[function.__name__.replace("_", " ")] = function
    return function


# What the cameras and sensors hand over.


# The planner.


@fault
def planner_ignores_the_instruction(case: Case) -> None:
    multiply(case.planner, "instruction", 0, np.int64)


@fault
def words_in_another_order(case: Case) -> None:
    count = case.manifest.policy.instruction_length
    gather(case.planner, "instruction", 0, np.arange(count)[::-1])


@fault
def word_embeddings_of_the_next_word(case: Case) -> None:
    words = tensor(case.planner, "backbone.words.weight")
    store(words, np.roll(values(words), 1, axis=0))


@fault
def planner_off_by_one_bin(case: Case) -> None:
    graph = case.planner.graph
    inner = rename_output(case.planner, "intent")
    one = constant(graph, "harm.one", 1, np.int32)
    last = constant(graph, "harm.last", case.manifest.policy.bins - 1, np.int32)
    graph.node.append(helper.make_node("Add", [inner, one], ["harm.more"]))
    graph.node.append(helper.make_node("Min", ["harm.more", last], ["intent"]))


@fault
def plan_shifted_by_one_step(case: Case) -> None:
    graph, steps = case.planner.graph, case.manifest.policy.plan_steps
    inner = rename_output(case.planner, "intent")
    later = constant(graph, "harm.later", [*range(1, steps), steps - 1], np.int64)
    graph.node.append(helper.make_node("Gather", [inner, later], ["intent"], axis=0))


@fault
def bias_of_one_logit(case: Case) -> None:
    bias = tensor(case.planner, "planner.output.bias")
    changed = values(bias)
    changed[0] += 10.0
    store(bias, changed)


@fault
def planner_of_another_checkpoint(case: Case) -> None:
    case.planner.CopyFrom(case.other_planner)


# Weights.


@fault
def transposed_weight(case: Case) -> None:
    square = weight(case.planner, "backbone.blocks.0.attention.output")
    store(square, values(square).T)


@fault
def zeroed_attention_head(case: Case) -> None:
    out = weight(case.refiner, "encoder.0.attention.output")
    changed = values(out)
    changed[: len(changed) // 2] = 0.0
    store(out, changed)


@fault
def scale_off_by_two(case: Case) -> None:
    matrix = weight(case.refiner, "blocks.0.mlp.0")
    store(matrix, values(matrix) * 2.0)


@fault
def one_bit_of_one_weight(case: Case) -> None:
    matrix = weight(case.refiner, "blocks.1.mlp.2")
    changed = values(matrix)
    bits = changed.reshape(-1).view(np.uint32)
    # The highest bit of the exponent.
    bits[int(case.random.integers(len(bits)))] ^= np.uint32(1 << 30)
    store(matrix, np.nan_to_num(changed, posinf=3e38, neginf=-3e38))


@fault
def weights_rounded_behind_the_manifest(case: Case) -> None:
    for name in ("blocks.0.mlp.0", "blocks.1.mlp.0"):
        matrix = weight(case.refiner, name)
        bits = values(matrix).view(np.uint32)
        store(matrix, (bits & np.uint32(0xFFFF0000)).view(np.float32))


@fault
def position_embedding_lost(case: Case) -> None:
    position = tensor(case.refiner, "refiner.images.position")
    store(position, np.zeros_like(values(position)))


@fault
def sixteen_bit_overflow_in_one_layer(case: Case) -> None:
    node = product(case.refiner, "encoder.0.mlp.0")
    graph = next(g for g in bodies(case.refiner.graph) if node in g.node)
    name = node.output[0]
    # Activations of a trained network's few outlying channels, as fp16 would leave them.
    bound = constant(graph, "harm.largest", 0.5, np.float32)
    floor = constant(graph, "harm.smallest", -0.5, np.float32)
    after(graph, name, [helper.make_node("Clip", [name, floor, bound], ["harm.clip"])], "harm.clip")


# The refiner and its loop.


# Actions.


# Numbers that are none, for inputs that no dataset holds.


def _poison(model: ModelProto, seen: str, output: str, comparison: str, bound: float) -> None:
    """NaN in `output` where the largest value of an input is beyond (or below) `bound`."""
    graph = model.graph
    inner = rename_output(model, output)
    limit = constant(graph, "harm.bound", bound, np.float32)
    nothing = constant(graph, "harm.nan", np.nan, np.float32)
    graph.node.extend(
        [
            helper.make_node("Cast", [seen], ["harm.seen"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMax", ["harm.seen"], ["harm.most"], keepdims=0),
            helper.make_node(comparison, ["harm.most", limit], ["harm.rare"]),
            helper.make_node("Where", ["harm.rare", nothing, inner], [output]),
        ]
    )


@fault
def nan_far_out_of_range(case: Case) -> None:
    _poison(case.refiner, "state", "actions", "Greater", 100.0)


@fault
def margin_that_is_no_number_far_out_of_range(case: Case) -> None:
    _poison(case.planner, "state", "margin", "Greater", 100.0)


@fault
def nan_in_the_dark(case: Case) -> None:
    _poison(case.refiner, "images", "actions", "Less", 0.5)


# What the release says of itself.


@fault
def wider_limits_in_the_manifest(case: Case) -> None:
    body = case.manifest.embodiment
    wider = [
        dim.model_copy(update={"upper": dim.upper * 10, "lower": dim.lower * 10})
        for dim in body.actions
    ]
    case.facts["embodiment"] = body.model_copy(update={"actions": tuple(wider)})


@fault
def camera_names_swapped(case: Case) -> None:
    body = case.manifest.embodiment
    case.facts["embodiment"] = body.model_copy(update={"cameras": body.cameras[::-1]})


@fault
def chunks_and_steps_mixed_up(case: Case) -> None:
    policy = case.manifest.policy
    case.facts["policy"] = policy.model_copy(update={"bins": policy.bins + 1})


@fault
def vocabulary_in_another_order(case: Case) -> None:
    words = case.members["tokenizer.json"].decode()
    case.members["tokenizer.json"] = (
        words.replace("open", "\0").replace("close", "open").replace("\0", "close").encode()
    )


# The native runtime: its engines may be right and be used wrongly.


def _of_the_runtime(file: str, right: str, wrong: str) -> Fault:
    def apply(case: Case) -> None:
        case.sources[file] = (right, wrong)

    return apply


FAULTS |= {name: _of_the_runtime(*line) for name, line in RUNTIME_FAULTS.items()}
