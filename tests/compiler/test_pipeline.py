"""The whole compiler: what it writes, when it refuses, and that it repeats itself."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from safetensors.torch import load_file, save_file

from libra_edge.bundle.verify import verify_integrity
from libra_edge.compiler.cache import StageCache
from libra_edge.compiler.engines.build import choose_form, interleaved_medians
from libra_edge.compiler.graphs import make_graphs as front_module
from libra_edge.compiler.pipeline import STAGES, Compiled, compile_checkpoint
from libra_edge.compiler.request import Request
from libra_edge.errors import ExitCode, InputError, LibraError, ParityError
from libra_edge.evaluation.torch_controller import TorchEngines
from libra_edge.policy.checkpoint import load_checkpoint
from tests.compiler.variants import VARIANTS
from tests.tiny import write_tiny_checkpoint

ROOT = Path(__file__).parents[2]


def tree(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_release(compiled: Compiled, checkpoint: Path) -> None:
    manifest = verify_integrity(compiled.path)
    assert manifest == compiled.manifest
    assert manifest.name == "tiny-demo"
    assert manifest.policy.checkpoint_sha256 == load_checkpoint(checkpoint).sha256
    assert manifest.parity.verdict == "pass"
    stages = {check.stage for check in manifest.parity.checks}
    assert {"C ABI vs engine", "engine vs PyTorch policy, end to end"} <= stages
    assert [d.subject for d in manifest.decisions] == ["engine kind", "refiner form"]
    assert not any(
        character.isdigit()
        for d in manifest.decisions[1:]
        for character in d.reason.replace("5 %", "")
    ), "exact figures would change the bytes"
    report = json.loads(compiled.report.read_text())
    assert report["release_id"] == manifest.release_id
    assert set(report["medians_ms"]) == {"planner", "loop", "unrolled"}


def test_no_path_of_this_machine_is_in_a_release(compiled: Compiled, work: Path) -> None:
    for path in compiled.path.rglob("*"):
        if path.is_file() and path.name != "libonnxruntime.so":
            content = path.read_bytes()
            for trace in (str(work), str(ROOT), str(Path.home())):
                assert len(trace) < 3 or trace.encode() not in content, path.name


def test_golden_vectors_are_the_policys(compiled: Compiled, checkpoint: Path) -> None:
    arrays = {p.stem: np.load(p, allow_pickle=False) for p in (compiled.path / "golden").iterdir()}
    engines = TorchEngines(load_checkpoint(checkpoint).policy)
    for i in range(len(arrays["images"])):
        observed = arrays["images"][i], arrays["state"][i]
        intent, margin = engines.plan(observed[0], arrays["instruction"][i], observed[1])
        np.testing.assert_array_equal(intent, arrays["intent"][i])
        np.testing.assert_allclose(margin, arrays["margin"][i], atol=1e-6)
        actions = engines.refine(*observed, intent[:3], arrays["noise"][i])
        np.testing.assert_allclose(actions, arrays["actions"][i], atol=1e-6)


@pytest.mark.parametrize("name", ["dpm_velocity", "flow_euler", "blind", "libra_base"])
def test_every_kind_of_policy_compiles(work: Path, tmp_path: Path, name: str) -> None:
    checkpoint = write_tiny_checkpoint(tmp_path / "checkpoint", **VARIANTS[name])
    done = compile_checkpoint(Request(checkpoint, out=tmp_path / "out", cache=work / "cache"))
    assert verify_integrity(tmp_path / "out") == done.manifest
    if name == "libra_base":
        assert "bin centres" in done.manifest.decisions[1].reason


def test_a_form_that_does_not_exist_is_refused(work: Path, tmp_path: Path) -> None:
    checkpoint = write_tiny_checkpoint(tmp_path / "checkpoint", refiner=None)
    request = Request(checkpoint, out=tmp_path / "out", cache=work / "cache", form="loop")
    with pytest.raises(InputError, match="form-unavailable"):
        compile_checkpoint(request)
    assert not (tmp_path / "out").exists()


def test_stages_are_named_and_in_order(work: Path, checkpoint: Path, tmp_path: Path) -> None:
    seen: list[str] = []
    request = Request(checkpoint, out=tmp_path / "out", cache=work / "cache")
    compile_checkpoint(request, lambda stage, note: seen.append(stage))
    assert tuple(dict.fromkeys(seen)) == STAGES


def test_a_second_run_takes_every_stage_from_the_cache(
    compiled: Compiled,
    work: Path,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise AssertionError("computed again")

    monkeypatch.setattr(front_module, "export", fail)
    monkeypatch.setattr(front_module, "fuse", fail)
    monkeypatch.setattr("libra_edge.compiler.engines.build._measure", fail)
    monkeypatch.setattr("libra_edge.runtime.libraries.build_library", fail)
    request = Request(checkpoint, out=tmp_path / "again", cache=work / "cache", name="tiny-demo")
    again = compile_checkpoint(request)
    assert again.manifest == compiled.manifest
    assert tree(tmp_path / "again") == tree(compiled.path)


def test_damaged_cache_entries_are_made_again(tmp_path: Path) -> None:
    cache = StageCache(tmp_path)
    made: list[int] = []

    def make() -> dict[str, bytes]:
        made.append(1)
        return {"a": b"first", "b": b"second"}

    inputs = {"checkpoint": "0" * 64}
    assert cache.get_or_make("export", inputs, make) == ({"a": b"first", "b": b"second"}, False)
    assert cache.get_or_make("export", inputs, make)[1]
    (entry,) = tmp_path.iterdir()
    whole = entry.read_bytes()
    for damaged in (whole[:-1], whole.replace(b"second", b"secund"), b"", whole + b"x"):
        entry.write_bytes(damaged)
        assert cache.get_or_make("export", inputs, make) == (
            {"a": b"first", "b": b"second"},
            False,
        )
    assert cache.get_or_make("export", {"checkpoint": "1" * 64}, make)[1] is False
    assert cache.get_or_make("fuse", inputs, make)[1] is False
    assert len(made) == 7


def test_the_cache_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("libra_edge.compiler.cache.LARGEST_CACHE_BYTES", 3000)
    cache = StageCache(tmp_path)
    for i in range(6):
        cache.get_or_make("export", {"n": str(i)}, lambda: {"a": bytes(1000)})
    assert len(list(tmp_path.iterdir())) == 2
    assert cache.get_or_make("export", {"n": "5"}, lambda: {"a": b""})[1], "the newest stays"


COMPILE = """
import sys
from pathlib import Path
from libra_edge.compiler.pipeline import compile_checkpoint
from libra_edge.compiler.request import Request
checkpoint, out, cache = map(Path, sys.argv[1:])
compile_checkpoint(Request(checkpoint, out=out, cache=cache, form="unrolled"))
"""


def test_the_same_checkpoint_gives_the_same_bytes(checkpoint: Path, tmp_path: Path) -> None:
    for i in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": i, "PYTHONPATH": str(ROOT)}
        folder = tmp_path / i
        folder.mkdir()
        subprocess.run(
            [sys.executable, "-c", COMPILE, checkpoint, folder / "out", folder / "cache"],
            check=True,
            env=environment,
            cwd=folder,
        )
    assert tree(tmp_path / "1/out") == tree(tmp_path / "2/out")


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"target": "cpu-x86-64"}, "unknown-target", "Did you mean 'cpu-x86_64'?"),
        ({"recipe": "fp3"}, "unknown-recipe", "Did you mean 'fp32'?"),
    ],
)
def test_unknown_names_are_refused(
    checkpoint: Path, tmp_path: Path, changes: dict[str, str], code: str, words: str
) -> None:
    request = Request(checkpoint, out=tmp_path / "out", cache=tmp_path / "cache", **changes)
    with pytest.raises(InputError) as caught:
        compile_checkpoint(request)
    assert caught.value.code == code
    assert words in caught.value.remedy
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_that_is_no_release_is_never_replaced(
    checkpoint: Path, tmp_path: Path, force: bool
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.txt").write_text("mine")
    request = Request(checkpoint, out=tmp_path / "out", cache=tmp_path / "cache", force=force)
    with pytest.raises(InputError, match="destination-exists"):
        compile_checkpoint(request)
    assert [p.name for p in tmp_path.iterdir()] == ["out"], "refused before any work"
    assert (tmp_path / "out/thesis.txt").read_text() == "mine"


def test_a_release_is_replaced_only_by_force(
    compiled: Compiled, work: Path, checkpoint: Path, tmp_path: Path
) -> None:
    request = Request(checkpoint, out=tmp_path / "out", cache=work / "cache", name="first")
    first = compile_checkpoint(request)
    second = Request(checkpoint, out=tmp_path / "out", cache=work / "cache", name="second")
    with pytest.raises(InputError, match="--force"):
        compile_checkpoint(second)
    assert verify_integrity(tmp_path / "out") == first.manifest
    compile_checkpoint(Request(**{**vars(second), "force": True}))
    assert verify_integrity(tmp_path / "out").name == "second"


def test_a_checkpoint_that_is_not_finite_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    bad = write_tiny_checkpoint(tmp_path / "bad")
    tensors = load_file(bad / "model.safetensors")
    tensors["planner.output.bias"] = torch.full_like(tensors["planner.output.bias"], torch.nan)
    save_file(tensors, bad / "model.safetensors")
    with pytest.raises(InputError, match="checkpoint-not-finite"):
        compile_checkpoint(Request(bad, out=tmp_path / "out", cache=tmp_path / "cache"))
    assert [p.name for p in tmp_path.iterdir()] == ["bad"]


def perturbed(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its largest weight tensor changed by 1 %."""
    largest = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    array = numpy_helper.to_array(largest)
    largest.CopyFrom(numpy_helper.from_array(array * np.float32(1.01), largest.name))
    return model


