"""Every pair that cannot be is refused with its own sentence, before anything is loaded."""

from __future__ import annotations

from dataclasses import replace

import pytest

from libra_edge.bundle import compatibility as c
from libra_edge.bundle.manifest import Manifest, ReleaseFacts
from libra_edge.catalog import load_recipe, load_target, require_supported
from libra_edge.errors import ExitCode, IncompatibleError
from tests.bundle import examples

RTX = "NvTensorRTRTXExecutionProvider"
GIB = 2**30
ENGINES = c.Needs(
    "rtx-release",
    "x86_64-linux-gnu",
    "2.35",
    frozenset({RTX}),
    "8.9",
    2 * GIB,
    {"cuda": "13.0", "driver": "580"},
)
GRAPHS = c.Needs("graphs", "x86_64-linux-gnu", "2.35")
RTX4090, CPU, ORIN = (
    c.device_of(load_target(name)) for name in ("rtx4090", "cpu-x86_64", "jetson-agx-orin")
)
JETSON = c.Needs(
    "jetson-release",
    "aarch64-linux-gnu",
    "2.35",
    frozenset({"TensorrtExecutionProvider"}),
    "8.7",
    2 * GIB,
    {"jetpack": "6.2", "cuda": "12.6", "tensorrt": "10.3"},
)


@pytest.mark.parametrize(
    ("needs", "device", "code", "found", "needed"),
    [
        (ENGINES, CPU, "provider-unavailable", "CPUExecutionProvider", RTX),
        (JETSON, CPU, "arch-mismatch", "x86_64-linux-gnu", "aarch64-linux-gnu"),
        (ENGINES, ORIN, "arch-mismatch", "aarch64-linux-gnu", "x86_64-linux-gnu"),
        (
            ENGINES,
            replace(RTX4090, compute_capability="12.0"),
            "compute-capability-mismatch",
            "12.0",
            "8.9",
        ),
        (
            ENGINES,
            replace(RTX4090, compute_capability=None),
            "compute-capability-mismatch",
            "no NVIDIA GPU",
            "8.9",
        ),
        (replace(ENGINES, memory_bytes=25 * GIB), RTX4090, "memory-too-small", "24.0", "25.0 GiB"),
        # A Jetson's memory is shared with everything else that runs there.
        (replace(JETSON, memory_bytes=60 * GIB), ORIN, "memory-too-small", "51.2", "60.0 GiB"),
        (
            ENGINES,
            replace(RTX4090, versions={"cuda": "13.0", "driver": "570.86"}),
            "driver-mismatch",
            "570.86",
            "580 or newer",
        ),
        (
            ENGINES,
            replace(RTX4090, versions={"cuda": "12.8", "driver": "590.1"}),
            "cuda-mismatch",
            "12.8",
            "13.0",
        ),
        (
            JETSON,
            replace(ORIN, versions={**ORIN.versions, "tensorrt": "10.13"}),
            "tensorrt-mismatch",
            "10.13",
            "10.3",
        ),
        (
            JETSON,
            replace(ORIN, versions={"cuda": "12.6", "jetpack": "6.2"}),
            "tensorrt-mismatch",
            "not installed",
            "10.3",
        ),
        (
            JETSON,
            replace(ORIN, versions={**ORIN.versions, "jetpack": "7.0"}),
            "jetpack-mismatch",
            "7.0",
            "6.2",
        ),
        (GRAPHS, replace(CPU, glibc="2.31"), "glibc-too-old", "2.31", "2.35"),
    ],
)
def test_an_impossible_pair(
    needs: c.Needs, device: c.Device, code: str, found: str, needed: str
) -> None:
    with pytest.raises(IncompatibleError) as caught:
        c.require_compatible(needs, device)
    error = caught.value
    assert error.code == code
    assert error.exit_code is ExitCode.INCOMPATIBLE
    assert found in error.fact
    assert needed in error.fact
    assert error.remedy.endswith(".")
    for mismatch in c.mismatches(needs, device):
        assert mismatch.sentence.endswith(".")
        assert needs.name in mismatch.sentence


@pytest.mark.parametrize(
    ("target", "recipe", "words"),
    [
        ("jetson-agx-orin", "fp8", "fp8"),
        ("jetson-orin-nx", "nvfp4", "nvfp4"),
        ("rtx4090", "nvfp4", "nvfp4"),
        ("h200", "nvfp4", "nvfp4"),
        ("cpu-x86_64", "fp8", "fp8"),
        ("unitree-g1", "fp8", "fp8"),
    ],
)
def test_a_precision_that_a_device_has_no_arithmetic_for(
    target: str, recipe: str, words: str
) -> None:
    with pytest.raises(IncompatibleError, match="recipe-unsupported") as caught:
        require_supported(load_target(target), load_recipe(recipe))
    assert target in caught.value.fact
    assert words in caught.value.fact
    assert "--recipe" in caught.value.remedy


