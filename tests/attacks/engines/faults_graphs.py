"""Faults of the graphs: cameras and sensors, planner, weights, refiner, actions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import helper

from tests.attacks.engines.faults import Case, fault
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

# What the cameras and sensors hand over.


@fault
def two_cameras_swapped(case: Case) -> None:
    for model in case.both:
        gather(model, "images", 0, np.roll(np.arange(case.cameras), 1))


@fault
def one_camera_twice(case: Case) -> None:
    for model in case.both:
        gather(model, "images", 0, [0] * case.cameras)


@fault
def cameras_swapped_for_the_refiner_alone(case: Case) -> None:
    gather(case.refiner, "images", 0, np.roll(np.arange(case.cameras), 1))


@fault
def blue_for_red(case: Case) -> None:
    for model in case.both:
        gather(model, "images", 3, [2, 1, 0])


@fault
def images_upside_down(case: Case) -> None:
    for model in case.both:
        gather(model, "images", 1, np.arange(case.manifest.embodiment.image_height)[::-1])


@fault
def images_shifted_by_a_pixel(case: Case) -> None:
    width = case.manifest.embodiment.image_width
    for model in case.both:
        gather(model, "images", 2, np.clip(np.arange(width) + 1, 0, width - 1))


@fault
def wrong_image_statistics(case: Case) -> None:
    for model in case.both:
        # Not one factor for all: the stem's group normalisation would take it out again.
        std = tensor(model, "images.std")
        store(std, values(std) * np.array([1.0, 1.2, 0.8]))


@fault
def wrong_state_statistics(case: Case) -> None:
    for model in case.both:
        scale = tensor(model, "state.scale")
        store(scale, values(scale) * 1.5)


@fault
def state_dimensions_swapped(case: Case) -> None:
    count = len(case.manifest.embodiment.state)
    for model in case.both:
        gather(model, "state", 0, np.roll(np.arange(count), 1))


@fault
def state_of_the_refiner_in_other_units(case: Case) -> None:
    multiply(case.refiner, "state", 1000.0)


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


@fault
def layers_of_the_denoiser_swapped(case: Case) -> None:
    first, second = (weight(case.refiner, f"blocks.{i}.mlp.0") for i in (0, 1))
    kept = values(first)
    store(first, values(second))
    store(second, kept)


# The refiner and its loop.


@fault
def refiner_ignores_the_intents(case: Case) -> None:
    multiply(case.refiner, "intent", 0, np.int32)


@fault
def intents_shifted_by_one_step(case: Case) -> None:
    steps = [*range(1, case.chunk), case.chunk - 1]
    gather(case.refiner, "intent", 0, steps)


@fault
def wrong_noise_order(case: Case) -> None:
    gather(case.refiner, "noise", 0, np.arange(case.chunk)[::-1])


@fault
def noise_of_another_size(case: Case) -> None:
    multiply(case.refiner, "noise", 0.9)


def _rows(case: Case, change: Callable[[np.ndarray], np.ndarray]) -> None:
    table = tensor(case.refiner, "loop/table")
    store(table, change(values(table)))


def _sampler_columns(case: Case) -> int:
    """How many of a row's last columns are the sampler's; the rest is adaLN modulation."""
    sizes = values(tensor(case.refiner, "loop/sizes"))
    return int(sum(size for size in sizes if size == 1))


@fault
def a_step_is_missing(case: Case) -> None:
    count = tensor(case.refiner, "loop/count")
    store(count, values(count) - 1)


@fault
def steps_in_reverse(case: Case) -> None:
    _rows(case, lambda table: table[::-1])


@fault
def modulation_of_another_step(case: Case) -> None:
    samplers = _sampler_columns(case)

    def shift(table: np.ndarray) -> np.ndarray:
        table[:, :-samplers] = np.roll(table[:, :-samplers], 1, axis=0)
        return table

    _rows(case, shift)


@fault
def wrong_denoising_table(case: Case) -> None:
    samplers = _sampler_columns(case)

    def scale(table: np.ndarray) -> np.ndarray:
        table[:, -samplers:] *= 1.02
        return table

    _rows(case, scale)


@fault
def stale_keys_and_values(case: Case) -> None:
    graph = case.refiner.graph
    body = next(g for g in bodies(graph) if g.name == "step")
    for node in body.node:
        node.input[:] = [
            "context.value.0" if each == "context.value.1" else each for each in node.input
        ]


@fault
def refiner_of_another_checkpoint(case: Case) -> None:
    case.refiner.CopyFrom(case.other_refiner)


# Actions.


@fault
def action_dimensions_permuted(case: Case) -> None:
    inner = rename_output(case.refiner, "actions")
    index = constant(case.refiner.graph, "harm.order", np.roll(np.arange(case.dims), 1), np.int64)
    case.refiner.graph.node.append(helper.make_node("Gather", [inner, index], ["actions"], axis=1))


@fault
def gripper_sign(case: Case) -> None:
    scale = tensor(case.refiner, "action/scale")
    signs = [-1.0 if dim.kind == "gripper" else 1.0 for dim in case.manifest.embodiment.actions]
    store(scale, values(scale) * np.array(signs))


@fault
def statistics_of_another_robot(case: Case) -> None:
    offset = tensor(case.refiner, "action/offset")
    store(offset, values(offset) + 0.02)


@fault
def actions_one_step_late(case: Case) -> None:
    inner = rename_output(case.refiner, "actions")
    late = constant(case.refiner.graph, "harm.late", [0, *range(case.chunk - 1)], np.int64)
    case.refiner.graph.node.append(helper.make_node("Gather", [inner, late], ["actions"], axis=0))
