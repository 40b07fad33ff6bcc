"""ECDSA P-256 keys in files: made, loaded, never overwritten and never shown."""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from libra_edge.atomic import writing
from libra_edge.errors import InputError

PRIVATE_SUFFIX, PUBLIC_SUFFIX = ".key", ".pub"
_MAX_KEY_BYTES = 64 * 1024


def public_pem(key: ec.EllipticCurvePublicKey) -> str:
    """The public key in PEM, in its one form."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_bytes(serialization.Encoding.PEM, form).decode()


def key_id(key: ec.EllipticCurvePublicKey) -> str:
    """What names a key to people and robots: sha256 (hex) of its SubjectPublicKeyInfo."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(key.public_bytes(serialization.Encoding.DER, form)).hexdigest()


def key_hint(key: ec.EllipticCurvePublicKey) -> str:
    """What names a key in a signature: sha256 (hex) of its PEM, as the standard's tool has it."""
    return hashlib.sha256(public_pem(key).encode()).hexdigest()


def generate_key(path: Path, passphrase: bytes | None) -> ec.EllipticCurvePublicKey:
    """Write a new private key to `path`, readable by its owner alone, and its public key beside.

    Args:
        path: of the private key; the public key is there with the suffix `.pub`.
        passphrase: encrypts the private key; None leaves it plain.

    Raises:
        InputError: one of the files is there already, or the place may not be written to.
        LibraError: the disk is full.
    """
    beside = public_path(path)
    for there in (path, beside):
        if there.exists() or there.is_symlink():
            raise InputError(
                "key-exists",
                f"{there} exists; a key is never overwritten.",
                "Choose another name, or `libra-edge keys rotate` to follow a key with a new one.",
            )
    private = ec.generate_private_key(ec.SECP256R1())
    shut = serialization.BestAvailableEncryption(passphrase) if passphrase else None
    pem = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        shut or serialization.NoEncryption(),
    )
    write_new(path, pem, 0o600)
    public = private.public_key()
    try:
        write_new(beside, public_pem(public).encode(), 0o644)
    except BaseException:
        path.unlink()  # made just now, and nobody has signed with it
        raise
    return public


def public_path(private: Path) -> Path:
    """Where the public key of a private one lies."""
    return private.with_name(private.name.removesuffix(PRIVATE_SUFFIX) + PUBLIC_SUFFIX)


def load_private(path: Path, passphrase: bytes | None) -> ec.EllipticCurvePrivateKey:
    """The private key in a PEM file.

    Raises:
        InputError: there is no such file, it holds no P-256 key, or the passphrase is missing,
            wrong or not needed.
    """
    data = _read(path)
    if b"PUBLIC KEY-----" in data:
        raise _no_key(path, "holds a public key", "Name the private key, NAME.key.")
    try:
        found = serialization.load_pem_private_key(data, passphrase)
    except TypeError:
        fact = "has no passphrase" if passphrase else "is encrypted and needs its passphrase"
        remedy = "Leave --passphrase-env out." if passphrase else "Give it with --passphrase-env."
        raise InputError("key-passphrase", f"{path} {fact}.", remedy) from None
    except (ValueError, UnsupportedAlgorithm):
        if passphrase:
            raise InputError(
                "key-passphrase",
                f"{path} does not open: its passphrase is another, or it is no private key in PEM.",
                "Give the passphrase that the key was made with.",
            ) from None
        raise _no_key(path, "is not a private key in PEM") from None
    if not isinstance(found, ec.EllipticCurvePrivateKey) or found.curve.name != "secp256r1":
        raise _no_key(path, "holds another kind of key than ECDSA P-256")
    return found


def is_encrypted(path: Path) -> bool:
    """Whether a private key's file asks for a passphrase.

    Raises:
        InputError: there is no such file.
    """
    return b"ENCRYPTED" in _read(path)


def load_public(path: Path) -> ec.EllipticCurvePublicKey:
    """The public key in a PEM file.

    Raises:
        InputError: there is no such file, or it holds no P-256 public key.
    """
    try:
        return parse_public(_read(path))
    except ValueError:
        raise _no_key(path, "is not a P-256 public key in PEM", "Name NAME.pub.") from None


def parse_public(pem: bytes) -> ec.EllipticCurvePublicKey:
    """A P-256 public key in PEM.

    Raises:
        ValueError: it is none.
    """
    try:
        found = serialization.load_pem_public_key(pem)
    except UnsupportedAlgorithm:
        raise ValueError("another kind of key") from None
    if not isinstance(found, ec.EllipticCurvePublicKey) or found.curve.name != "secp256r1":
        raise ValueError("another kind of key")
    return found


def write_new(path: Path, data: bytes, mode: int) -> None:
    """Write a file that is not there yet: whole or not at all, and never over another.

    Raises:
        InputError: it is there, or the place may not be written to.
        LibraError: the disk is full.
    """
    partial = path.with_name(f".{path.name}.partial-{secrets.token_hex(4)}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            # A link, unlike a rename, refuses a name that is taken.
            os.link(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(_MAX_KEY_BYTES)
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise InputError(
            "key-unreadable", f"{path} cannot be read: {why}.", "Name the file of a key."
        ) from None


def _no_key(path: Path, fact: str, remedy: str = "") -> InputError:
    return InputError(
        "key-unusable",
        f"{path} {fact}.",
        remedy or "Make a key with `libra-edge keys generate`.",
    )
