"""The search for layers to keep: what it picks, what it ends in, what it refuses."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from libra_edge.catalog import TargetEngine, load_recipe, load_target
from libra_edge.cli import app as program
from libra_edge.compiler.cache import StageCache
from libra_edge.compiler.pipeline import compile_checkpoint
from libra_edge.compiler.quantization.quantize import Quantized, quantize
from libra_edge.compiler.request import Request
from libra_edge.compiler.search import candidates
from libra_edge.compiler.search import layer_costs as costs_module
from libra_edge.compiler.search.layer_costs import Costs, layer_costs
from libra_edge.compiler.search.search import SHARES, Found, search
from libra_edge.compiler.search.sensitivity import Sensitivity
from libra_edge.compiler.search.simulation import Allowed, Effect
from libra_edge.engines.onnxruntime import ENGINE
from libra_edge.errors import ParityError
from libra_edge.policy.checkpoint import load_checkpoint
from tests.compiler.quantization.test_calibration_data import episodes, write
from tests.compiler.quantization.test_quantize import made_up
from tests.compiler.wide import write_wide_checkpoint

ALLOWED = Allowed(tokens=0.98, margin=1.0, action=0.01)


class AddingTrial:
    """Layers whose action errors add up; no token ever changes.

    halves: what 16-bit floats around the layers of a part add.
    """

    def __init__(self, errors: dict[str, float], halves: dict[str, float]) -> None:
        self.errors, self.layers = errors, dict.fromkeys(errors)
        self.halves = halves
        self.rests = {p: "fp16" if p in halves else "fp32" for p in ("planner", "refiner")}
        self.tries = 0

    def effect(self, names: Collection[str], parts: Collection[str] = ()) -> Effect:
        self.tries += 1
        total = sum(self.errors[name] for name in names)
        run = {name.split(".")[0] for name in names}.union(parts)
        total += sum(self.halves[part] for part in run if self.rests[part] == "fp16")
        return Effect(1.0, 0.0, 0.0, total, (total,))


def found_by(
    errors: dict[str, float], costs: dict[str, int], halves: dict[str, float] | None = None
) -> list[Found]:
    trial: Any = AddingTrial(errors, halves or {})
    ranked = [
        Sensitivity(name, "int4", trial.effect([name]), ALLOWED.used(trial.effect([name])), 1)
        for name in errors
    ]
    return list(search(trial, ranked, Costs("us", costs), ALLOWED))


def test_cheap_layers_that_matter_are_kept_and_no_others() -> None:
    errors = {"refiner.a": 0.006, "refiner.b": 0.006, "refiner.c": 0.001, "planner.d": 0.0}
    first = found_by(errors, {"refiner.a": 64, "refiner.b": 4, "refiner.c": 1, "planner.d": 1})[0]
    assert [kept.layer for kept in first.kept] == ["refiner.b"]
    assert first.quantized == ("refiner.a", "refiner.c", "planner.d")
    assert first.gate_used == pytest.approx(0.7)
    assert (first.kept[0].cost, first.share) == (4, SHARES[0])


def test_the_rest_is_in_32_bits_only_where_the_gates_need_it() -> None:
    errors = {"refiner.a": 0.006, "refiner.b": 0.0001, "planner.c": 0.001}
    costs = dict.fromkeys(errors, 1)
    half = found_by(errors, costs, {"planner": 0.0005, "refiner": 0.003})
    assert half[0].rests == {"planner": "fp16", "refiner": "fp16"}
    assert half[0].rest_used == {"planner": pytest.approx(0.05), "refiner": pytest.approx(0.3)}
    assert [kept.layer for kept in half[0].kept] == ["refiner.a"], "0.3 of the gates are used up"
    assert half[0].gate_used == pytest.approx(0.46)
    shares = {found.share: found for found in half}
    assert shares[0.2].rests == {"planner": "fp16", "refiner": "fp32"}, "0.3 is over 0.2"
    single = found_by(errors, costs, {"planner": 0.0005, "refiner": 0.009})[0]
    assert single.rests == {"planner": "fp16", "refiner": "fp32"}
    assert single.kept == ()
    assert found_by(errors, costs)[0].rests == {"planner": "fp32", "refiner": "fp32"}


def test_what_turned_out_not_to_be_needed_is_quantized_again() -> None:
    """By cost the small ones come first, but only the large one helps."""
    errors = {"refiner.a": 0.02, **{f"refiner.{i}": 0.001 for i in range(6)}}
    costs = {"refiner.a": 1024, **{f"refiner.{i}": 1 for i in range(6)}}
    first = found_by(errors, costs)[0]
    assert [kept.layer for kept in first.kept] == ["refiner.a"]


def test_a_recipe_that_holds_keeps_nothing_and_a_hopeless_one_everything() -> None:
    names = [f"refiner.{i}" for i in range(5)]
    ones = dict.fromkeys(names, 1)
    assert found_by(dict.fromkeys(names, 0.0001), ones)[0].kept == ()
    assert len(found_by(dict.fromkeys(names, 1.0), ones)[0].kept) == 5


def test_choices_grow_stricter_and_differ() -> None:
    names = [f"refiner.{i:02}" for i in range(20)]
    found = found_by(dict.fromkeys(names, 0.001), dict.fromkeys(names, 1))
    sizes = [len(one.kept) for one in found]
    assert sizes == [12, 14, 16, 18]
    once = found_by({"refiner.a": 0.05}, {"refiner.a": 1})
    assert len(once) == 1, "the same choice is not tried twice"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return write_wide_checkpoint(tmp_path_factory.mktemp("auto") / "wide")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("auto-data") / "set", episodes())


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("auto-cache")


def request(checkpoint: Path, dataset: Path, cache: Path, out: Path, **more: Any) -> Request:
    return Request(
        checkpoint,
        recipe="int4-awq",
        calibrate=dataset,
        calibration_samples=4,
        samples=48,
        out=out,
        name="wide",
        cache=cache,
        **more,
    )


def test_a_recipe_that_fails_ends_in_a_release_that_passes(
    checkpoint: Path,
    dataset: Path,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def alike(policy: object, quantized: Quantized, *_: object) -> Costs:
        return Costs("us", dict.fromkeys(quantized.precisions, 1))

    monkeypatch.setattr(candidates, "layer_costs", alike)
    plain = request(checkpoint, dataset, cache, tmp_path / "plain")
    with pytest.raises(ParityError, match="parity-failed"):
        compile_checkpoint(plain)
    assert not (tmp_path / "plain").exists()
    first, second = (
        compile_checkpoint(request(checkpoint, dataset, cache, tmp_path / n, auto_precision=True))
        for n in ("one", "two")
    )
    assert first.manifest.release_id == second.manifest.release_id
    assert first.found is not None
    assert {check.verdict for check in first.checks} == {"pass"}
    decisions = {d.subject: d for d in first.manifest.decisions}
    assert "in high precision" in decisions["auto-precision"].choice
    for kept in first.found.kept:
        assert decisions[kept.layer].choice == "fp32"
        assert "kept by the search" in decisions[kept.layer].reason
        assert "runs in fp32" in decisions[kept.layer].reason
    assert first.found.kept
    for name in first.found.quantized:
        assert "runs in int4 weights, fp32 activations" in decisions[name].reason
    report = json.loads(first.report.read_text())
    assert [row["layer"] for row in report["kept"]] == [kept.layer for kept in first.found.kept]
    alone = {row["layer"]: row["gate_used"] for row in report["sensitivity"]}
    assert alone.keys() == {one.layer for one in first.found.kept} | set(first.found.quantized)
    assert all(alone[kept.layer] == kept.gate_used for kept in first.found.kept)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--recipe", "int4-awq", "--max-action-error", "1"], "action-error-gate"),
        (["--auto-precision", "--max-action-error", "3"], "action-error-gate"),
        (["--recipe", "fp32", "--auto-precision"], "recipe-quantises-nothing"),
        (["--auto-precision"], "calibration-data-missing"),
        (["--auto-precision", "--max-action-error", "0"], "usage"),
    ],
)
def test_flags_that_cannot_be_honoured_are_errors(
    checkpoint: Path, tmp_path: Path, words: list[str], code: str, dataset: Path
) -> None:
    given = [] if code == "calibration-data-missing" else ["--calibrate", str(dataset)]
    recipe = [] if "--recipe" in words else ["--recipe", "int4-awq"]
    all_words = ["compile", str(checkpoint), "--out", str(tmp_path / "out"), *words, *given]
    all_words += recipe
    cache = str(tmp_path / "cache")
    result = CliRunner().invoke(program.app, [*all_words, "--cache", cache, "--json"])
    assert result.exit_code == 2
    assert json.loads(result.stdout)["error"]["code"] == code
    assert list(tmp_path.iterdir()) == []


def test_costs_are_measured_where_the_engine_runs_else_counted(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, recipe = load_checkpoint(checkpoint), load_recipe("int4-awq")
    stages = StageCache(tmp_path / "cache")
    quantized = quantize(loaded, recipe, made_up(loaded, 4), ENGINE.qdq, stages)
    wanted = {"refiner.blocks.0.mlp.0", "planner.blocks.0.mlp.0"}
    few = {name: p for name, p in quantized.precisions.items() if name in wanted}
    quantized = replace(quantized, precisions=few)
    elsewhere = TargetEngine(kind="onnxruntime", provider="CUDAExecutionProvider")
    counted = layer_costs(loaded.policy, quantized, recipe, elsewhere, stages)
    assert counted.unit == "bytes"
    steps = loaded.config.schedule.denoise_steps
    assert counted.layers["refiner.blocks.0.mlp.0"] == 2 ** round_log2(64 * 256 * 3.5 * steps)
    assert counted.layers["planner.blocks.0.mlp.0"] == 2 ** round_log2(64 * 256 * 3.5 / 2)
    gpu = TargetEngine(kind="tensorrt", provider="TensorrtExecutionProvider")
    half = layer_costs(loaded.policy, quantized, recipe, gpu, stages)
    assert half.layers["refiner.blocks.0.mlp.0"] == 2 ** round_log2(64 * 256 * 1.5 * steps)

    def exact(calls: Any, budget_s: float = 0) -> dict[str, float]:
        return {name: 40e-6 if name.startswith("high") else 8e-6 for name in calls}

    monkeypatch.setattr(costs_module, "interleaved_medians", exact)
    settings = load_target("cpu-x86_64").engines[0]
    measured = layer_costs(loaded.policy, quantized, recipe, settings, stages)
    assert (measured.unit, measured.layers.keys()) == ("us", wanted)
    assert measured.layers["refiner.blocks.0.mlp.0"] == 32 * steps
    assert measured.layers["planner.blocks.0.mlp.0"] == 16, "once in two chunks"
    monkeypatch.setattr(costs_module, "interleaved_medians", lambda _: pytest.fail("not cached"))
    assert layer_costs(loaded.policy, quantized, recipe, settings, stages) == measured


def round_log2(value: float) -> int:
    return round(torch.log2(torch.tensor(value)).item())
