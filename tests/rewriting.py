"""Releases of other content, whole again: whatever they say of themselves agrees."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from libra_edge.bundle.manifest import Member, ReleaseFacts
from libra_edge.bundle.members import SBOM
from libra_edge.bundle.pack import write_release
from libra_edge.compiler.release.sbom import sbom


def rewrite(out: Path, facts: ReleaseFacts, files: Mapping[str, Path | bytes]) -> None:
    """Write a release; its bill of materials, where it has one, is that of these files."""
    others = {name: content for name, content in files.items() if name != SBOM}
    if SBOM not in files:
        write_release(out, facts, others)
        return
    members = {}
    for name, content in others.items():
        data = content if isinstance(content, bytes) else content.read_bytes()
        members[name] = Member(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))
    write_release(out, facts, {**others, SBOM: sbom(facts, members)})
