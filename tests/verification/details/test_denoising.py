"""The noisy actions after each denoising step: of the policy, and of the release's graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from libra_edge.bundle.engine_facts import RefinerEngine, TensorSpec
from libra_edge.compiler.graphs.export import from_bytes, to_bytes
from libra_edge.compiler.graphs.fuse import FORMS, Form
from libra_edge.compiler.graphs.make_graphs import Front
from libra_edge.compiler.graphs.staged_engines import as_written
from libra_edge.parity.samples import Sample, choose_samples
from libra_edge.policy.checkpoint import Checkpoint
from libra_edge.verification.details.denoising import DenoisingDetail, denoising_detail
from libra_edge.verification.unrolled_graphs import with_partial_samples
from tests.attacks.engines.surgery import multiply, store, tensor, values
from tests.compiler.variants import make_front

SPEC = TensorSpec(name="x", dtype="float32", shape=(1,))


@pytest.fixture(scope="module", params=["dpm_velocity", "one_step"])
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Checkpoint, Front]:
    return make_front(request.param, tmp_path_factory.mktemp("denoising"))


def facts(form: Form) -> RefinerEngine:
    return RefinerEngine(
        member="engines/refiner.onnx",
        form=form,
        kind="onnxruntime",
        provider="CPUExecutionProvider",
        session_options={},
        inputs=(SPEC,),
        outputs=(SPEC,),
    )


def samples(checkpoint: Checkpoint, count: int = 4) -> list[Sample]:
    config = checkpoint.config
    return choose_samples(config.embodiment, config, checkpoint.tokenizer, count, 0, None)


def detail(checkpoint: Checkpoint, model: bytes, form: Form) -> DenoisingDetail:
    found = denoising_detail(checkpoint.policy, model, facts(form), samples(checkpoint), seed=0)
    assert found is not None
    return found


@pytest.mark.parametrize("form", FORMS)
def test_every_step_is_the_policys(made: tuple[Checkpoint, Front], form: Form) -> None:
    checkpoint, front = made
    found = detail(checkpoint, front.refiners[form], form)
    assert [step.step for step in found.steps] == list(
        range(len(checkpoint.policy.table.timesteps))
    )
    assert (found.samples, found.runs_in) == (4, "CPUExecutionProvider")
    for step in found.steps:
        assert step.mean.low <= step.mean.value <= step.mean.high <= step.max < 1e-4


@pytest.mark.parametrize("form", FORMS)
def test_the_last_of_them_are_the_actions(made: tuple[Checkpoint, Front], form: Form) -> None:
    checkpoint, front = made
    sample, model = samples(checkpoint, 1)[0], front.refiners[form]
    feeds = {
        "images": sample.images,
        "state": sample.state,
        "intent": np.full(sample.noise.shape, 3, np.int32),
        "noise": sample.noise,
    }
    partial = list(
        as_written(to_bytes(with_partial_samples(from_bytes(model)))).run(feeds).values()
    )
    action = checkpoint.policy.action
    last = partial[-1] * action.scale.numpy() + action.offset.numpy()
    np.testing.assert_allclose(last, as_written(model).run(feeds)["actions"], atol=1e-5)
    assert len(partial) == len(checkpoint.policy.table.timesteps)


def test_an_error_shows_from_the_step_where_it_enters(made: tuple[Checkpoint, Front]) -> None:
    checkpoint, front = made
    model = from_bytes(front.refiners["loop"])
    table = tensor(model, "loop/table")
    rows = values(table)
    rows[-1] *= 1.5
    store(table, rows)
    *before, last = (step.max for step in detail(checkpoint, to_bytes(model), "loop").steps)
    assert max(before, default=0) < 1e-4 < 1e-2 < last


def test_a_graph_with_other_steps_is_not_held_against_the_policys(
    made: tuple[Checkpoint, Front],
) -> None:
    checkpoint, front = made
    model = from_bytes(front.refiners["loop"])
    count = tensor(model, "loop/count")
    store(count, values(count) + 1)
    some = samples(checkpoint)
    assert denoising_detail(checkpoint.policy, to_bytes(model), facts("loop"), some, seed=0) is None
    model = from_bytes(front.refiners["loop"])
    multiply(model, "noise", 0.9)
    found = denoising_detail(checkpoint.policy, to_bytes(model), facts("loop"), some, seed=0)
    assert (found is None) == (len(checkpoint.policy.table.timesteps) > 1), "one step is the last"


def test_a_policy_without_denoising_has_none(tmp_path: Path) -> None:
    checkpoint, front = make_front("libra_base", tmp_path)
    some = samples(checkpoint)
    model = front.refiners["unrolled"]
    assert denoising_detail(checkpoint.policy, model, facts("unrolled"), some, seed=0) is None
