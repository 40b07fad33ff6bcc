"""`sbom.cdx.json`: every file of a release and every tool that made it (CycloneDX 1.6)."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping
from typing import Any

from libra_edge.bundle.manifest import Member, ReleaseFacts, canonical_json

_LIBRARIES = ("lib/", "include/")
_MODELS = "engines/"


def sbom(facts: ReleaseFacts, members: Mapping[str, Member]) -> bytes:
    """The bill of materials of a release.

    No time and no random number is in it, so that the same release has the same one.

    Args:
        facts: of the release.
        members: all of its members but this one and the manifest, which holds this one's digest.
    """
    files = [_file(name, member, facts) for name, member in sorted(members.items())]
    body = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "machine-learning-model",
                "bom-ref": "release",
                "name": facts.name,
                "properties": [
                    {"name": "libra-edge:target", "value": facts.target},
                    {"name": "libra-edge:recipe", "value": facts.recipe},
                    {
                        "name": "libra-edge:checkpoint_sha256",
                        "value": facts.policy.checkpoint_sha256,
                    },
                ],
            },
            "tools": {
                "components": [
                    {"type": "application", "name": name, "version": version}
                    for name, version in sorted(facts.tools.items())
                ]
            },
        },
        "components": files,
        "dependencies": [{"ref": "release", "dependsOn": [file["bom-ref"] for file in files]}],
    }
    # The form of a number made from a name; the name is the content.
    digest = hashlib.sha256(canonical_json(body)).digest()
    serial = uuid.UUID(bytes=digest[:16], version=5)
    return canonical_json({**body, "serialNumber": f"urn:uuid:{serial}"})


def _file(name: str, member: Member, facts: ReleaseFacts) -> dict[str, Any]:
    kind = "library" if name.startswith(_LIBRARIES) else "file"
    versions = {
        "lib/libonnxruntime.so": facts.runtime.onnxruntime_version,
        "lib/liblibra_edge.so": facts.tools.get("libra-edge"),
    }
    version = versions.get(name)
    return {
        "type": "machine-learning-model" if name.startswith(_MODELS) else kind,
        "bom-ref": name,
        "name": name,
        **({"version": version} if version else {}),
        "hashes": [{"alg": "SHA-256", "content": member.sha256}],
    }
