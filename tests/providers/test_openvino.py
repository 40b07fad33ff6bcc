"""A second, real provider from the checkpoint to the running release, built on the robot too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from libra_edge.bundle.verify import verify_integrity
from tests.providers import OPENVINO, openvino_environment
from tests.tiny import write_tiny_checkpoint

Settings = Mapping[str, str]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    found = openvino_environment(tmp_path_factory.mktemp("package"))
    if found is None:
        pytest.skip("the extra openvino is not installed")
    return found


def python(settings: Settings, *arguments: str, code: int = 0) -> str:
    result = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == code, (result.stdout + result.stderr)[-3000:]
    return result.stdout


def cli(settings: Settings, *arguments: object, code: int = 0) -> str:
    return python(settings, "-m", "libra_edge.cli", *map(str, arguments), code=code)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, settings: Settings) -> Path:
    """With `checkpoint`, `host` (a release that OpenVINO loads) and `device` (one to build)."""
    folder = tmp_path_factory.mktemp("openvino")
    write_tiny_checkpoint(folder / "checkpoint")
    for name, more in (("host", []), ("device", ["--engines-on-device"])):
        cli(
            settings,
            *("compile", folder / "checkpoint", "--target", "cpu-openvino"),
            *("--out", folder / name, "--cache", folder / "cache", *more),
        )
    return folder


def test_a_release_takes_the_provider_along(folder: Path) -> None:
    manifest = verify_integrity(folder / "host")
    assert OPENVINO.members <= manifest.members.keys()
    assert {e.provider for e in manifest.engines.by_name.values()} == {OPENVINO.name}
    assert manifest.parity.verdict == "pass"


def test_it_verifies(folder: Path, settings: Settings) -> None:
    said = cli(
        settings, "verify", folder / "host", "--checkpoint", folder / "checkpoint", "--quick"
    )
    assert "0 failed, 0 not measured" in said


def test_bf16_does_not_pass_the_gate(folder: Path, settings: Settings) -> None:
    """What OpenVINO does by itself where the processor can; then the numbers differ."""
    code = """
import dataclasses, sys
from pathlib import Path
from types import MappingProxyType
from libra_edge.catalog import providers
from libra_edge.engines import _plugin, base, openvino
from libra_edge.compiler.engines import plan
from libra_edge.compiler.pipeline import compile_checkpoint
from libra_edge.compiler.request import Request
from libra_edge.errors import ParityError

name = "OpenVINOExecutionProvider"
free = dataclasses.replace(providers.PROVIDERS[name], options={
    "load_config": '{"CPU": {"INFERENCE_PRECISION_HINT": "bf16"}}'})
changed = MappingProxyType({**providers.PROVIDERS, name: free})
for module in (providers, _plugin, base, plan):
    module.PROVIDERS = changed
request = Request(Path(sys.argv[1]), target="cpu-openvino", samples=8, out=Path(sys.argv[2]))
try:
    compile_checkpoint(request)
except ParityError as error:
    print(error.code, error.fact)
    raise SystemExit(3)
"""
    if not _computes_in_bf16(settings):
        pytest.skip("this processor has no bf16: OpenVINO would compute in fp32 all the same")
    out = folder / "bf16"
    said = python(settings, "-c", code, str(folder / "checkpoint"), str(out), code=3)
    assert "the gate is" in said
    assert not out.exists()


def _computes_in_bf16(settings: Settings) -> bool:
    code = """
import onnxruntime as ort
from libra_edge.catalog.providers import PROVIDERS
from libra_edge.engines._plugin import _device, is_there
assert is_there(PROVIDERS["OpenVINOExecutionProvider"])
print(_device("OpenVINOExecutionProvider").ep_metadata.get("OPTIMIZATION_CAPABILITIES", ""))
"""
    return "BF16" in python(settings, "-c", code)


# ---- engines that the robot builds ------------------------------------------------------------


@pytest.fixture(scope="module")
def built(folder: Path, settings: Settings) -> Path:
    """The folder of engines that `provision` made."""
    cache = folder / "engines"
    said = cli(settings, "provision", folder / "device", "--cache", cache, "--json")
    answer = json.loads(said[said.index("{") :])
    answer = answer.get("result", answer)
    assert (answer["provider"], answer["built"]) == (OPENVINO.name, True)
    assert {check["verdict"] for check in answer["checks"]} == {"pass"}
    return Path(answer["folder"])


OPEN = """
import json, sys
from libra_edge.binding.policy import Policy
from libra_edge.errors import LibraError
try:
    with Policy(sys.argv[1], engines_dir=sys.argv[2]) as policy:
        print(json.dumps([policy.engine("planner").status, policy.engine("refiner").provider]))
except LibraError as error:
    print(json.dumps([error.code, error.fact]))
"""


def opened(settings: Settings, release: Path, engines: Path) -> Any:
    return json.loads(python(settings, "-c", OPEN, str(release), str(engines)))


def test_the_runtime_runs_what_was_built(folder: Path, settings: Settings, built: Path) -> None:
    assert opened(settings, folder / "device", built) == ["built here", OPENVINO.name]
    again = cli(settings, "provision", folder / "device", "--cache", built.parent)
    assert "nothing to do" in again


def test_and_nothing_else(folder: Path, settings: Settings, built: Path, tmp_path: Path) -> None:
    def copy(name: str, **changes: Any) -> Path:
        to = tmp_path / name
        to.mkdir()
        for path in built.iterdir():
            (to / path.name).write_bytes(path.read_bytes())
        if changes:
            mark = json.loads((to / "usable.json").read_text())
            (to / "usable.json").write_text(json.dumps(mark | changes))
        return to

    flipped = copy("flipped")
    content = bytearray((flipped / "refiner.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (flipped / "refiner.onnx").write_bytes(content)
    missing = copy("missing")
    (missing / "planner.onnx").unlink()
    linked = copy("linked")
    (linked / "planner.onnx").unlink()
    (linked / "planner.onnx").symlink_to(built / "planner.onnx")
    unmarked = copy("unmarked")
    (unmarked / "usable.json").unlink()
    refused = {
        flipped: "integrity",
        missing: "integrity",
        linked: "integrity",
        unmarked: "integrity",
        copy("unproven", proven=False): "unproven",
        copy("elsewhere", device="Another processor"): "wrong-device",
        copy("release", release="0" * 64): "integrity",
        copy("provider", provider="CPUExecutionProvider"): "integrity",
        copy("schema", schema_version=1): "integrity",
        copy("engines", engines={}): "malformed",
        tmp_path / "nowhere": "invalid-argument",
    }
    for engines, code in refused.items():
        found = opened(settings, folder / "device", engines)
        assert found[0] == code, (engines.name, found)
    # A release whose engines lie in it leaves none to the robot.
    assert opened(settings, folder / "host", built)[0] == "invalid-argument"
