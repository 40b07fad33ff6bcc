"""`model.sig`: written as the standard says, and taken from those that are trusted alone."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from libra_edge.bundle.manifest import canonical_json
from libra_edge.bundle.members import MANIFEST, SIGNATURE
from libra_edge.bundle.pack import pack_release, unpack_release
from libra_edge.bundle.signature import check_release, check_signature, sign_release
from libra_edge.bundle.signing.envelope import bundle_of
from libra_edge.bundle.signing.provenance import statement
from libra_edge.bundle.signing.trust import NOBODY
from libra_edge.bundle.verify import open_release, read_signature, verify_integrity
from libra_edge.errors import ExitCode, InputError, IntegrityError, LibraError, UntrustedError
from tests.bundle.examples import make_release
from tests.bundle.signed import LAST_SECOND, NOW, new_key, signed_release, trusting

KEY, OTHER = new_key(), new_key(2)


def payload_of(release: Path) -> dict[str, Any]:
    bundle = json.loads((release / SIGNATURE).read_bytes())
    statement: dict[str, Any] = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    return statement


def code_of(release: Path, signature: bytes, trust: Any, now: int = NOW) -> str:
    with pytest.raises(IntegrityError) as caught:
        check_signature((release / MANIFEST).read_bytes(), signature, trust, now)
    assert caught.value.exit_code is ExitCode.INTEGRITY
    return caught.value.code


def test_the_statement_lists_every_file_of_the_release(tmp_path: Path) -> None:
    release = signed_release(tmp_path, KEY)
    payload = payload_of(release)
    found = {r["name"]: r["digest"] for r in payload["predicate"]["resources"]}
    files = [p for p in release.rglob("*") if p.is_file() and p.name != SIGNATURE]
    assert found == {
        p.relative_to(release).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files
    }
    assert payload["_type"] == "https://in-toto.io/Statement/v1"
    assert payload["predicateType"] == "https://model_signing/signature/v1.0"
    assert payload["predicate"]["serialization"]["method"] == "files"


def test_who_signed_it(tmp_path: Path) -> None:
    release = signed_release(tmp_path, KEY)
    trust = trusting(OTHER, KEY)
    manifest, signer = check_release(release, trust, NOW)
    assert (signer.key_id, signer.role) == (trust.keys[1].id, "release")
    assert manifest == verify_integrity(release)


def test_the_same_release_and_key_give_the_same_bytes(tmp_path: Path) -> None:
    first = (signed_release(tmp_path / "a", KEY) / SIGNATURE).read_bytes()
    second = (signed_release(tmp_path / "b", KEY) / SIGNATURE).read_bytes()
    assert first == second


def test_untrusted(tmp_path: Path) -> None:
    release = signed_release(tmp_path, KEY)
    signature = (release / SIGNATURE).read_bytes()
    development = trusting(KEY, role="development")
    assert code_of(release, signature, NOBODY) == "key-unknown"
    assert code_of(release, signature, trusting(OTHER)) == "key-unknown"
    assert code_of(release, signature, trusting(KEY), LAST_SECOND + 1) == "key-expired"
    assert code_of(release, signature, development) == "key-role"
    taken = development.model_copy(update={"allow_development": True})
    manifest = (release / MANIFEST).read_bytes()
    assert check_signature(manifest, signature, taken, NOW).role == "development"
    assert check_signature(manifest, signature, trusting(KEY), LAST_SECOND).role == "release"


def test_an_unsigned_release(tmp_path: Path) -> None:
    with pytest.raises(UntrustedError, match="release-unsigned"):
        check_release(make_release(tmp_path), trusting(KEY), NOW)


def test_a_signature_of_another_release(tmp_path: Path) -> None:
    release, other = make_release(tmp_path), signed_release(tmp_path, KEY, "other")
    signature = (other / SIGNATURE).read_bytes()
    assert code_of(release, signature, trusting(KEY)) == "signature-of-another"


def resigned(release: Path, change: Any) -> bytes:
    """A signature by the trusted key over another statement."""
    payload = payload_of(release)
    change(payload)
    return canonical_json(bundle_of(canonical_json(payload), KEY))


def _set(*path: Any, value: Any) -> Any:
    def change(payload: Any) -> None:
        for key in path[:-1]:
            payload = payload[key]
        payload[path[-1]] = value

    return change


def _first_twice(payload: Any) -> None:
    payload["predicate"]["resources"].append(payload["predicate"]["resources"][0])


RESOURCES = ("predicate", "resources")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda p: p["predicate"]["resources"].pop(), "signature-of-another"),
        (lambda p: p["predicate"]["resources"].clear(), "signature-of-another"),
        (
            lambda p: p["predicate"]["resources"].append(p["predicate"]["resources"][0]),
            "signature-of-another",
        ),
        (_set(*RESOURCES, 0, "digest", value="00" * 32), "signature-of-another"),
        (_set(*RESOURCES, 0, "name", value=".git/hooks/x"), "signature-of-another"),
        (_set(*RESOURCES, 0, "algorithm", value="blake2b"), "signature-malformed"),
        (_set("subject", 0, "digest", "sha256", value="00" * 32), "signature-wrong"),
        (lambda p: p["subject"].append(p["subject"][0]), "signature-malformed"),
        (_set("predicateType", value="https://slsa.dev/provenance/v1"), "signature-malformed"),
        (_set("_type", value="https://in-toto.io/Statement/v0.1"), "signature-malformed"),
        (_set("predicate", "serialization", "method", value="shards"), "signature-malformed"),
        (_set("predicate", "serialization", "hash_type", value="blake2b"), "signature-malformed"),
        (lambda p: p.pop("predicate"), "signature-malformed"),
    ],
)
def test_a_trusted_key_does_not_make_another_statement_right(
    tmp_path: Path, change: Any, code: str
) -> None:
    release = signed_release(tmp_path, KEY)
    assert code_of(release, resigned(release, change), trusting(KEY)) == code


def test_the_provenance_is_no_signature(tmp_path: Path) -> None:
    release = make_release(tmp_path)
    payload = canonical_json(statement(verify_integrity(release)))
    signature = canonical_json(bundle_of(payload, KEY))
    assert code_of(release, signature, trusting(KEY)) == "signature-malformed"


def test_the_digest_is_not_signed_without_the_payload_type(tmp_path: Path) -> None:
    """A signature over the bare payload, without DSSE's encoding, proves nothing."""
    release = signed_release(tmp_path, KEY)
    bundle = json.loads((release / SIGNATURE).read_bytes())
    payload = base64.b64decode(bundle["dsseEnvelope"]["payload"])
    proof = base64.b64encode(KEY.sign(payload, ec.ECDSA(hashes.SHA256()))).decode()
    bundle["dsseEnvelope"]["signatures"][0]["sig"] = proof
    assert code_of(release, canonical_json(bundle), trusting(KEY)) == "signature-wrong"


