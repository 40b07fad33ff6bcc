"""`model.sig`: who signed a release (OpenSSF Model Signing v1.0, docs/decisions/0100).

A statement that lists the manifest and every member by sha256, written from the manifest's digests
without reading a member again. `runtime/src/release/signature.cc` is its twin on the robot.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import Field, ValidationError

from libra_edge.atomic import new_file
from libra_edge.bundle.container import with_signature
from libra_edge.bundle.manifest import Manifest, canonical_json, parse_manifest
from libra_edge.bundle.members import MANIFEST, MAX_SIGNATURE_BYTES, SIGNATURE
from libra_edge.bundle.signing.envelope import (
    STATEMENT_TYPE,
    Lenient,
    Signed,
    bundle_of,
    is_signature,
    read_bundle,
)
from libra_edge.bundle.signing.plain_json import read_plain_json
from libra_edge.bundle.signing.trust import Role, Trust, TrustedKey, read_trust
from libra_edge.bundle.verify import read_signature, verify_integrity
from libra_edge.errors import IntegrityError, UntrustedError
from libra_edge.paths import StrPath

__all__ = [
    "Signer",
    "Trust",
    "check_release",
    "check_signature",
    "read_trust",
    "sign_release",
    "signature_of",
]

PREDICATE_TYPE = "https://model_signing/signature/v1.0"


@dataclass(frozen=True)
class Signer:
    """Whose signature a release has: the key's id and its role in the trust file."""

    key_id: str
    role: Role


class _Digests(Lenient):
    sha256: str


class _Subject(Lenient):
    digest: _Digests


class _Serialization(Lenient):
    method: Literal["files"]
    hash_type: Literal["sha256"]


class _Resource(Lenient):
    name: str
    algorithm: Literal["sha256"]
    digest: str


class _Predicate(Lenient):
    serialization: _Serialization
    resources: list[_Resource]


class _Statement(Lenient):
    type: Annotated[Literal["https://in-toto.io/Statement/v1"], Field(alias="_type")]
    predicate_type: Annotated[
        Literal["https://model_signing/signature/v1.0"], Field(alias="predicateType")
    ]
    subject: Annotated[list[_Subject], Field(min_length=1, max_length=1)]
    predicate: _Predicate


def signature_of(manifest: Manifest, key: ec.EllipticCurvePrivateKey) -> bytes:
    """The bytes of `model.sig` for a release; the same release and key give the same bytes."""
    resources = sorted(_resources(manifest).items())
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": manifest.name, "digest": {"sha256": _whole(resources)}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": [SIGNATURE],
            },
            "resources": [
                {"name": name, "algorithm": "sha256", "digest": digest}
                for name, digest in resources
            ],
        },
    }
    # Without a blank anywhere: no signature covers the bundle, and no byte of it is to spare.
    bundle = bundle_of(canonical_json(statement), key)
    return json.dumps(bundle, sort_keys=True, separators=(",", ":")).encode()


def check_signature(manifest: bytes, signature: bytes, trust: Trust, now_unix_s: int) -> Signer:
    """Who signed this manifest and every member that it names.

    That the members are what the manifest says is `verify_integrity`'s to see.

    Args:
        manifest: the bytes of `manifest.json`.
        signature: the bytes of `model.sig`.
        trust: whom to trust.
        now_unix_s: the time, in seconds since 1970, for keys that expire.

    Raises:
        IntegrityError: it is no signature of the standard, or not one over this release.
        UntrustedError: its key is unknown, expired, or for development where that is not taken.
        IncompatibleError: the manifest has another schema.
    """
    release = parse_manifest(manifest)
    try:
        if len(signature) > MAX_SIGNATURE_BYTES:
            raise ValueError("it is too large")
        signed = read_bundle(read_plain_json(signature))
    except ValueError as error:
        raise _malformed(error) from None
    key = next((one for one in trust.keys if one.hint == signed.hint), None)
    if key is None:
        raise UntrustedError(
            "key-unknown",
            f"{SIGNATURE} is by a key that the trust file does not hold "
            f"(hint {signed.hint[:12]!r}).",
            "Sign with a trusted key, or add this one with `libra-edge keys trust add`.",
        )
    if not is_signature(key.public_key, signed):
        raise _broken("signature-wrong", f"{SIGNATURE} is not a signature by the key that it names")
    _require_usable(key, trust, now_unix_s)
    _require_statement(release, signed)
    return Signer(key.id, key.role)


