"""Python and C++ take the same signatures and trust files, and refuse the same."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Iterable
from datetime import date
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from libra_edge.binding import abi
from libra_edge.bundle.manifest import canonical_json, parse_manifest
from libra_edge.bundle.members import MANIFEST
from libra_edge.bundle.signature import check_signature, signature_of
from libra_edge.bundle.signing.envelope import bundle_of, signed_bytes
from libra_edge.bundle.signing.epochs import accept_epoch
from libra_edge.bundle.signing.trust import parse_trust
from libra_edge.errors import LibraError, UntrustedError
from tests.bundle.examples import make_release
from tests.bundle.signed import LAST_SECOND, NOW, new_key, trusting
from tests.runtime import broken_signatures as broken
from tests.runtime.signature_reader import NativeSignatures

KEY, OTHER = new_key(), new_key(2)
TRUST = trusting(KEY, OTHER).to_bytes()
SIGNER = f"{trusting(KEY).keys[0].id} release"


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> NativeSignatures:
    return NativeSignatures(tmp_path_factory.mktemp("signatures"))


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return (make_release(tmp_path_factory.mktemp("release")) / MANIFEST).read_bytes()


@pytest.fixture(scope="module")
def signature(manifest: bytes) -> bytes:
    return signature_of(parse_manifest(manifest), KEY)


def in_python(manifest: bytes, signature: bytes, trust: bytes, now: int) -> str | None:
    try:
        signer = check_signature(manifest, signature, parse_trust(trust), now)
    except LibraError:
        return None
    return f"{signer.key_id} {signer.role}"


class Both:
    """Asks Python and C++ the same; counts what was taken and refused by both."""

    def __init__(self, native: NativeSignatures) -> None:
        self.native, self.taken, self.refused = native, 0, 0

    def ask(self, name: str, manifest: bytes, signature: bytes, trust: bytes = TRUST) -> None:
        self.ask_at(name, manifest, signature, trust, NOW)

    def ask_at(self, name: str, manifest: bytes, signature: bytes, trust: bytes, now: int) -> None:
        status, said = self.native.check(manifest, signature, trust, now)
        python = in_python(manifest, signature, trust, now)
        cpp = said if status == abi.OK else None
        assert cpp == python, f"{name}: {said} in C++, {python} in Python"
        self.taken, self.refused = self.taken + bool(python), self.refused + (not python)

    def counts(self, what: str) -> tuple[int, int]:
        print(f"{what}: {self.taken + self.refused} tried, {self.taken} taken")
        return self.taken, self.refused


@pytest.fixture
def both(native: NativeSignatures) -> Both:
    return Both(native)


def test_the_good_one_is_taken(both: Both, manifest: bytes, signature: bytes) -> None:
    assert both.native.check(manifest, signature, TRUST, NOW) == (abi.OK, SIGNER)
    both.ask("good", manifest, signature)
    both.ask_at("last second", manifest, signature, TRUST, LAST_SECOND)
    assert both.counts("good") == (2, 0)
    both.ask_at("expired", manifest, signature, TRUST, LAST_SECOND + 1)
    both.ask_at("long expired", manifest, signature, TRUST, 2**62)
    both.ask("unknown", manifest, signature, trusting(OTHER).to_bytes())
    both.ask("role", manifest, signature, trusting(KEY, role="development").to_bytes())
    assert both.refused == 4


def bits(data: bytes, count: int) -> Iterable[int]:
    return random.Random(0).sample(range(8 * len(data)), count)


def test_random_bits_and_lengths(both: Both, manifest: bytes, signature: bytes) -> None:
    for name, changed in broken.flipped(signature, iter(bits(signature, 1500))):
        both.ask(f"signature, {name}", manifest, changed)
    for name, changed in broken.flipped(manifest, iter(bits(manifest, 300))):
        both.ask(f"manifest, {name}", changed, signature)
    for name, changed in broken.cut(signature, range(0, len(signature), 7)):
        both.ask(f"signature, {name}", manifest, changed)
    taken, refused = both.counts("random bits and lengths")
    assert (taken, refused > 2000) == (0, True)


@pytest.mark.long
def test_every_bit_and_every_length(both: Both, manifest: bytes, signature: bytes) -> None:
    for name, changed in chain(
        broken.flipped(signature, range(8 * len(signature))),
        broken.cut(signature, range(len(signature))),
    ):
        both.ask(f"signature, {name}", manifest, changed)
    for name, changed in chain(
        broken.flipped(manifest, range(8 * len(manifest))),
        broken.cut(manifest, range(len(manifest))),
    ):
        both.ask(f"manifest, {name}", changed, signature)
    taken, refused = both.counts("every bit and length of manifest and signature")
    assert taken == 0
    assert refused == 9 * (len(manifest) + len(signature))


def test_json_that_readers_differ_on(both: Both, manifest: bytes, signature: bytes) -> None:
    for name, changed in broken.other_json(signature):
        both.ask(f"bundle, {name}", manifest, changed)
    assert both.taken == 1, "blanks around it alone"
    payload = base64.b64decode(json.loads(signature)["dsseEnvelope"]["payload"])
    for name, changed in broken.other_json(payload):
        both.ask(f"statement, {name}", manifest, canonical_json(bundle_of(changed, KEY)))
    for name, changed in broken.other_json(TRUST):
        both.ask(f"trust, {name}", manifest, signature, changed)
    taken, refused = both.counts("JSON that readers differ on")
    assert taken > 5
    assert refused > 90


def test_every_other_value(both: Both, manifest: bytes, signature: bytes) -> None:
    bundle = json.loads(signature)
    payload = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    # A few resources show what all would.
    short = {**payload, "predicate": {**payload["predicate"]}}
    short["predicate"]["resources"] = payload["predicate"]["resources"][:2]
    for name, changed in broken.other_values(bundle):
        both.ask(f"bundle, {name}", manifest, json.dumps(changed).encode())
    assert both.taken == 0 or both.taken < 4, "the same value, or none of log entries and key id"
    for name, changed in broken.other_values(short):
        data = json.dumps(changed).encode()
        both.ask(f"statement, {name}", manifest, canonical_json(bundle_of(data, KEY)))
    for name, changed in broken.other_values(json.loads(TRUST)):
        both.ask(f"trust, {name}", manifest, signature, json.dumps(changed).encode())
    taken, refused = both.counts("other values")
    assert taken > 3
    assert refused > 1000


def test_statements_by_a_trusted_key(both: Both, manifest: bytes, signature: bytes) -> None:
    payload = json.loads(base64.b64decode(json.loads(signature)["dsseEnvelope"]["payload"]))
    for name, data in broken.random_statements(payload, 1500):
        both.ask(name, manifest, canonical_json(bundle_of(data, KEY)))
    taken, refused = both.counts("statements by a trusted key")
    assert taken > 10, "where nothing that counts was changed"
    assert refused > 1000


def test_a_signature_has_one_form(both: Both, manifest: bytes, signature: bytes) -> None:
    bundle = json.loads(signature)
    payload = base64.b64decode(bundle["dsseEnvelope"]["payload"])
    for name, changed in broken.other_proofs(payload, signed_bytes(payload), KEY):
        both.ask(name, manifest, changed)
    assert both.counts("forms of DER")[0] == 2, "itself, and with n - s in the place of s"
    for name, changed in broken.other_base64(bundle):
        both.ask(name, manifest, changed)
    assert both.taken <= 4, "where there was nothing to replace"


def test_proofs_of_many_keys(both: Both, manifest: bytes) -> None:
    """Integers of all lengths: short r and s, with and without a zero in front."""
    release = parse_manifest(manifest)
    for seed in range(3, 150):
        key = new_key(seed)
        both.ask(f"key {seed}", manifest, signature_of(release, key), trusting(key).to_bytes())
        both.ask(f"not {seed}", manifest, signature_of(release, OTHER), trusting(key).to_bytes())
    assert both.counts("keys") == (147, 147)


@pytest.mark.parametrize(
    "day",
    [
        *("2023-02-28", "2023-02-29", "2024-02-29", "2100-02-29", "2000-02-29", "1970-01-01"),
        *("1969-12-31", "9999-12-31", "0000-01-01", "2026-13-01", "2026-00-10", "2026-04-31"),
        *("2026-4-30", "2026-04-30 ", "20260430", "2026-W01-1", "+026-01-01", "2026-01-00", "-"),
        *("٢٠٢٦-01-01", "2026-01-01\0", "12026-01-01"),
    ],
)
def test_days(both: Both, manifest: bytes, signature: bytes, day: str) -> None:
    body = json.loads(trusting(KEY).to_bytes())
    body["keys"][0]["expires"] = day
    trust = json.dumps(body).encode()
    ends = [NOW, 0, 86399, 86400, 1709251199, 1709251200, 951868799, 951868800, 253402300799]
    for now in ends:
        both.ask_at(f"{day} at {now}", manifest, signature, trust, now)
    both.counts(f"day {day!r}")


def test_keys_in_other_forms(both: Both, manifest: bytes, signature: bytes) -> None:
    good = json.loads(trusting(KEY).to_bytes())
    pem = good["keys"][0]["public_key_pem"]
    lines = pem.splitlines()
    forms = [
        *(pem + "\n", pem.rstrip(), pem.replace("\n", "\r\n"), " " + pem, "x\n" + pem, pem * 2),
        *(
            pem.replace("PUBLIC", "EC PUBLIC"),
            lines[0] + "\n" + lines[1] + lines[2] + "\n" + lines[3],
        ),
        *(
            pem.replace("\n", "\n\n", 1),
            "",
            "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n",
        ),
        pem[:40] + ("A" if pem[40] != "A" else "B") + pem[41:],
        "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----",
    ]
    for index, form in enumerate(forms):
        good["keys"][0]["public_key_pem"] = form
        both.ask(f"form {index}", manifest, signature, json.dumps(good).encode())
    assert both.counts("forms of a key") == (0, len(forms))


def test_trust_files_on_disk(native: NativeSignatures, tmp_path: Path) -> None:
    path = tmp_path / "trust.json"
    path.write_bytes(TRUST)
    assert native.read_trust(path) == (abi.OK, "0")
    path.write_bytes(trusting(KEY).model_copy(update={"allow_unsigned": True}).to_bytes())
    assert native.read_trust(path) == (abi.OK, "1")
    path.write_bytes(TRUST + b" " * 2**20)
    assert native.read_trust(path)[0] == abi.MALFORMED
    assert native.read_trust(tmp_path)[0] == abi.INTEGRITY
    assert "missing" in native.read_trust(tmp_path / "none")[1]


@pytest.mark.parametrize("seed", range(20))
def test_epochs(native: NativeSignatures, seed: int) -> None:
    chance = random.Random(seed)
    releases = [(chance.choice("abc"), chance.randint(0, 6)) for _ in range(40)]
    seen: dict[str, int] = {}
    python = []
    for key, epoch in releases:
        try:
            seen = accept_epoch(seen, key, epoch)
            python.append(True)
        except UntrustedError:
            python.append(False)
    assert native.accepted(releases) == python
    assert {True, False} == set(python)


def test_the_last_day_is_counted_as_the_calendar_does(both: Both, manifest: bytes) -> None:
    signature: Any = signature_of(parse_manifest(manifest), KEY)
    chance = random.Random(1)
    for _ in range(60):
        day = date.fromordinal(chance.randint(date(1970, 1, 1).toordinal(), date.max.toordinal()))
        end = (day.toordinal() - date(1970, 1, 1).toordinal() + 1) * 86400
        trust = trusting(KEY, last=day).to_bytes()
        both.ask_at(f"{day}, before", manifest, signature, trust, end - 1)
        both.ask_at(f"{day}, after", manifest, signature, trust, end)
    assert both.counts("days") == (60, 60)
