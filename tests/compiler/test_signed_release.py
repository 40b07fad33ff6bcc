"""What a compile says beside the policy: its bill of materials, its provenance, its signature."""

from __future__ import annotations

import base64
import json
import os
import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from typer.testing import CliRunner

from libra_edge import compile_checkpoint
from libra_edge.binding.policy import Policy
from libra_edge.bundle.members import MANIFEST, SBOM, SIGNATURE
from libra_edge.bundle.signature import check_release
from libra_edge.bundle.signing.envelope import signed_bytes
from libra_edge.bundle.signing.keys import generate_key, load_private
from libra_edge.bundle.verify import verify_integrity
from libra_edge.cli import app as program
from libra_edge.compiler.pipeline import Compiled
from libra_edge.errors import ExitCode, InputError, LibraError
from tests.bundle.signed import NOW, trusting
from tests.tiny import write_tiny_checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("signed")
    write_tiny_checkpoint(folder / "checkpoint")
    generate_key(folder / "robot.key", None)
    return folder


@pytest.fixture(scope="module")
def key(folder: Path) -> ec.EllipticCurvePrivateKey:
    return load_private(folder / "robot.key", None)


@pytest.fixture(scope="module")
def compiled(folder: Path) -> Compiled:
    return compile_checkpoint(
        folder / "checkpoint",
        out=folder / "release",
        cache=folder / "cache",
        form="unrolled",
        security_epoch=4,
        sign=folder / "robot.key",
    )


def test_it_is_signed_and_of_its_epoch(compiled: Compiled, key: ec.EllipticCurvePrivateKey) -> None:
    manifest, signer = check_release(compiled.path, trusting(key), NOW)
    assert manifest.security_epoch == 4
    assert signer.role == "release"


def test_the_runtime_opens_a_signed_release(compiled: Compiled) -> None:
    assert (compiled.path / SIGNATURE).is_file()
    with Policy(compiled.path):
        pass


@pytest.mark.parametrize("kind", ["folder", "link", "fifo", "large"])
def test_the_runtime_refuses_what_is_no_signature(
    compiled: Compiled, tmp_path: Path, kind: str
) -> None:
    shutil.copytree(compiled.path, tmp_path / "release")
    path = tmp_path / "release" / SIGNATURE
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(compiled.path / SIGNATURE)
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.write_bytes(bytes(2**20 + 1))
    with pytest.raises(LibraError, match=r"model\.sig|integrity"):
        Policy(tmp_path / "release")


def test_the_bill_of_materials(compiled: Compiled) -> None:
    text = (compiled.path / SBOM).read_text("utf-8")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bill, manifest = json.loads(text), verify_integrity(compiled.path)
    found = {part["name"]: part["hashes"][0]["content"] for part in bill["components"]}
    assert found == {n: m.sha256 for n, m in manifest.members.items() if n != SBOM}
    tools = {one["name"]: one["version"] for one in bill["metadata"]["tools"]["components"]}
    assert tools == dict(manifest.tools)
    versions = {part["name"]: part.get("version") for part in bill["components"]}
    assert versions["lib/libonnxruntime.so"] == manifest.runtime.onnxruntime_version


def test_the_provenance_is_signed_and_of_this_release(
    compiled: Compiled, key: ec.EllipticCurvePrivateKey
) -> None:
    envelope = json.loads((compiled.path.parent / "release.provenance.dsse.json").read_bytes())
    payload = base64.b64decode(envelope["payload"])
    proof = base64.b64decode(envelope["signatures"][0]["sig"])
    key.public_key().verify(proof, signed_bytes(payload), ec.ECDSA(hashes.SHA256()))
    said, manifest = json.loads(payload), compiled.manifest
    assert said["subject"] == [{"name": MANIFEST, "digest": {"sha256": manifest.release_id}}]
    assert said["predicateType"] == "https://slsa.dev/provenance/v1"
    build = said["predicate"]["buildDefinition"]
    assert build["externalParameters"] == {
        "name": manifest.name,
        "recipe": "fp32",
        "target": "cpu-x86_64",
    }
    assert build["resolvedDependencies"][0] == {
        "name": "checkpoint",
        "digest": {"sha256": manifest.policy.checkpoint_sha256},
    }
    assert str(compiled.path.parent) not in payload.decode()


def test_a_key_that_is_not_usable_is_found_before_the_work(folder: Path, tmp_path: Path) -> None:
    generate_key(tmp_path / "shut.key", b"words")
    out = tmp_path / "out"
    for name in ("shut.key", "none.key"):
        with pytest.raises(InputError, match="key-"):
            compile_checkpoint(folder / "checkpoint", out=out, sign=tmp_path / name)
    for target in ("cpu-x86_64", "cpu-x86_64,rtx4090"):
        words = ["compile", str(folder / "checkpoint"), "--target", target, "--out", str(out)]
        done = CliRunner().invoke(program.app, [*words, "--sign", str(tmp_path / "shut.key")])
        assert done.exit_code == ExitCode.USAGE
        assert "key-passphrase" in done.stderr
    assert not out.exists()


@pytest.mark.parametrize("epoch", [-1, 2**31])
def test_an_epoch_past_its_bounds(folder: Path, tmp_path: Path, epoch: int) -> None:
    with pytest.raises(InputError, match="usage"):
        compile_checkpoint(folder / "checkpoint", out=tmp_path / "out", security_epoch=epoch)
