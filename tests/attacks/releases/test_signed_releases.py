"""Releases made to get past a signature: each is refused, by Python and by the robot's C++.

Prints how many were tried and how many of them were let in: none.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from libra_edge.binding import abi
from libra_edge.bundle.container import header
from libra_edge.bundle.manifest import ReleaseFacts, canonical_json
from libra_edge.bundle.members import MANIFEST, SIGNATURE
from libra_edge.bundle.pack import pack_release, unpack_release, write_release
from libra_edge.bundle.signature import check_release, sign_release
from libra_edge.bundle.signing.epochs import accept_epoch
from libra_edge.bundle.signing.trust import Trust
from libra_edge.bundle.verify import read_signature, verify_integrity
from libra_edge.errors import IntegrityError, UntrustedError
from tests.bundle.examples import facts, facts_body, files, make_release
from tests.bundle.signed import LAST_SECOND, NOW, new_key, signed_release, trusting
from tests.runtime.signature_reader import NativeSignatures

KEY, LEAKED, STRANGER = new_key(), new_key(2), new_key(3)
TRUST = trusting(KEY, LEAKED)


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> NativeSignatures:
    return NativeSignatures(tmp_path_factory.mktemp("signatures"))


def release_of_epoch(folder: Path, name: str, epoch: int) -> Path:
    made = ReleaseFacts.model_validate({**facts_body(name), "security_epoch": epoch})
    write_release(folder / name, made, files())
    return folder / name


def strip(release: Path) -> None:
    (release / SIGNATURE).unlink()


def of_another(release: Path) -> None:
    other = signed_release(release.parent / "other", KEY, "other")
    shutil.copyfile(other / SIGNATURE, release / SIGNATURE)


def members_of_two(release: Path) -> None:
    """Both were signed; the refiner of one in the other is what neither holds."""
    name = "engines/refiner.onnx"
    content = files()[name][::-1] + b"another"
    other = write_release(release.parent / "b", facts("other"), {**files(), name: content})
    assert other.members[name].sha256 != verify_integrity(release).members[name].sha256
    sign_release(release.parent / "b", KEY)
    shutil.copyfile(release.parent / "b" / name, release / name)


def manifest_of_two(release: Path) -> None:
    """A manifest that names members of two signed releases, with the signature of one."""
    name = "engines/refiner.onnx"
    members_of_two(release)
    other = json.loads((release.parent / "b" / MANIFEST).read_bytes())
    body = json.loads((release / MANIFEST).read_bytes())
    body["members"][name] = other["members"][name]
    (release / MANIFEST).write_bytes(canonical_json(body))
    verify_integrity(release)


def signed_by_a_stranger(release: Path) -> None:
    sign_release(release, STRANGER)


def names_a_trusted_key(release: Path) -> None:
    """A stranger's signature that says it is by a trusted key."""
    good = json.loads((release / SIGNATURE).read_bytes())
    sign_release(release, STRANGER)
    bad = json.loads((release / SIGNATURE).read_bytes())
    bad["verificationMaterial"] = good["verificationMaterial"]
    (release / SIGNATURE).write_bytes(json.dumps(bad).encode())


def two_signatures(release: Path) -> None:
    """A stranger's first, the good one behind it."""
    good = json.loads((release / SIGNATURE).read_bytes())
    sign_release(release, STRANGER)
    bad = json.loads((release / SIGNATURE).read_bytes())
    good["dsseEnvelope"]["signatures"].insert(0, bad["dsseEnvelope"]["signatures"][0])
    (release / SIGNATURE).write_bytes(json.dumps(good).encode())


def carries_a_key(release: Path) -> None:
    """A bundle that brings the key to check it with."""
    sign_release(release, STRANGER)
    body = json.loads((release / SIGNATURE).read_bytes())
    public = body["verificationMaterial"]["publicKey"]
    public["rawBytes"] = trusting(STRANGER).keys[0].public_key_pem
    (release / SIGNATURE).write_bytes(json.dumps(body).encode())


def raises_the_epoch(release: Path) -> None:
    body = json.loads((release / MANIFEST).read_bytes())
    (release / MANIFEST).write_bytes(canonical_json({**body, "security_epoch": 9}))


def empty_signature(release: Path) -> None:
    (release / SIGNATURE).write_bytes(b"")


def bomb(release: Path) -> None:
    (release / SIGNATURE).write_bytes(b"[" * 1_000_000)


CHANGES = (
    *(strip, of_another, members_of_two, manifest_of_two, signed_by_a_stranger),
    *(names_a_trusted_key, two_signatures, carries_a_key, raises_the_epoch, empty_signature, bomb),
)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_signed_release_changed(
    tmp_path: Path, native: NativeSignatures, change: Callable[[Path], None]
) -> None:
    release = signed_release(tmp_path, KEY)
    change(release)
    with pytest.raises(IntegrityError):
        check_release(release, TRUST, NOW)
    try:
        verify_integrity(release)
    except IntegrityError:
        return  # refused before its signature is looked at: C++ does so in le_open
    manifest = (release / MANIFEST).read_bytes()
    status, _ = native.check(manifest, read_signature(release) or b"", TRUST.to_bytes(), NOW)
    assert status in (abi.MALFORMED, abi.INTEGRITY, abi.UNPROVEN)


