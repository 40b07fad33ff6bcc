"""Faults of what a release says of itself: recipe, layers, work, options, and every word of the
contract. The graphs are right, unless said otherwise."""

from __future__ import annotations

from typing import Any

from libra_edge.bundle.engine_facts import CalibratedLayer, Calibration, Layer, Work
from libra_edge.bundle.manifest import Decision, DeviceNeeds, Provision
from libra_edge.limits import ChangedLimit
from tests.attacks.engines.faults import Case, fault
from tests.attacks.engines.surgery import store, values, weight


@fault
def floats_that_call_themselves_integers(case: Case) -> None:
    case.facts["recipe"] = "int8"


@fault
def two_percent_behind_the_name_of_integers(case: Case) -> None:
    case.facts["recipe"] = "int8"
    matrix = weight(case.refiner, "blocks.0.mlp.0")
    store(matrix, values(matrix) * 1.02)


@fault
def floats_that_call_themselves_halves(case: Case) -> None:
    case.facts["recipe"] = "fp16"


@fault
def recipe_that_nobody_knows(case: Case) -> None:
    case.facts["recipe"] = "int8-very-loose"


@fault
def target_that_nobody_knows(case: Case) -> None:
    case.facts["target"] = "cpu-of-tomorrow"


@fault
def target_of_another_machine(case: Case) -> None:
    case.facts["target"] = "rtx4090"


def _engine(case: Case, name: str, **changes: Any) -> None:
    engines = case.facts.get("engines", case.manifest.engines)
    changed = getattr(engines, name).model_copy(update=changes)
    case.facts["engines"] = engines.model_copy(update={name: changed})


@fault
def threads_that_spin(case: Case) -> None:
    for name in ("planner", "refiner"):
        _engine(case, name, session_options={"session.intra_op.allow_spinning": "1"})


@fault
def denormals_as_zero(case: Case) -> None:
    options = dict(case.manifest.engines.refiner.session_options)
    _engine(case, "refiner", session_options={**options, "session.set_denormal_as_zero": "1"})


@fault
def optimizers_switched_off(case: Case) -> None:
    options = dict(case.manifest.engines.planner.session_options)
    entry = {"optimization.disable_specified_optimizers": "GeluFusion"}
    _engine(case, "planner", session_options=options | entry)


@fault
def form_of_the_refiner(case: Case) -> None:
    _engine(case, "refiner", form="unrolled")


def _work(case: Case, name: str, **changes: Any) -> None:
    told = getattr(case.manifest.engines, name).work
    _engine(case, name, work=Work(**(told.model_dump() | changes)))


@fault
def work_below_nothing(case: Case) -> None:
    _work(case, "planner", tera_operations={"fp32": -1.0})


@fault
def work_ten_times_as_large(case: Case) -> None:
    told = case.manifest.engines.refiner.work
    assert told is not None
    _work(case, "refiner", tera_operations={k: 10 * v for k, v in told.tera_operations.items()})


@fault
def work_in_another_format(case: Case) -> None:
    told = case.manifest.engines.planner.work
    assert told is not None
    _work(case, "planner", tera_operations={"int8": sum(told.tera_operations.values())})


