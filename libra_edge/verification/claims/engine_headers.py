"""What compiled engines say of themselves in their headers: read on any machine, with no driver."""

from __future__ import annotations

from libra_edge.bundle.engine_files.rtx import COMPILER, PROPERTY, engine_headers
from libra_edge.parity.gates import Check
from libra_edge.verification.claims.held import claim
from libra_edge.verification.subject import Subject

STAGE = "headers of the engines"


def examine_engine_headers(subject: Subject) -> list[Check]:
    """Size, version and compute capability of every engine whose header is known."""
    checks = []
    manifest = subject.manifest
    for name, found in engine_headers(manifest, subject.release.path).items():
        checks += [
            claim(f"{name} {one.metric}", not one.fault, one.fault, STAGE) for one in found.findings
        ]
        if all(one.metric != "compatibility info" for one in found.findings):
            subject.unchecked.append(f"{PROPERTY} of the {name} engine: its file has none")
    for name, engine in manifest.engines.by_name.items():
        made = engine.compiled
        if made is not None and made.compiler != COMPILER:
            subject.unchecked.append(f"header of the {name} engine: {made.compiler}'s is not known")
    return checks