@pytest.mark.parametrize("stage", ["export", "fuse"])
def test_a_wrong_graph_is_never_released(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    right = getattr(front_module, stage)
    monkeypatch.setattr(front_module, stage, lambda *a: perturbed(right(*a)))
    with pytest.raises(ParityError) as caught:
        compile_checkpoint(Request(checkpoint, out=tmp_path / "out", cache=tmp_path / "cache"))
    assert caught.value.exit_code is ExitCode.PARITY
    assert [p.name for p in tmp_path.iterdir()] == ["cache"]


def test_a_wrong_runtime_is_never_released(
    checkpoint: Path, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from libra_edge.compiler import pipeline

    class Shifted(pipeline.Policy):
        def refine(self, *arguments: Any) -> Any:
            return super().refine(*arguments) + np.float32(1e-3)

    monkeypatch.setattr(pipeline, "Policy", Shifted)
    with pytest.raises(ParityError, match="C ABI vs engine"):
        compile_checkpoint(Request(checkpoint, out=tmp_path / "out", cache=work / "cache"))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing(
    compiled: Compiled, checkpoint: Path, work: Path, tmp_path: Path
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4 * 2**20, hard))
    try:
        with pytest.raises(LibraError, match="disk-full"):
            compile_checkpoint(Request(checkpoint, out=tmp_path / "out", cache=work / "cache"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []
    assert not [p for p in (work / "cache").iterdir() if p.is_dir() or p.name.startswith(".")]


def test_choosing_a_form() -> None:
    assert choose_form({"loop": 1.0, "unrolled": 0.96}).form == "loop"
    assert choose_form({"loop": 1.0, "unrolled": 2.0}).form == "loop"
    assert choose_form({"loop": 1.0, "unrolled": 0.9}).form == "unrolled"


def test_medians_come_from_interleaved_calls() -> None:
    order: list[str] = []
    calls = {name: (lambda name=name: order.append(name)) for name in "ab"}
    medians = interleaved_medians(calls, budget_s=0.0)
    assert set(medians) == {"a", "b"}
    assert order == ["a", "b"] * 17
