"""The bill of materials of a release, held against its members and its manifest."""

from __future__ import annotations

from typing import Any

from libra_edge.bundle.members import SBOM
from libra_edge.bundle.signing.plain_json import read_plain_json
from libra_edge.bundle.verify import Release
from libra_edge.parity.gates import Check
from libra_edge.verification.claims.held import Claims, claim, differences

WHAT = "bill of materials"
_MOST_WORDS = 6


def examine_materials(release: Release) -> list[Check]:
    """Whether every other member is in it with its digest, and nothing else; none without one.

    Files, tools, and what the release calls itself are what other tools read of it; the rest is
    CycloneDX's form.
    """
    if SBOM not in release.manifest.members:
        return []
    try:
        told = _told(read_plain_json(release.member(SBOM).read_bytes()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return [claim(WHAT, False, f"{SBOM} cannot be read as CycloneDX: {error!r}")]
    claims = Claims()
    for name, found in _wanted(release).items():
        lines = differences(told[name], found)
        words = [f"{key} is {a!r} in it, {b!r} in the release" for key, a, b in lines]
        claims.judge(f"{WHAT}: {name}", not lines, "; ".join(words[:_MOST_WORDS]))
    return claims.checks


def _wanted(release: Release) -> dict[str, Any]:
    manifest = release.manifest
    members = {name: m.sha256 for name, m in manifest.members.items() if name != SBOM}
    return {
        "files": members,
        "dependencies": sorted(members),
        "tools": dict(manifest.tools),
        "release": {
            "name": manifest.name,
            "libra-edge:target": manifest.target,
            "libra-edge:recipe": manifest.recipe,
            "libra-edge:checkpoint_sha256": manifest.policy.checkpoint_sha256,
        },
    }


def _told(body: Any) -> dict[str, Any]:
    if body["bomFormat"] != "CycloneDX":
        raise ValueError(f"bomFormat is {body['bomFormat']!r}")
    component, tools = body["metadata"]["component"], body["metadata"]["tools"]["components"]
    (own,) = (row["dependsOn"] for row in body["dependencies"] if row["ref"] == "release")
    files = _table((row["name"], _digest(row)) for row in body["components"])
    properties = _table((row["name"], row["value"]) for row in component["properties"])
    return {
        "files": files,
        "dependencies": sorted(own),
        "tools": _table((row["name"], row["version"]) for row in tools),
        "release": {"name": component["name"], **properties},
    }


def _table(rows: Any) -> dict[str, Any]:
    """Raises ValueError: a name is there twice."""
    pairs = list(rows)
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is in it twice")
    return found


def _digest(row: dict[str, Any]) -> str:
    (digest,) = (one["content"] for one in row["hashes"] if one["alg"] == "SHA-256")
    return str(digest)