def sign_release(release: StrPath, key: ec.EllipticCurvePrivateKey) -> Manifest:
    """Sign a release, directory or one file; the signature replaces another.

    Every byte is checked first: nobody signs what a release merely claims to hold.

    Raises:
        InputError: there is no release, or the place may not be written to.
        IntegrityError: a member is missing, unexpected or changed.
        LibraError: the disk is full; the release is as it was.
    """
    path = Path(release).resolve()  # a link stays one
    manifest = verify_integrity(path)
    signature = signature_of(manifest, key)
    if path.is_file():
        with new_file(path) as stream:
            with_signature(path, signature, stream)
    else:
        with new_file(path / SIGNATURE, beside=path) as stream:
            stream.write(signature)
    return manifest


def check_release(release: StrPath, trust: Trust, now_unix_s: int) -> tuple[Manifest, Signer]:
    """Check every byte of a release, and who signed it.

    Raises:
        InputError: there is no release.
        IntegrityError: a member or the signature is not what it must be.
        UntrustedError: the trust file does not let it in, or nobody signed it.
    """
    manifest = verify_integrity(release)
    signature = read_signature(release)
    if signature is None:
        raise UntrustedError(
            "release-unsigned",
            f"{release} has no {SIGNATURE}: nobody signed it.",
            "Sign it with `libra-edge sign`, or fetch the signed release.",
        )
    return manifest, check_signature(manifest.to_bytes(), signature, trust, now_unix_s)


def _resources(manifest: Manifest) -> dict[str, str]:
    """Name to sha256 of all that a signature covers."""
    members = {name: member.sha256 for name, member in manifest.members.items()}
    return {MANIFEST: manifest.release_id, **members}


def _whole(resources: list[tuple[str, str]]) -> str:
    """The standard's digest of a model: over the digests of its files, in their order."""
    return hashlib.sha256(b"".join(bytes.fromhex(digest) for _, digest in resources)).hexdigest()


def _require_usable(key: TrustedKey, trust: Trust, now_unix_s: int) -> None:
    if key.is_expired(now_unix_s):
        raise UntrustedError(
            "key-expired",
            f"The key {key.id[:12]} expired on {key.expires}.",
            "Sign the release again with a key that is still good.",
        )
    if key.role == "development" and not trust.allow_development:
        raise UntrustedError(
            "key-role",
            f"The key {key.id[:12]} is for development; the trust file takes release keys alone.",
            "Sign the release with a release key.",
        )


def _require_statement(release: Manifest, signed: Signed) -> None:
    try:
        statement = _Statement.model_validate(read_plain_json(signed.payload))
    except ValueError as error:
        raise _malformed(error) from None
    left, listed = _resources(release), []
    for resource in statement.predicate.resources:
        if left.pop(resource.name, None) != resource.digest:
            raise _broken(
                "signature-of-another",
                f"{SIGNATURE} is of another release: this one has no such {resource.name!r}",
            )
        listed.append((resource.name, resource.digest))
    if left:
        raise _broken("signature-of-another", f"{SIGNATURE} does not cover {min(left)}")
    if statement.subject[0].digest.sha256 != _whole(listed):
        raise _broken("signature-wrong", f"{SIGNATURE} is not the digest of what it lists")


def _malformed(error: ValueError) -> IntegrityError:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        why = f"{'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}"
    else:
        why = str(error)
    return _broken("signature-malformed", f"{SIGNATURE} is no signature of the standard: {why}")


def _broken(code: str, fact: str) -> IntegrityError:
    return IntegrityError(code, f"{fact}.", "Fetch the release again, or sign it again.")
