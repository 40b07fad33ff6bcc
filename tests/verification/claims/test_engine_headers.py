"""Releases whose compiled engines are not what their manifests say: found without a GPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from libra_edge.bundle.engine_facts import Compiled
from libra_edge.bundle.engine_files.rtx import property_name
from libra_edge.bundle.manifest import Manifest, ReleaseFacts
from libra_edge.bundle.pack import pack_release, write_release
from libra_edge.cli import app as program
from libra_edge.compiler.pipeline import compile_checkpoint
from libra_edge.compiler.request import Request
from libra_edge.engines._epcontext import wrap
from libra_edge.verification.claims.engine_headers import STAGE
from libra_edge.verification.request import Request as VerifyRequest
from libra_edge.verification.verify import verify_release
from tests.bundle.engine_files.test_rtx import PROVIDER, SIZE, engine
from tests.tiny import write_tiny_checkpoint


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release for an RTX 4090 without engines."""
    folder = tmp_path_factory.mktemp("headers")
    write_tiny_checkpoint(folder / "checkpoint")
    compile_checkpoint(
        Request(
            folder / "checkpoint",
            target="rtx4090",
            recipe="fp32",
            out=folder / "plain",
            cache=folder / "cache",
            samples=4,
            engines_on_device=True,
        )
    )
    return folder / "plain"


def with_engines(plain: Path, out: Path, content: bytes, *, told: bool = True) -> Path:
    """The same release with an engine of these bytes in both places; told: with its property."""
    facts = Manifest.model_validate_json((plain / "manifest.json").read_bytes())
    fields: dict[str, Any] = {name: getattr(facts, name) for name in ReleaseFacts.model_fields}
    files: dict[str, Path | bytes] = {name: plain / name for name in facts.members}
    engines = {}
    for name, one in facts.engines.by_name.items():
        member = f"engines/{name}.engine.onnx"
        made = Compiled(
            compiler="tensorrt-rtx",
            version="1.7.1.116",
            compute_capability="8.9",
            engine_bytes=SIZE,
            weight_bytes=1,
            workspace_bytes=1,
        )
        changes = {"member": member, "kind": "tensorrt_rtx", "provider": PROVIDER, "compiled": made}
        engines[name] = one.model_copy(update={**changes, "session_options": {}})
        files[member] = wrap(
            content,
            one.inputs,
            one.outputs,
            name=name,
            provider=PROVIDER,
            hardware="89",
            sdk_version="1.7.1.116",
            metadata={property_name(PROVIDER): content[:64].hex()} if told else None,
        )
    fields |= {"engines": facts.engines.model_copy(update=engines), "provision": None}
    write_release(out, ReleaseFacts(**fields), files)
    return out


def failed(release: Path) -> dict[str, str]:
    checks = verify_release(VerifyRequest(release, golden_only=True)).checks
    found = [check for check in checks if check.stage == STAGE]
    assert found
    return {check.metric: check.note for check in found if check.verdict == "fail"}


def inspected(release: Path) -> tuple[int, Any]:
    done = CliRunner().invoke(program.app, ["inspect", str(release), "--json"])
    return done.exit_code, json.loads(done.stdout)


@pytest.mark.parametrize("told", [True, False])
def test_good_engines_pass(plain: Path, tmp_path: Path, told: bool) -> None:
    release = with_engines(plain, tmp_path / "release", engine(), told=told)
    assert failed(release) == {}
    result = verify_release(VerifyRequest(release, golden_only=True))
    assert told != any("ep_compatibility_info" in words for words in result.unchecked)
    code, shown = inspected(release)
    assert code == 0
    assert shown["result"]["engine_headers"]["planner"] == {
        "size_bytes": SIZE,
        "version": "1.7.1.116",
        "capabilities": ["8.9"],
    }
    pack_release(release, tmp_path / "one.libra")
    assert (
        inspected(tmp_path / "one.libra")[1]["result"]["engine_headers"]
        == shown["result"]["engine_headers"]
    )


@pytest.mark.parametrize(
    ("content", "metric", "words"),
    [
        (engine()[:-1], "size", "the file holds 4095 bytes"),
        (engine(mask=4), "compute capability", "header says 8.6"),
        (engine(mask=16), "compute capability", "target rtx4090 has 8.9"),
        (engine(version=b"\1\6\0\x10"), "version", "header says 1.6.0.16"),
        (bytes(SIZE), "header", "does not begin as"),
    ],
)
def test_others_fail(plain: Path, tmp_path: Path, content: bytes, metric: str, words: str) -> None:
    release = with_engines(plain, tmp_path / "release", content)
    found = failed(release)
    assert found.keys() == {f"planner {metric}", f"refiner {metric}"}
    assert words in found[f"refiner {metric}"]
    code, shown = inspected(release)
    assert code != 0
    assert shown["error"]["code"] == "engine-header-mismatch"
    assert words in shown["error"]["fact"]


def test_a_release_without_such_engines_has_no_such_check(plain: Path) -> None:
    checks = verify_release(VerifyRequest(plain, golden_only=True)).checks
    assert STAGE not in {check.stage for check in checks}
    assert inspected(plain)[1]["result"]["engine_headers"] == {}
