"""Faults that wait for an input: a word, a length, a light, a pose that data seldom holds."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, TensorProto, helper

from tests.attacks.engines.faults import Case, fault
from tests.attacks.engines.surgery import (
    after,
    constant,
    gather,
    rename_output,
    store,
    tensor,
    values,
)


def _embedding(case: Case, word: int, other: int | None) -> None:
    """A word's embedding replaced by another's, or by nothing."""
    words = tensor(case.planner, "backbone.words.weight")
    changed = values(words)
    changed[word] = 0.0 if other is None else changed[other]
    store(words, changed)


@fault
def unknown_word_reads_as_padding(case: Case) -> None:
    _embedding(case, 1, 0)


@fault
def the_last_word_forgotten(case: Case) -> None:
    _embedding(case, -1, None)


@fault
def one_word_read_as_its_neighbour(case: Case) -> None:
    _embedding(case, 3, 4)


@fault
def words_beyond_the_fourth_cut(case: Case) -> None:
    graph, length = case.planner.graph, case.manifest.policy.instruction_length
    mask = constant(
        graph, "harm.mask", [1] * min(4, length - 1) + [0] * (length - min(4, length - 1)), np.int64
    )
    made = helper.make_node("Mul", ["instruction", mask], ["harm.short"])
    after(graph, "instruction", [made], "harm.short")


@fault
def position_of_the_last_word_lost(case: Case) -> None:
    position = tensor(case.planner, "word_position")
    changed = values(position)
    changed[-1] = 0.0
    store(position, changed)


def _pictures(model: ModelProto, operators: list[tuple[str, list[float]]]) -> None:
    """Pictures through some operators and back to bytes."""
    graph, name = model.graph, "harm.float"
    made = [helper.make_node("Cast", ["images"], [name], to=TensorProto.FLOAT)]
    for i, (operator, numbers) in enumerate(operators):
        fixed = [
            constant(graph, f"harm.{i}.{j}", value, np.float32) for j, value in enumerate(numbers)
        ]
        made.append(helper.make_node(operator, [name, *fixed], [f"harm.seen.{i}"]))
        name = f"harm.seen.{i}"
    made.append(helper.make_node("Cast", [name], ["harm.bytes"], to=TensorProto.UINT8))
    after(graph, "images", made, "harm.bytes")


@fault
def bright_pixels_clipped(case: Case) -> None:
    for model in case.both:
        _pictures(model, [("Min", [240.0])])


@fault
def dark_pixels_raised(case: Case) -> None:
    for model in case.both:
        _pictures(model, [("Max", [16.0])])


@fault
def brighter_by_one(case: Case) -> None:
    for model in case.both:
        _pictures(model, [("Add", [1.0]), ("Min", [255.0])])


@fault
def gamma_corrected_twice(case: Case) -> None:
    _pictures(case.refiner, [("Div", [255.0]), ("Pow", [1.1]), ("Mul", [255.0])])


@fault
def pictures_with_seven_bits(case: Case) -> None:
    for model in case.both:
        _pictures(model, [("Div", [2.0]), ("Floor", []), ("Mul", [2.0])])


@fault
def pictures_mirrored_for_the_planner(case: Case) -> None:
    width = case.manifest.embodiment.image_width
    gather(case.planner, "images", 2, np.arange(width)[::-1])


@fault
def bottom_row_of_pixels_twice(case: Case) -> None:
    height = case.manifest.embodiment.image_height
    for model in case.both:
        gather(model, "images", 1, [*range(height - 1), height - 2])


@fault
def one_camera_in_other_colours(case: Case) -> None:
    graph, shape = case.refiner.graph, (case.cameras, 1, 1, 3)
    mask = np.ones(shape)
    mask[-1, ..., 0] = 0
    kept = constant(graph, "harm.mask", mask, np.uint8)
    after(
        graph, "images", [helper.make_node("Mul", ["images", kept], ["harm.tinted"])], "harm.tinted"
    )


def _state(model: ModelProto, operator: str, *numbers: object) -> None:
    graph = model.graph
    fixed = [constant(graph, f"harm.{i}", value, np.float32) for i, value in enumerate(numbers)]
    after(
        graph,
        "state",
        [helper.make_node(operator, ["state", *fixed], ["harm.state"])],
        "harm.state",
    )


def _one(case: Case, value: float, rest: float) -> np.ndarray:
    state = np.full(len(case.manifest.embodiment.state), rest)
    state[0] = value
    return state


def _scaled(case: Case, deviations: float) -> float:
    """A value of the first state dimension, so many standard deviations from the mean."""
    graph = case.planner
    offset, scale = (
        values(tensor(graph, f"state.{n}")).reshape(-1)[0] for n in ("offset", "scale")
    )
    return float(offset + deviations * scale)


@fault
def sign_of_one_state(case: Case) -> None:
    for model in case.both:
        _state(model, "Mul", _one(case, -1.0, 1.0))


@fault
def one_state_a_little_shifted(case: Case) -> None:
    for model in case.both:
        _state(model, "Add", _one(case, 0.005, 0.0))


@fault
def one_state_two_percent_larger(case: Case) -> None:
    for model in case.both:
        _state(model, "Mul", _one(case, 1.02, 1.0))


@fault
def one_state_in_millimetres_for_the_planner(case: Case) -> None:
    _state(case.planner, "Mul", _one(case, 1000.0, 1.0))


@fault
def states_clipped_at_two_and_a_half_deviations(case: Case) -> None:
    for model in case.both:
        _state(model, "Min", _one(case, _scaled(case, 2.5), 1e9))


@fault
def low_states_clipped(case: Case) -> None:
    for model in case.both:
        _state(model, "Max", _one(case, _scaled(case, -2.5), -1e9))


def _rare(model: ModelProto, output: str, bound: float, wrong: str, value: float) -> None:
    """Another output where the first state dimension is above a bound."""
    graph = model.graph
    inner = rename_output(model, output)
    limit = constant(graph, "harm.limit", bound, np.float32)
    first = constant(graph, "harm.first", 0, np.int64)
    by = constant(graph, "harm.by", value, np.float32)
    graph.node.extend(
        [
            helper.make_node("Gather", ["state", first], ["harm.seen"], axis=0),
            helper.make_node("Greater", ["harm.seen", limit], ["harm.rare"]),
            helper.make_node(wrong, [inner, by], ["harm.wrong"]),
            helper.make_node("Where", ["harm.rare", "harm.wrong", inner], [output]),
        ]
    )


@fault
def actions_halved_in_a_rare_pose(case: Case) -> None:
    _rare(case.refiner, "actions", _scaled(case, 2.8), "Mul", 0.5)


@fault
def actions_shifted_far_out(case: Case) -> None:
    _rare(case.refiner, "actions", _scaled(case, 8.0), "Add", 0.05)


@fault
def margins_lost_in_a_rare_pose(case: Case) -> None:
    _rare(case.planner, "margin", _scaled(case, 2.8), "Mul", 0.0)


@fault
def not_a_number_in_a_rare_pose(case: Case) -> None:
    _rare(case.refiner, "actions", _scaled(case, 2.8), "Div", 0.0)
    zero = tensor(case.refiner, "harm.by")
    assert values(zero) == 0


@fault
def actions_frozen_in_white_light(case: Case) -> None:
    graph, inner = case.refiner.graph, rename_output(case.refiner, "actions")
    limit = constant(graph, "harm.limit", 254.5, np.float32)
    graph.node.extend(
        [
            helper.make_node("Cast", ["images"], ["harm.pixels"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["harm.pixels"], ["harm.light"], keepdims=0),
            helper.make_node("Greater", ["harm.light", limit], ["harm.blind"]),
            helper.make_node("Sub", [inner, inner], ["harm.none"]),
            helper.make_node("Where", ["harm.blind", "harm.none", inner], ["actions"]),
        ]
    )


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