@pytest.mark.parametrize(
    ("needs", "device"),
    [
        (ENGINES, RTX4090),
        (JETSON, ORIN),
        (GRAPHS, CPU),
        (GRAPHS, RTX4090),
        (ENGINES, replace(RTX4090, versions={"cuda": "13.1", "driver": "590.44"})),
        (
            ENGINES,
            replace(
                RTX4090,
                compute_capability=None,
                versions={"driver": "590.44"},
                unknown=frozenset({"compute_capability", "cuda"}),
            ),
        ),
    ],
)
def test_a_pair_that_fits(needs: c.Needs, device: c.Device) -> None:
    assert c.mismatches(needs, device) == []


def test_every_mismatch_is_told_at_once() -> None:
    with pytest.raises(IncompatibleError) as caught:
        c.require_compatible(ENGINES, CPU)
    for words in (RTX, "no NVIDIA GPU", "NVIDIA driver not installed"):
        assert words in caught.value.fact


def compiled(provider: str = RTX) -> ReleaseFacts:
    body = examples.facts_body()
    for name in ("planner", "refiner"):
        body["engines"][name] |= {"kind": "tensorrt_rtx", "provider": provider}
        body["engines"][name]["member"] = f"engines/{name}.engine.onnx"
    body["device"] = {
        "compute_capability": "8.9",
        "memory_bytes": 3 * GIB,
        "versions": {"driver": "580"},
    }
    return ReleaseFacts.model_validate(body)


def test_needs_are_read_from_a_manifest() -> None:
    needs = c.needs_of(compiled())
    assert needs == c.Needs(
        "example",
        "x86_64-linux-gnu",
        "2.35",
        frozenset({RTX}),
        "8.9",
        3 * GIB,
        {"driver": "580"},
    )
    assert c.needs_of(examples.facts()) == replace(GRAPHS, name="example")


def test_graphs_that_a_robot_is_to_build_run_anywhere_and_their_engines_do_not() -> None:
    body = examples.facts_body()
    body["device"] = compiled().model_dump(mode="json")["device"]
    body["provision"] = {
        "kind": "tensorrt",
        "provider": "TensorrtExecutionProvider",
        "options": {},
    }
    facts = ReleaseFacts.model_validate(body)
    assert c.mismatches(c.needs_of(facts), CPU) == []
    codes = {m.code for m in c.mismatches(c.provisioned_needs(facts), CPU)}
    assert codes == {"provider-unavailable", "compute-capability-mismatch", "driver-mismatch"}


def test_a_release_with_random_weights_is_for_measuring_alone() -> None:
    facts = examples.facts()
    c.require_trained(facts)
    random = facts.model_copy(update={"random_weights": True})
    with pytest.raises(IncompatibleError, match="random-weights"):
        c.require_trained(random)


def test_keys_that_came_later_leave_old_bytes_alone() -> None:
    body = examples.facts_body() | {"members": {}}
    written = ReleaseFacts.model_validate(examples.facts_body()).model_dump(mode="json")
    assert not {"device", "provision", "random_weights"} & written.keys()
    assert not {"compiled", "work"} & written["engines"]["planner"].keys()
    assert "device" in compiled().model_dump(mode="json")
    assert "members" in body
    assert Manifest.later == ReleaseFacts.later


def test_this_machine_is_read_from_its_files(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("proc")
    driver, tegra = folder / "version", folder / "tegra"
    driver.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul 27\n")
    tegra.write_text("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic\n")
    monkeypatch.setattr(c, "_NVIDIA_VERSION", driver)
    monkeypatch.setattr(c, "_TEGRA_RELEASE", tegra)
    device = c.this_device()
    assert device.versions == {"driver": "580.65.06", "jetpack": "6.0"}
    assert "compute_capability" in device.unknown
    assert device.glibc.startswith("2.")
    for file in (driver, tegra):
        file.unlink()
    bare = c.this_device()
    assert bare.versions == {}
    assert not bare.unknown
    codes = {m.code for m in c.mismatches(ENGINES, bare)}
    assert {"compute-capability-mismatch", "driver-mismatch"} <= codes
