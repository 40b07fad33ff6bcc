"""`trust.json`: whose signatures a robot takes. An operator writes it; the robot only reads it."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal

from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import Field, ValidationError, field_validator, model_validator

from libra_edge.atomic import new_file
from libra_edge.bundle.engine_facts import Sha256
from libra_edge.bundle.manifest import canonical_json
from libra_edge.bundle.signing.keys import key_hint, key_id, parse_public, public_pem
from libra_edge.bundle.signing.plain_json import read_plain_json
from libra_edge.errors import InputError
from libra_edge.models import Strict

Role = Literal["release", "development"]
_MAX_BYTES = 1024 * 1024
_EPOCH = date(1970, 1, 1)


class TrustedKey(Strict):
    """A public key, what it may sign for, and the last day (UTC) that it is good for.

    id: sha256 (hex) of its SubjectPublicKeyInfo.
    """

    id: Sha256
    public_key_pem: str
    role: Role
    expires: str

    @field_validator("public_key_pem")
    @classmethod
    def _a_p256_key(cls, text: str) -> str:
        if public_pem(parse_public(text.encode())) != text:
            raise ValueError("not a P-256 public key in the one form of its PEM")
        return text

    @field_validator("expires")
    @classmethod
    def _a_day(cls, text: str) -> str:
        if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
            raise ValueError("not a day YYYY-MM-DD")
        if date.fromisoformat(text) < _EPOCH:
            raise ValueError("before 1970")
        return text

    @model_validator(mode="after")
    def _named_by_its_digest(self) -> TrustedKey:
        if key_id(self.public_key) != self.id:
            raise ValueError("id is not the sha256 of the public key")
        return self

    @property
    def public_key(self) -> ec.EllipticCurvePublicKey:
        """The key itself."""
        return parse_public(self.public_key_pem.encode())

    @property
    def hint(self) -> str:
        """What names it in a signature."""
        return key_hint(self.public_key)

    def is_expired(self, now_unix_s: int) -> bool:
        """Whether its last day is over."""
        days = (date.fromisoformat(self.expires) - _EPOCH).days
        return now_unix_s >= (days + 1) * 86400


class Trust(Strict):
    """Whom a robot trusts.

    allow_unsigned: whether `--allow-unsigned` may install a release that nobody signed;
    allow_development: whether a development key's signature is taken.
    """

    schema_: Annotated[Literal[1], Field(alias="schema")] = 1
    allow_unsigned: bool = Field(strict=True)
    allow_development: bool = Field(default=False, strict=True)
    keys: Annotated[tuple[TrustedKey, ...], Field(max_length=256)]

    @model_validator(mode="after")
    def _every_key_once(self) -> Trust:
        if len({key.id for key in self.keys}) != len(self.keys):
            raise ValueError("a key twice")
        return self

    def to_bytes(self) -> bytes:
        """The form in which it is written."""
        return canonical_json(self.model_dump(mode="json", by_alias=True))

    def with_key(self, key: ec.EllipticCurvePublicKey, role: Role, expires: date) -> Trust:
        """The same with a key more; one that is there already gets this role and day."""
        new = TrustedKey(
            id=key_id(key),
            public_key_pem=public_pem(key),
            role=role,
            expires=expires.isoformat(),
        )
        return self.model_copy(update={"keys": (*self.without(new.id).keys, new)})

    def without(self, identity: str) -> Trust:
        """The same without a key."""
        return self.model_copy(update={"keys": tuple(k for k in self.keys if k.id != identity)})

    def find(self, start: str) -> TrustedKey:
        """The key whose id begins so.

        Raises:
            InputError: there is none, or more than one.
        """
        found = [key for key in self.keys if start and key.id.startswith(start)]
        if len(found) != 1:
            known = ", ".join(key.id[:12] for key in self.keys) or "none"
            raise InputError(
                "key-unknown",
                f"{len(found)} keys of the trust file have an id that begins with {start!r}.",
                f"Known: {known}.",
            )
        return found[0]


NOBODY = Trust(allow_unsigned=False, keys=())


def parse_trust(data: bytes) -> Trust:
    """The content of a `trust.json`.

    Raises:
        InputError: it is not one.
    """
    try:
        if len(data) > _MAX_BYTES:
            raise ValueError("it is too large")
        return Trust.model_validate(_required(read_plain_json(data)))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise _invalid(f"{where}: {first['msg']}") from None
    except ValueError as error:
        raise _invalid(str(error)) from None


def read_trust(path: Path) -> Trust:
    """Read a trust file.

    Raises:
        InputError: there is no such file, or it is not one.
    """
    try:
        with path.open("rb") as stream:
            return parse_trust(stream.read(_MAX_BYTES + 1))
    except OSError as error:
        raise InputError(
            "trust-unreadable",
            f"{path} cannot be read: {error.strerror}.",
            "Write one with `libra-edge keys trust add`.",
        ) from None


def write_trust(path: Path, trust: Trust) -> None:
    """Write a trust file, whole or not at all; it replaces another.

    Raises:
        InputError: the place may not be written to.
        LibraError: the disk is full.
    """
    with new_file(path) as stream:
        stream.write(trust.to_bytes())


def in_days(days: int) -> date:
    """The day (UTC) that many days from today."""
    return datetime.now(UTC).date() + timedelta(days=days)


def _required(value: object) -> object:
    # To Python `true` is 1 too, and a default would stand in for a key that is not there.
    if isinstance(value, dict) and type(value.get("schema")) is not int:
        raise ValueError("it has no schema")
    return value


def _invalid(fact: str) -> InputError:
    return InputError(
        "trust-invalid",
        f"trust.json is not valid: {fact}.",
        "Write it with `libra-edge keys trust add`; docs/how-to/sign-a-release.md shows its form.",
    )
