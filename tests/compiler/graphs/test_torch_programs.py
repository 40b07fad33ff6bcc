"""The exported programs compute what the fused graphs compute."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from libra_edge.catalog import load_recipe, load_target
from libra_edge.compiler.cache import StageCache
from libra_edge.compiler.engines.build import Built, build_engines
from libra_edge.compiler.engines.plan import plan_engines
from libra_edge.compiler.graphs.fuse import Form
from libra_edge.compiler.graphs.make_graphs import Front
from libra_edge.compiler.graphs.staged_engines import fused_engines
from libra_edge.compiler.graphs.torch_programs import programs
from libra_edge.errors import InputError
from libra_edge.evaluation.torch_controller import TorchEngines
from libra_edge.parity.samples import choose_samples
from libra_edge.policy.checkpoint import Checkpoint
from tests.compiler.variants import job_for
from tests.engines.test_torch_tensorrt import Library

Fronts = Callable[[str], tuple[Checkpoint, Front]]

# A sampler that remembers nothing, one that does, and a policy without a loop.
VARIANTS = ("ddim_sample", "dpm_velocity", "libra_base")


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_program_is_its_graph(variant: str, fronts: Fronts) -> None:
    checkpoint, front = fronts(variant)
    config = checkpoint.config
    sample, *_ = choose_samples(config.embodiment, config, checkpoint.tokenizer, 1, 0, None)
    graphs = fused_engines(front.planner, front.refiners["unrolled"])
    run = {name: make().module() for name, make in programs(front.parts).items()}
    images, state = torch.from_numpy(sample.images), torch.from_numpy(sample.state)
    with torch.no_grad():
        intent, margin = run["planner"](images, torch.from_numpy(sample.instruction), state)
    wanted = graphs.plan(sample.images, sample.instruction, sample.state)
    np.testing.assert_array_equal(intent, wanted[0])
    np.testing.assert_allclose(margin, wanted[1], rtol=1e-4, atol=1e-5)
    chunk = intent[: config.chunk].to(torch.int32)
    with torch.no_grad():
        actions = run["refiner"](images, state, chunk, torch.from_numpy(sample.noise))
    expected = graphs.refine(sample.images, sample.state, chunk.numpy(), sample.noise)
    np.testing.assert_allclose(actions, expected, rtol=1e-4, atol=1e-5)


def test_a_kind_that_takes_programs_gets_both_unrolled(
    fronts: Fronts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint, front = fronts("ddim_sample")
    library, target = Library(monkeypatch), load_target("h200")

    def build(form: Form | None) -> Built:
        plan = plan_engines(target, kind="torch_tensorrt")
        cache = StageCache(tmp_path)
        job = job_for(checkpoint, target, load_recipe("fp32"), cache, plan, form=form)
        return build_engines(job, front, TorchEngines(checkpoint.policy))

    built = build(None)
    assert [len(arguments) for _, arguments, _ in library.asked] == [3, 4]
    assert (built.choice.form, built.refiner.graph) == ("unrolled", front.refiners["unrolled"])
    assert "unrolled" in built.choice.reason
    again = build("unrolled")
    assert len(library.asked) == 2, "an engine is built once"
    assert again.refiner == built.refiner
    with pytest.raises(InputError, match="form-unavailable"):
        build("loop")
