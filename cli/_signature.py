"""Who signed a release, as `verify` asks and shows it."""

from __future__ import annotations

import time
from pathlib import Path

from libra_edge.bundle.manifest import Manifest
from libra_edge.bundle.signature import Signer, check_release, read_trust
from libra_edge.bundle.verify import read_signature
from libra_edge.errors import IntegrityError

from ._render import Output


def signer_of(release: Path, trust_file: Path) -> tuple[Manifest, Signer]:
    """Check every byte and who signed them, now.

    Raises:
        InputError: the release or the trust file cannot be read.
        IntegrityError: a byte or the signature is not what it must be, or the trust file does not
            let the release in.
    """
    return check_release(release, read_trust(trust_file), int(time.time()))


def require_signed(result: Manifest, signed: Manifest | None) -> None:
    """That what was measured is what the signature is over, should it have been exchanged since.

    Raises:
        IntegrityError: it is another release.
    """
    if signed is not None and signed.release_id != result.release_id:
        raise IntegrityError(
            "release-exchanged",
            f"The signature was over release {signed.release_id[:12]}, but "
            f"{result.release_id[:12]} was measured.",
            "See what writes to the release, and verify it again.",
        )


def show_signer(output: Output, release: Path, signer: Signer | None) -> None:
    """One line on the signature; where nobody asked for it, that it was not checked."""
    if signer is not None:
        output.text(f"signed by {signer.key_id[:12]}, a {signer.role} key")
    elif read_signature(release) is not None:
        output.text("signature: not checked (--trust FILE)")


def finish_signature(output: Output, release: Path, manifest: Manifest, signer: Signer) -> None:
    """The result of `--signature-only`."""
    output.finish(
        {
            "path": str(release),
            "release_id": manifest.release_id,
            "key_id": signer.key_id,
            "role": signer.role,
            "security_epoch": manifest.security_epoch,
        },
        f"{release}: every byte as the manifest says, signed by {signer.key_id[:12]}, "
        f"a {signer.role} key",
        next_command=("verify", release),
    )