@pytest.mark.parametrize(
    ("trust", "now", "code"),
    [
        (trusting(KEY), LAST_SECOND + 1, "key-expired"),
        (trusting(KEY, role="development"), NOW, "key-role"),
        (trusting(LEAKED), NOW, "key-unknown"),
    ],
)
def test_keys_that_do_not_count(
    tmp_path: Path, native: NativeSignatures, trust: Trust, now: int, code: str
) -> None:
    release = signed_release(tmp_path, KEY)
    with pytest.raises(UntrustedError, match=code):
        check_release(release, trust, now)
    manifest, signature = ((release / name).read_bytes() for name in (MANIFEST, SIGNATURE))
    assert native.check(manifest, signature, trust.to_bytes(), now)[0] == abi.UNPROVEN


HIDDEN = (
    *(".git/config", ".git/hooks/post-checkout", ".github/workflow.yml", ".gitignore", ".nfs0"),
    *("engines/.hidden", "engines/refiner.onnx~", "lib/libonnxruntime.so.1", "lib/sub/x"),
    *("MANIFEST.JSON", "Model.sig", "model.sig.bak", "engines/model.sig", "lib/libc.so.6"),
)


@pytest.mark.parametrize("name", HIDDEN)
def test_a_file_beside_the_members(tmp_path: Path, name: str) -> None:
    release = signed_release(tmp_path, KEY)
    (release / name).parent.mkdir(parents=True, exist_ok=True)
    (release / name).write_bytes(b"\x7fELF")
    with pytest.raises(IntegrityError, match="member-unexpected"):
        check_release(release, TRUST, NOW)


@pytest.mark.parametrize("kind", ["symlink", "fifo", "folder", "hidden link"])
def test_a_signature_that_is_no_file(tmp_path: Path, kind: str) -> None:
    release = signed_release(tmp_path, KEY)
    kept = tmp_path / "kept.sig"
    (release / SIGNATURE).rename(kept)
    if kind == "symlink":
        (release / SIGNATURE).symlink_to(kept)
    elif kind == "hidden link":
        (release / SIGNATURE).symlink_to("/dev/zero")
    elif kind == "fifo":
        os.mkfifo(release / SIGNATURE)
    else:
        (release / SIGNATURE).mkdir()
    with pytest.raises(IntegrityError, match="member-unexpected"):
        check_release(release, TRUST, NOW)


def entry(name: str, data: bytes) -> bytes:
    return header(name, len(data)) + data + bytes(-len(data) % 512)


def test_containers_with_a_signature_in_the_wrong_place(tmp_path: Path) -> None:
    release = signed_release(tmp_path, KEY)
    pack_release(release, tmp_path / "good.libra")
    packed, signature = (tmp_path / "good.libra").read_bytes(), (release / SIGNATURE).read_bytes()
    inside = entry(SIGNATURE, signature)
    at = packed.index(inside)
    without = packed[:at] + packed[at + len(inside) :]
    first_member = without.index(b"engines/planner.onnx".ljust(100, b"\0"))
    attacks = {
        "twice": packed[:at] + inside + packed[at:],
        "first": inside + without,
        "after a member": without[: first_member + 512] + inside + without[first_member + 512 :],
        "at the end": without[:-1024] + inside + without[-1024:],
        "after the end": without + inside,
        "cut": packed[:at] + inside[:512],
        "huge": packed[:at] + header(SIGNATURE, 8**11 - 1) + packed[at + 512 :],
        "too large": packed[:at] + entry(SIGNATURE, bytes(2**20 + 1)) + without[at:],
        "another's name": packed.replace(b"model.sig\0", b"model.sih\0"),
        "padding": packed[: at + len(inside) - 1] + b"x" + packed[at + len(inside) :],
        "a link": packed[: at + 156] + b"2" + packed[at + 157 :],
    }
    for name, data in attacks.items():
        file = tmp_path / "attack.libra"
        file.write_bytes(data)
        with pytest.raises(IntegrityError):
            check_release(file, TRUST, NOW)
        with pytest.raises(IntegrityError):
            unpack_release(file, tmp_path / "out")
        assert not (tmp_path / "out").exists(), name
    print(f"containers: {len(attacks)} tried, 0 let in")


def test_a_lower_epoch_and_a_fast_forward_by_a_leaked_key(
    tmp_path: Path, native: NativeSignatures
) -> None:
    """Nobody goes back by the same key; a leaked key cannot shut the good one out."""
    good, leaked = (key.id for key in TRUST.keys)
    steps = [(good, 3), (good, 2), (leaked, 2**31 - 1), (good, 3), (good, 4), (good, 3)]
    python, seen = [], {}
    for index, (key, epoch) in enumerate(steps):
        release = release_of_epoch(tmp_path / str(index), "example", epoch)
        sign_release(release, KEY if key == good else LEAKED)
        manifest, signer = check_release(release, TRUST, NOW)
        assert (signer.key_id, manifest.security_epoch) == (key, epoch)
        try:
            seen = accept_epoch(seen, signer.key_id, manifest.security_epoch)
            python.append(True)
        except UntrustedError:
            python.append(False)
    assert python == native.accepted(steps) == [True, False, True, True, True, False]
    # The leaked key out of the trust file: what it signed is refused, whatever its epoch.
    with pytest.raises(UntrustedError, match="key-unknown"):
        check_release(tmp_path / "2/example", TRUST.without(leaked), NOW)


def test_an_epoch_is_within_bounds(tmp_path: Path) -> None:
    release = make_release(tmp_path)
    body = json.loads((release / MANIFEST).read_bytes())
    for epoch in (-1, 2**31, 2**64, 1.0, True, "1", None, 0):
        (release / MANIFEST).write_bytes(canonical_json({**body, "security_epoch": epoch}))
        with pytest.raises(IntegrityError, match="manifest-invalid"):
            verify_integrity(release)
