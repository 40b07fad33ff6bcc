"""The bill of materials is recomputed from the members, whatever digest the manifest gives it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from libra_edge.bundle.manifest import canonical_json
from libra_edge.bundle.members import SBOM
from libra_edge.bundle.pack import write_release
from libra_edge.bundle.verify import open_release
from libra_edge.compiler.release.sbom import sbom
from libra_edge.verification.claims.materials import examine_materials
from tests.bundle.examples import facts, files

Change = Callable[[dict[str, Any]], Any]


def body_of(folder: Path) -> dict[str, Any]:
    members = {name: data for name, data in files().items() if name != SBOM}
    write_release(folder, facts(), members, described_by={SBOM: sbom})
    body: dict[str, Any] = json.loads((folder / SBOM).read_bytes())
    return body


def test_what_compile_writes_is_right(tmp_path: Path) -> None:
    body_of(tmp_path / "good")
    checks = examine_materials(open_release(tmp_path / "good"))
    assert [check.verdict for check in checks] == ["pass"] * 4


def test_a_release_without_one(tmp_path: Path) -> None:
    members = {name: data for name, data in files().items() if name != SBOM}
    write_release(tmp_path / "none", facts(), members)
    assert examine_materials(open_release(tmp_path / "none")) == []
    # Made-up bytes in its place are told.
    write_release(tmp_path / "odd", facts(), {**files(), SBOM: b"made up"})
    (check,) = examine_materials(open_release(tmp_path / "odd"))
    assert check.verdict == "fail"


CHANGES: dict[str, Change] = {
    "digest": lambda body: body["components"][0]["hashes"][0].update(content="0" * 64),
    "no digest": lambda body: body["components"][0].update(hashes=[]),
    "hidden file": lambda body: body["components"].pop(),
    "invented file": lambda body: body["components"].append(
        {**body["components"][0], "name": "lib/more.so"}
    ),
    "twice": lambda body: body["components"].append(body["components"][0]),
    "tool": lambda body: body["metadata"]["tools"]["components"][0].update(version="0"),
    "no tool": lambda body: body["metadata"]["tools"]["components"].clear(),
    "name": lambda body: body["metadata"]["component"].update(name="other"),
    "target": lambda body: body["metadata"]["component"]["properties"][0].update(value="x"),
    "not CycloneDX": lambda body: body.update(bomFormat="SPDX"),
    "nothing": lambda body: body.clear(),
    "dependencies": lambda body: body["dependencies"][0]["dependsOn"].pop(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_one_is_seen(tmp_path: Path, change: str) -> None:
    body = body_of(tmp_path / "good")
    CHANGES[change](body)
    members = {**files(), SBOM: canonical_json(body)}
    write_release(tmp_path / "bad", facts(), members)
    wrong = [c for c in examine_materials(open_release(tmp_path / "bad")) if c.verdict != "pass"]
    assert wrong
    assert all(check.note for check in wrong)
