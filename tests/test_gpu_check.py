import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from libra_edge.evaluation.torch_controller import TorchEngines
from libra_edge.parity.gates import run_engines
from libra_edge.parity.samples import synthetic_samples
from libra_edge.policy.checkpoint import load_checkpoint
from tests.tiny import write_tiny_checkpoint

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "benchmarks/gpu_check.py"


@pytest.fixture
def gpu(monkeypatch):
    """The modules that the script is made of."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import gpu.facts
    import gpu.timing

    return gpu


def facts(capability, driver="580.159"):
    found = {"compute_capability": capability, "memory_mib": "81559", "cuda_of_pytorch": "13.0"}
    return found | {"driver": driver}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_nothing_is_exported_or_written(tmp_path):
    command = [sys.executable, str(SCRIPT), "--out", str(tmp_path / "out")]
    command += ["--kit", str(tmp_path / "kit"), "--export"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr == "There is no NVIDIA GPU that PyTorch can use: nothing was measured.\n"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_kit_is_refused_first(tmp_path):
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), "--kit", str(tmp_path)], capture_output=True, text=True
    )
    assert ended.returncode == 2
    assert "is no kit" in ended.stderr


@pytest.mark.parametrize("capability", ["9.0", "8.7", "12.0"])
def test_another_capability_is_refused_in_one_sentence(gpu, capability):
    found = gpu.facts.refusal(None, facts(capability))
    assert found["met"]
    (sentence,) = found["capability_sentences"]
    assert f"has compute capability {capability}" in sentence


def test_the_right_capability_is_not_refused(gpu):
    found = gpu.facts.refusal(None, facts("8.9"))
    assert found["met"]
    assert found["capability_sentences"] == []


def test_an_old_driver_is_named(gpu):
    sentences = gpu.facts.refusal(None, facts("8.9", driver="570.1"))["sentences"]
    assert any("NVIDIA driver 570.1" in sentence for sentence in sentences)


def test_no_tail_is_given_of_too_few_calls(gpu):
    few, enough = (gpu.timing.Times(tuple([0.001] * count)) for count in (999, 1000))
    assert few.percentile_ms(99.9) is None
    assert few.percentile_ms(99) == pytest.approx(1.0)
    assert enough.percentile_ms(99.9) == pytest.approx(1.0)


def test_calls_take_turns_and_the_load_is_drained_after_each(gpu):
    seen = []

    class Load:
        def begin(self, count):
            assert count >= 1
            seen.append("begin")

        def busy(self):
            return True

        def drain(self):
            seen.append("drain")

    calls = {name: lambda feeds, n=name: seen.append(n) or {} for name in ("a", "b")}
    feeds = {name: [{}] for name in calls}
    times = gpu.timing.in_turns(calls, feeds, 0.01, Load(), 1.0)
    warm, timed = seen[: 2 * gpu.timing.WARM_UP], seen[2 * gpu.timing.WARM_UP :]
    assert set(warm) == {"a", "b"}
    assert timed[::3] == ["begin"] * (len(timed) // 3)
    assert timed[2::3] == ["drain"] * (len(timed) // 3)
    assert set(timed[1::3]) == {"a", "b"}
    assert {t.covered for t in times.values()} == {1.0}


@pytest.mark.parametrize(("precision", "bound"), [("fp32", 1e-5), ("fp16", 0.02), ("bf16", 0.2)])
def test_every_way_in_pytorch_computes_the_policy(gpu, tmp_path, precision, bound):
    import gpu.rows
    import gpu.torch_engines

    loaded = load_checkpoint(write_tiny_checkpoint(tmp_path / "tiny"))
    config, policy = loaded.config, loaded.policy
    samples = synthetic_samples(config.embodiment, config, loaded.tokenizer, 4, seed=0)
    expected = run_engines(TorchEngines(policy), samples)
    case = gpu.policies.Case("tiny", policy, samples, expected, trained=False)
    plan = gpu.rows.Plan("cpu", 0.0, 0.0, 0.0, None)
    makers = gpu.rows.ways(case, precision, plan)
    calls = {key: make(None) for key, make in makers.items()}
    planner = calls["planner", "", gpu.rows.EAGER]
    refiners = {key: call for key, call in calls.items() if key[0] == "refiner"}
    assert {form for _, form, _ in refiners} == {gpu.rows.NAIVE, gpu.rows.SPLIT}
    for call in refiners.values():
        found = run_engines(gpu.rows.Pair(planner, call), samples, expected.intent)
        error = np.abs(found.actions - expected.actions).max()
        assert error < bound
        assert (error > 0) or precision == "fp32"
    assert (found.intent == expected.intent).mean() > 0.9


def test_a_verdict_counts_only_where_a_recipe_stands_behind_it(gpu, tmp_path):
    import gpu.policies
    import gpu.rows

    trained, drawn = (gpu.policies.Case("p", None, (), None, trained=t) for t in (True, False))
    judged = [gpu.rows.is_judged(trained, p) for p in ("fp32", "fp16", "bf16")]
    assert judged == [True, True, False]
    assert not gpu.rows.is_judged(drawn, "fp32")


def test_an_engine_that_cannot_be_made_is_a_row_that_failed(gpu):
    import gpu.rows

    row = gpu.rows.Row("p", "fp32", "planner", "", gpu.rows.ORT, judged=True)

    def make(stream):
        raise RuntimeError("no kernel | here")

    assert gpu.rows.build([row], {gpu.rows.key_of(row): make}, None) == {}
    assert row.why == "RuntimeError: no kernel / here"
    assert not row.passed
