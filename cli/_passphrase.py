"""Passphrases of private keys: from the terminal, or from a variable by its name; never shown."""

from __future__ import annotations

import os
import sys
from getpass import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from libra_edge.errors import InputError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

PassphraseEnv = Annotated[
    str | None,
    typer.Option(
        "--passphrase-env",
        metavar="NAME",
        help="Environment variable that holds the key's passphrase.",
        show_default="asked for",
    ),
]


def load_key(path: Path, env: str | None) -> EllipticCurvePrivateKey:
    """The private key in a file; asks for its passphrase where it has one and `env` is None.

    Raises:
        InputError: the key or its passphrase is not usable.
    """
    from libra_edge.bundle.signing.keys import is_encrypted, load_private

    if env is not None:
        return load_private(path, from_variable(env))
    return load_private(path, _asked(f"Passphrase of {path}: ") if is_encrypted(path) else None)


def new_passphrase(env: str | None, *, ask: bool) -> bytes | None:
    """The passphrase of a key that is to be made: from a variable, asked for twice, or none.

    Raises:
        InputError: it is empty, the two differ, or there is no terminal to ask on.
    """
    if env is not None:
        return from_variable(env)
    if not ask:
        return None
    first = _asked("Passphrase of the new key: ")
    if first != _asked("The same again: "):
        raise InputError("key-passphrase", "The two passphrases differ.", "Try again.")
    return first


def from_variable(name: str) -> bytes:
    """The passphrase in an environment variable.

    Raises:
        InputError: there is none, or it is empty.
    """
    value = os.environb.get(os.fsencode(name))
    if not value:
        raise InputError(
            "key-passphrase",
            f"The environment has no {name}, or it is empty.",
            "Set it to the passphrase, or leave --passphrase-env out to be asked.",
        )
    return value


def _asked(prompt: str) -> bytes:
    if not sys.stdin.isatty():
        raise InputError(
            "key-passphrase",
            "The key needs a passphrase, and there is no terminal to ask on.",
            "Give it in an environment variable: --passphrase-env NAME.",
        )
    answer = getpass(prompt).encode()
    if not answer:
        raise InputError("key-passphrase", "The passphrase is empty.", "Try again.")
    return answer