@fault
def fewer_bytes_of_weights(case: Case) -> None:
    told = case.manifest.engines.refiner.work
    assert told is not None
    _work(case, "refiner", weight_bytes=told.weight_bytes // 4)


@fault
def no_bytes_of_activations(case: Case) -> None:
    _work(case, "planner", activation_bytes=0)


@fault
def a_layer_that_is_not_there(case: Case) -> None:
    extra = case.manifest.layers[0].model_copy(update={"name": "planner.backbone.blocks.7.mlp.0"})
    case.facts["layers"] = (*case.manifest.layers, extra)


@fault
def a_layer_that_is_not_told(case: Case) -> None:
    case.facts["layers"] = case.manifest.layers[1:]


def _first_layer(case: Case, **changes: Any) -> None:
    first, *others = case.manifest.layers
    case.facts["layers"] = (Layer(**(first.model_dump() | changes)), *others)


@fault
def a_layer_told_in_integers(case: Case) -> None:
    _first_layer(case, precision="int8")


@fault
def a_layer_told_to_run_once_more(case: Case) -> None:
    _first_layer(case, runs=case.manifest.layers[0].runs + 1)


@fault
def a_layer_told_smaller_than_it_is(case: Case) -> None:
    _first_layer(case, weight_bytes=1)


def _decision(case: Case, stage: str, subject: str, choice: str) -> None:
    made = Decision(stage=stage, subject=subject, choice=choice, reason="it was asked for")
    case.facts["decisions"] = (*case.manifest.decisions, made)


@fault
def decision_about_a_layer_that_is_not_there(case: Case) -> None:
    _decision(case, "quantise", "planner.backbone.blocks.9.mlp.0", "int8")


@fault
def decision_that_was_not_carried_out(case: Case) -> None:
    _decision(case, "quantise", "planner.output", "int8")


@fault
def decision_about_nothing_known(case: Case) -> None:
    _decision(case, "verify", "gates", "none needed")


@fault
def engine_kind_of_another_decision(case: Case) -> None:
    kept = [d for d in case.manifest.decisions if d.subject != "engine kind"]
    made = Decision(stage="build", subject="engine kind", choice="tensorrt", reason="faster")
    case.facts["decisions"] = (made, *kept)


@fault
def calibration_of_floats(case: Case) -> None:
    case.facts["calibration"] = Calibration(
        dataset="0" * 64,
        sha256="0" * 64,
        algorithm="max",
        frames=((0, 0),),
        layers={"planner.output": CalibratedLayer(precision="int8", input_amax=1.0)},
    )


@fault
def a_gpu_that_no_engine_needs(case: Case) -> None:
    case.facts["device"] = DeviceNeeds(compute_capability="8.9", memory_bytes=1, versions={})


@fault
def engines_that_no_robot_builds(case: Case) -> None:
    case.facts["provision"] = Provision(
        kind="tensorrt", provider="TensorrtExecutionProvider", options={}
    )


@fault
def gate_that_does_not_exist(case: Case) -> None:
    gate = ChangedLimit(name="trust", limit=1.0, default=None, loose=False)
    case.facts["gates"] = (gate,)


@fault
def older_c_library(case: Case) -> None:
    case.facts["runtime"] = case.manifest.runtime.model_copy(update={"glibc": "2.17"})


@fault
def random_weights_of_a_trained_policy(case: Case) -> None:
    case.facts["random_weights"] = True


# Words of the contract.


def _policy(case: Case, **changes: Any) -> None:
    case.facts["policy"] = case.manifest.policy.model_copy(update=changes)


@fault
def another_checkpoint_named(case: Case) -> None:
    _policy(case, checkpoint_sha256="0" * 64)


@fault
def another_scheduler_named(case: Case) -> None:
    other = {"ddim": "dpm_solver_pp"}.get(case.manifest.policy.scheduler, "ddim")
    _policy(case, scheduler=other)


@fault
def another_count_of_denoising_steps_told(case: Case) -> None:
    _policy(case, denoise_steps=case.manifest.policy.denoise_steps + 1)


def _robot(case: Case, **changes: Any) -> None:
    case.facts["embodiment"] = case.manifest.embodiment.model_copy(update=changes)


def _action(case: Case, number: int, **changes: Any) -> None:
    actions = list(case.manifest.embodiment.actions)
    actions[number] = actions[number].model_copy(update=changes)
    _robot(case, actions=tuple(actions))


@fault
def control_rate_halved(case: Case) -> None:
    _robot(case, control_hz=case.manifest.embodiment.control_hz / 2)


@fault
def one_limit_a_percent_wider(case: Case) -> None:
    dim = case.manifest.embodiment.actions[0]
    _action(case, 0, upper=dim.upper + 0.01 * (dim.upper - dim.lower))


@fault
def one_limit_narrower(case: Case) -> None:
    dim = case.manifest.embodiment.actions[0]
    _action(case, 0, lower=dim.lower + 0.25 * (dim.upper - dim.lower))


@fault
def delta_told_as_absolute(case: Case) -> None:
    kind = case.manifest.embodiment.actions[0].kind
    _action(case, 0, kind="absolute" if kind == "delta" else "delta")


@fault
def unit_of_an_action(case: Case) -> None:
    _action(case, 0, unit="mm")


@fault
def names_of_two_actions_swapped(case: Case) -> None:
    first, second, *others = case.manifest.embodiment.actions
    swapped = (
        first.model_copy(update={"name": second.name}),
        second.model_copy(update={"name": first.name}),
    )
    _robot(case, actions=(*swapped, *others))


@fault
def names_of_two_states_swapped(case: Case) -> None:
    first, second, *others = case.manifest.embodiment.state
    _robot(case, state=(second, first, *others))


@fault
def unit_of_a_state(case: Case) -> None:
    first, *others = case.manifest.embodiment.state
    _robot(case, state=(first.model_copy(update={"unit": "mm"}), *others))


@fault
def robot_of_another_name(case: Case) -> None:
    _robot(case, name="another")


def _words(case: Case, right: str, wrong: str) -> None:
    text = case.members["tokenizer.json"].decode()
    assert text.count(right) == 1, f"{right}: {text.count(right)}"
    case.members["tokenizer.json"] = text.replace(right, wrong).encode()


@fault
def words_no_longer_in_lower_case(case: Case) -> None:
    text = case.members["tokenizer.json"].decode()
    start = text.index('"normalizer"')
    end = text.index('"pre_tokenizer"')
    case.members["tokenizer.json"] = f'{text[:start]}"normalizer":null,{text[end:]}'.encode()


@fault
def a_word_spelled_otherwise(case: Case) -> None:
    _words(case, '"the"', '"teh"')


@fault
def a_word_for_the_unknown(case: Case) -> None:
    text = case.members["tokenizer.json"].decode()
    start = text.index('"unk_token"')
    case.members["tokenizer.json"] = (text[:start] + '"unk_token":"the"}}').encode()
