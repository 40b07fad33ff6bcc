"""Keys in files: for their owner alone, never overwritten, and opened by the right words."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from libra_edge.bundle.signing.keys import (
    generate_key,
    key_id,
    load_private,
    load_public,
    public_path,
)
from libra_edge.errors import InputError, LibraError

WORDS = b"correct horse"


def test_a_new_key_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys/robot.key"
    public = generate_key(path, None)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert public_path(path) == tmp_path / "keys/robot.pub"
    assert key_id(load_private(path, None).public_key()) == key_id(public)
    assert key_id(load_public(public_path(path))) == key_id(public)
    assert sorted(p.name for p in path.parent.iterdir()) == ["robot.key", "robot.pub"]


def test_a_permissive_mask_does_not_open_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        generate_key(tmp_path / "robot.key", None)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "robot.key").stat().st_mode) == 0o600


@pytest.mark.parametrize("there", ["robot.key", "robot.pub"])
@pytest.mark.parametrize("kind", ["file", "link"])
def test_nothing_is_overwritten(tmp_path: Path, there: str, kind: str) -> None:
    if kind == "file":
        (tmp_path / there).write_bytes(b"mine")
    else:
        (tmp_path / there).symlink_to("nowhere")
    with pytest.raises(InputError, match="key-exists"):
        generate_key(tmp_path / "robot.key", None)
    assert [p.name for p in tmp_path.iterdir()] == [there]


def test_a_key_that_appears_meanwhile_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, link = tmp_path / "robot.key", os.link

    def late(source: Path, destination: Path) -> None:
        destination.write_bytes(b"another's")
        link(source, destination)

    monkeypatch.setattr(os, "link", late)
    with pytest.raises(InputError, match="cannot-write"):
        generate_key(path, None)
    assert path.read_bytes() == b"another's"
    assert [p.name for p in tmp_path.iterdir()] == ["robot.key"]


def test_passphrases(tmp_path: Path) -> None:
    shut, plain = tmp_path / "shut.key", tmp_path / "plain.key"
    public = generate_key(shut, WORDS)
    generate_key(plain, None)
    assert b"ENCRYPTED" in shut.read_bytes()
    assert key_id(load_private(shut, WORDS).public_key()) == key_id(public)
    for path, words in ((shut, None), (shut, b"wrong"), (plain, WORDS)):
        with pytest.raises(InputError, match="key-passphrase") as caught:
            load_private(path, words)
        assert not words or words.decode() not in str(caught.value)


def pem(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


@pytest.mark.parametrize(
    "content",
    [
        pem(ec.generate_private_key(ec.SECP384R1())),
        pem(ed25519.Ed25519PrivateKey.generate()),
        pem(rsa.generate_private_key(65537, 2048)),
        b"",
        b"no key",
        b"-----BEGIN PRIVATE KEY-----\nMIGH\n-----END PRIVATE KEY-----\n",
    ],
)
def test_other_keys_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "other.key").write_bytes(content)
    with pytest.raises(InputError, match="key-unusable"):
        load_private(tmp_path / "other.key", None)
    with pytest.raises(InputError, match="key-unusable"):
        load_public(tmp_path / "other.key")


def test_the_wrong_half_and_no_file(tmp_path: Path) -> None:
    generate_key(tmp_path / "robot.key", None)
    with pytest.raises(InputError, match="holds a public key"):
        load_private(tmp_path / "robot.pub", None)
    with pytest.raises(InputError, match="key-unreadable"):
        load_private(tmp_path / "none.key", None)
    with pytest.raises(InputError, match="key-unreadable"):
        load_private(tmp_path, None)


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LibraError, match="disk-full"):
        generate_key(tmp_path / "robot.key", None)
    assert list(tmp_path.iterdir()) == []


def test_a_key_made_by_openssl_in_its_older_form(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "old.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )
    assert key_id(load_private(tmp_path / "old.key", None).public_key()) == key_id(key.public_key())


def test_a_public_key_that_cannot_be_written_takes_the_private_one_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def second_fails(source: Path, destination: Path) -> None:
        if destination.suffix == ".pub":
            raise OSError(28, "No space left on device")
        link(source, destination)

    monkeypatch.setattr(os, "link", second_fails)
    with pytest.raises(LibraError, match="disk-full"):
        generate_key(tmp_path / "robot.key", None)
    assert list(tmp_path.iterdir()) == []
