"""The trust file: strict, and written whole."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from libra_edge.bundle.signing.epochs import UNSIGNED, accept_epoch
from libra_edge.bundle.signing.trust import NOBODY, parse_trust, read_trust, write_trust
from libra_edge.errors import InputError, UntrustedError
from tests.bundle.signed import LAST_DAY, new_key, trusting

KEY, OTHER = new_key(), new_key(2)


def test_there_and_back(tmp_path: Path) -> None:
    trust = trusting(KEY, OTHER)
    write_trust(tmp_path / "trust.json", trust)
    assert read_trust(tmp_path / "trust.json") == trust
    body = json.loads((tmp_path / "trust.json").read_bytes())
    assert body["schema"] == 1
    assert body["keys"][0].keys() == {"id", "public_key_pem", "role", "expires"}


def test_nothing_is_trusted_by_default() -> None:
    assert (NOBODY.keys, NOBODY.allow_unsigned, NOBODY.allow_development) == ((), False, False)
    minimal = parse_trust(b'{"schema": 1, "allow_unsigned": false, "keys": []}')
    assert minimal == NOBODY


def test_a_key_again_gets_its_new_role() -> None:
    trust = trusting(KEY, OTHER).with_key(KEY.public_key(), "development", LAST_DAY)
    assert [key.role for key in trust.keys] == ["release", "development"]
    assert trust.without(trust.keys[0].id).keys == trust.keys[1:]


def test_keys_are_found_by_how_their_ids_begin() -> None:
    trust = trusting(KEY, OTHER)
    assert trust.find(trust.keys[1].id[:6]) == trust.keys[1]
    for start in ("", "zz", "\n"):
        with pytest.raises(InputError, match="key-unknown"):
            trust.find(start)


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2},
        {"schema": True},
        {"schema": "1"},
        {"allow_unsigned": "yes"},
        {"allow_unsigned": 1},
        {"allow_development": None},
        {"keys": None},
        {"keys": {}},
        {"highest": 3},
    ],
)
def test_another_file(change: dict[str, Any]) -> None:
    body = json.loads(trusting(KEY).to_bytes()) | change
    with pytest.raises(InputError, match="trust-invalid"):
        parse_trust(json.dumps(body).encode())


@pytest.mark.parametrize("missing", ["schema", "allow_unsigned", "keys"])
def test_a_key_that_is_missing(missing: str) -> None:
    body = json.loads(trusting(KEY).to_bytes())
    del body[missing]
    with pytest.raises(InputError, match="trust-invalid"):
        parse_trust(json.dumps(body).encode())


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(InputError, match="trust-unreadable"):
            read_trust(path)


def test_epochs_are_kept_per_key() -> None:
    seen = accept_epoch({}, "leaked", 2**31 - 1)
    seen = accept_epoch(seen, "good", 3)
    assert accept_epoch(seen, "good", 3) == seen == {"leaked": 2**31 - 1, "good": 3}
    with pytest.raises(UntrustedError, match="epoch-too-low"):
        accept_epoch(seen, "good", 2)
    assert accept_epoch(seen, UNSIGNED, 0)[UNSIGNED] == 0


def test_days_end_in_utc() -> None:
    (key,) = trusting(KEY, last=date(1970, 1, 1)).keys
    assert not key.is_expired(86399)
    assert key.is_expired(86400)
