"""`libra-edge sign`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from libra_edge.bundle.members import SIGNATURE
from libra_edge.bundle.signature import sign_release
from libra_edge.bundle.signing.keys import key_id
from libra_edge.bundle.signing.provenance import write_provenance

from ._options import Json
from ._passphrase import PassphraseEnv, load_key
from ._render import Output


def sign(
    release: Annotated[
        Path,
        typer.Argument(
            help="Release directory or .libra file.", metavar="RELEASE", show_default=False
        ),
    ],
    key: Annotated[
        Path, typer.Option(metavar="FILE", help="Private key, NAME.key.", show_default=False)
    ],
    passphrase_env: PassphraseEnv = None,
    revision: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="Revision of the sources that the policy comes from, for its provenance.",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Sign a release: model.sig goes into it, its provenance beside it.

    Every byte of the release is checked first. Signing again with another key replaces the
    signature. Key and release give the same bytes each time.
    """
    output = Output("sign", json)
    private = load_key(key, passphrase_env)
    manifest = sign_release(release, private)
    provenance = write_provenance(release, manifest, private, revision)
    identity = key_id(private.public_key())
    output.finish(
        {
            "path": str(release),
            "release_id": manifest.release_id,
            "key_id": identity,
            "signature": SIGNATURE,
            "provenance": str(provenance),
            "security_epoch": manifest.security_epoch,
        },
        f"{release}, signed by {identity[:12]}, security epoch {manifest.security_epoch}",
        next_command=("verify", release, "--signature-only", "--trust", "trust.json"),
    )