def test_signing_checks_every_byte_first(tmp_path: Path) -> None:
    release = make_release(tmp_path)
    (release / "golden/state.npy").write_bytes(b"other")
    with pytest.raises(IntegrityError, match="member-changed"):
        sign_release(release, KEY)
    assert not (release / SIGNATURE).exists()


def test_signing_again_replaces_the_signature(tmp_path: Path) -> None:
    release = signed_release(tmp_path, KEY)
    sign_release(release, OTHER)
    assert check_release(release, trusting(KEY, OTHER), NOW)[1].key_id == trusting(OTHER).keys[0].id
    assert [path.name for path in tmp_path.iterdir()] == ["example"], "nothing is left beside it"


def test_signed_releases_go_through_pack_unpack_and_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    release, packed = signed_release(tmp_path, KEY), tmp_path / "one.libra"
    pack_release(release, packed)
    assert read_signature(packed) == read_signature(release) != b""
    check_release(packed, trusting(KEY), NOW)
    unpack_release(packed, tmp_path / "again")
    check_release(tmp_path / "again", trusting(KEY), NOW)
    opened = open_release(packed)
    assert read_signature(opened.path) == read_signature(release)
    # The file signed anew: what the cache holds is the same release, but not its signature.
    sign_release(packed, OTHER)
    assert read_signature(open_release(packed).path) == read_signature(packed)
    assert read_signature(packed) != read_signature(release)


def test_the_file_has_one_form_however_it_was_signed(tmp_path: Path) -> None:
    release = make_release(tmp_path)
    pack_release(release, tmp_path / "signed-later.libra")
    sign_release(tmp_path / "signed-later.libra", OTHER)
    sign_release(tmp_path / "signed-later.libra", KEY)
    sign_release(release, KEY)
    pack_release(release, tmp_path / "packed-later.libra")
    one, other = (tmp_path / f"{n}-later.libra" for n in ("signed", "packed"))
    assert one.read_bytes() == other.read_bytes()


def test_packing_does_not_lose_a_signature(tmp_path: Path) -> None:
    release, packed = make_release(tmp_path), tmp_path / "one.libra"
    pack_release(release, packed)
    sign_release(release, KEY)
    with pytest.raises(InputError, match="destination-exists"):
        pack_release(release, packed)
    pack_release(release, packed, replace=True)
    assert read_signature(packed) == read_signature(release)


@pytest.mark.parametrize("kind", ["link", "folder", "large"])
def test_a_signature_is_a_small_regular_file(tmp_path: Path, kind: str) -> None:
    release = make_release(tmp_path)
    if kind == "link":
        (release / SIGNATURE).symlink_to(release / MANIFEST)
    elif kind == "folder":
        (release / SIGNATURE).mkdir()
    else:
        (release / SIGNATURE).write_bytes(bytes(1024 * 1024 + 1))
    with pytest.raises(IntegrityError, match="member-unexpected"):
        verify_integrity(release)


def test_nothing_is_left_of_a_signature_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = make_release(tmp_path)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(LibraError, match="disk-full"):
        sign_release(release, KEY)
    assert [path.name for path in tmp_path.iterdir()] == ["example"]
    verify_integrity(release)
    assert read_signature(release) is None


def test_expiry_is_the_end_of_the_day_in_utc(tmp_path: Path) -> None:
    release = signed_release(tmp_path, KEY)
    signature, trust = (release / SIGNATURE).read_bytes(), trusting(KEY, last=date(2024, 2, 29))
    midnight = 1709251200  # 2024-03-01 00:00 UTC
    check_signature((release / MANIFEST).read_bytes(), signature, trust, midnight - 1)
    assert code_of(release, signature, trust, midnight) == "key-expired"


def test_links_to_a_release_stay_links(tmp_path: Path) -> None:
    release, packed = make_release(tmp_path), tmp_path / "one.libra"
    pack_release(release, packed)
    for target in (release, packed):
        link = tmp_path / f"current{target.suffix}"
        link.symlink_to(target)
        sign_release(link, KEY)
        assert link.is_symlink()
        check_release(target, trusting(KEY), NOW)
