"""Faults of the denoising loop, its tables, and the actions it ends in."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import helper

from tests.attacks.engines.faults import Case, fault
from tests.attacks.engines.surgery import (
    bodies,
    constant,
    gather,
    multiply,
    rename_output,
    store,
    tensor,
    values,
    weight,
)


@fault
def layers_of_the_denoiser_swapped(case: Case) -> None:
    first, second = (weight(case.refiner, f"blocks.{i}.mlp.0") for i in (0, 1))
    kept = values(first)
    store(first, values(second))
    store(second, kept)


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
