"""Keys and signed releases for tests."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from libra_edge.bundle.manifest import ReleaseFacts
from libra_edge.bundle.pack import write_release
from libra_edge.bundle.signature import sign_release
from libra_edge.bundle.signing.trust import NOBODY, Role, Trust
from tests.bundle.examples import files, make_release, runnable_body

LAST_DAY = date(2030, 6, 30)
# 12:00 UTC on 2026-01-01, and the seconds around the end of the last day.
NOW = 1767268800
LAST_SECOND = 1909094399


def new_key(seed: int = 1) -> ec.EllipticCurvePrivateKey:
    """The same key for the same seed, so that a failure can be repeated."""
    return ec.derive_private_key(seed, ec.SECP256R1())


def trusting(
    *keys: ec.EllipticCurvePrivateKey, role: Role = "release", last: date = LAST_DAY
) -> Trust:
    trust = NOBODY
    for key in keys:
        trust = trust.with_key(key.public_key(), role, last)
    return trust


def signed_release(folder: Path, key: ec.EllipticCurvePrivateKey, name: str = "example") -> Path:
    release = make_release(folder, name)
    sign_release(release, key)
    return release


def runnable_release(
    folder: Path, key: ec.EllipticCurvePrivateKey, name: str = "example", epoch: int = 0
) -> Path:
    """One that an agent installs; its members are made up, so nothing can open it."""
    body = runnable_body(name) | ({"security_epoch": epoch} if epoch else {})
    write_release(folder / name, ReleaseFacts.model_validate(body), files())
    sign_release(folder / name, key)
    return folder / name
