"""Where a release comes from: an in-toto statement after SLSA 1.0, signed with the release.

It lies beside the release (`NAME.provenance.dsse.json`): it is about the manifest's digest, which
nothing inside the release could hold, and a robot has no use for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from libra_edge.atomic import new_file
from libra_edge.bundle.manifest import Manifest, canonical_json
from libra_edge.bundle.members import MANIFEST
from libra_edge.bundle.signing.envelope import STATEMENT_TYPE, envelope_of

PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
_BUILD_TYPE = "https://libra-edge.dev/compile/v1"
_BUILDER = "https://libra-edge.dev/libra-edge"


def provenance_path(release: Path) -> Path:
    """Where the statement about a release lies."""
    return release.parent / f"{release.name}.provenance.dsse.json"


def write_provenance(
    release: Path,
    manifest: Manifest,
    key: ec.EllipticCurvePrivateKey,
    revision: str | None = None,
) -> Path:
    """Write the signed statement beside a release; it replaces another.

    Args:
        release: the release's directory or file.
        manifest: its manifest.
        key: that the release is signed with.
        revision: of the sources that the policy comes from, as whoever signs names it.

    Raises:
        InputError: the place may not be written to.
        LibraError: the disk is full.
    """
    path = provenance_path(release)
    with new_file(path) as stream:
        payload = canonical_json(statement(manifest, revision))
        stream.write(canonical_json(envelope_of(payload, key)))
    return path


def statement(manifest: Manifest, revision: str | None = None) -> dict[str, Any]:
    """What went into a release: checkpoint, data, recipe, target, tools; nothing of the machine."""
    asked = {"name": manifest.name, "recipe": manifest.recipe, "target": manifest.target}
    if revision is not None:
        asked["revision"] = revision
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": MANIFEST, "digest": {"sha256": manifest.release_id}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": _BUILD_TYPE,
                "externalParameters": asked,
                "internalParameters": {"security_epoch": manifest.security_epoch},
                "resolvedDependencies": [*_materials(manifest), *_tools(manifest)],
            },
            "runDetails": {
                "builder": {
                    "id": _BUILDER,
                    "version": {"libra-edge": manifest.tools.get("libra-edge", "unknown")},
                }
            },
        },
    }


def _materials(manifest: Manifest) -> list[dict[str, Any]]:
    checkpoint = {"name": "checkpoint", "digest": {"sha256": manifest.policy.checkpoint_sha256}}
    if manifest.calibration is None:
        return [checkpoint]
    data = {
        "name": "calibration samples",
        "digest": {"sha256": manifest.calibration.sha256},
        "annotations": {"dataset": manifest.calibration.dataset},
    }
    return [checkpoint, data]


def _tools(manifest: Manifest) -> list[dict[str, Any]]:
    return [
        {"name": name, "annotations": {"version": version}}
        for name, version in sorted(manifest.tools.items())
    ]
