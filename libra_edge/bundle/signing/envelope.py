"""DSSE, and the Sigstore bundle around it: a statement, who says it, and the proof.

Written after the DSSE protocol 1.0 and Sigstore's bundle 0.3 for a key that verifiers know.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import BaseModel, ConfigDict, Field

from libra_edge.bundle.signing.keys import key_hint

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
_BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"


class Lenient(BaseModel):
    """What a verifier needs of a signed document; other keys may be there."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class _Exact(BaseModel):
    """No signature covers the bundle itself, so that nothing in it may be of no account."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Signature(_Exact):
    sig: str
    keyid: Literal[""] = ""


class _Envelope(_Exact):
    payload: str
    payload_type: Annotated[Literal["application/vnd.in-toto+json"], Field(alias="payloadType")]
    signatures: Annotated[list[_Signature], Field(min_length=1, max_length=1)]


class _PublicKey(_Exact):
    hint: str


class _Material(_Exact):
    public_key: Annotated[_PublicKey, Field(alias="publicKey")]
    log_entries: Annotated[list[str], Field(alias="tlogEntries", max_length=0)] = []


class _Bundle(_Exact):
    media_type: Annotated[
        Literal["application/vnd.dev.sigstore.bundle.v0.3+json"], Field(alias="mediaType")
    ]
    material: Annotated[_Material, Field(alias="verificationMaterial")]
    envelope: Annotated[_Envelope, Field(alias="dsseEnvelope")]


@dataclass(frozen=True)
class Signed:
    """A bundle as it was read: nothing in it is proven yet.

    hint: names the key; payload: the statement's bytes; signature: DER.
    """

    hint: str
    payload: bytes
    signature: bytes


def read_bundle(value: object) -> Signed:
    """What a Sigstore bundle holds.

    Raises:
        ValueError: it is not one that a known key signed.
    """
    bundle = _Bundle.model_validate(value)
    return Signed(
        hint=bundle.material.public_key.hint,
        payload=_decoded(bundle.envelope.payload),
        signature=_decoded(bundle.envelope.signatures[0].sig),
    )


def bundle_of(payload: bytes, key: ec.EllipticCurvePrivateKey) -> dict[str, Any]:
    """A signed statement as a Sigstore bundle; the same bytes and key give the same bundle."""
    return {
        "mediaType": _BUNDLE_TYPE,
        "verificationMaterial": {
            "publicKey": {"hint": key_hint(key.public_key())},
            "tlogEntries": [],
        },
        "dsseEnvelope": envelope_of(payload, key),
    }


def envelope_of(payload: bytes, key: ec.EllipticCurvePrivateKey) -> dict[str, Any]:
    """A signed statement as a DSSE envelope."""
    # RFC 6979: a nonce from key and message, so that signing again gives the same bytes.
    proof = key.sign(signed_bytes(payload), ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
    return {
        "payload": _encoded(payload),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{"sig": _encoded(proof)}],
    }


def is_signature(key: ec.EllipticCurvePublicKey, signed: Signed) -> bool:
    """Whether the bundle's signature is by this key over its payload."""
    try:
        key.verify(signed.signature, signed_bytes(signed.payload), ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def signed_bytes(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding of an in-toto statement."""
    return f"DSSEv1 {len(PAYLOAD_TYPE)} {PAYLOAD_TYPE} {len(payload)} ".encode() + payload


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _decoded(text: str) -> bytes:
    """Base64 in its one form.

    Raises:
        ValueError: it is none.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("it is not base64") from None
    if _encoded(data) != text:
        raise ValueError("it is not base64 in its one form")
    return data
