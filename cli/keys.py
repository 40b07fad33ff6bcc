"""`libra-edge keys`: make keys, show them, follow one with another, and say whom to trust."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from libra_edge.bundle.signing.keys import (
    generate_key,
    key_hint,
    key_id,
    load_public,
    public_path,
    public_pem,
)
from libra_edge.bundle.signing.trust import NOBODY, Trust, in_days, read_trust, write_trust
from libra_edge.errors import InputError

from ._options import Json
from ._passphrase import PassphraseEnv, load_key, new_passphrase
from ._render import Output

_HELP = {"help_option_names": ["-h", "--help"]}
_YEAR_DAYS = 365
keys = typer.Typer(
    name="keys",
    help="Make signing keys, and say whose signatures a robot takes.",
    add_completion=False,
    rich_markup_mode=None,
    context_settings=_HELP,
)
trust = typer.Typer(
    name="trust",
    help="Write a trust file: whose signatures a robot takes.",
    add_completion=False,
    rich_markup_mode=None,
    context_settings=_HELP,
)
keys.add_typer(trust)

_Encrypt = Annotated[
    bool, typer.Option("--passphrase", help="Encrypt the key; asks for a passphrase.")
]
_TrustFile = Annotated[
    Path, typer.Argument(metavar="TRUST", help="Trust file.", show_default=False)
]
_Days = Annotated[int, typer.Option(min=1, max=36500, help="Days that the key is good for.")]
_Role = Annotated[
    Literal["release", "development"],
    typer.Option(help="What it signs: robots take development keys only where told to."),
]


@keys.command(context_settings=_HELP)
def generate(
    path: Annotated[
        Path, typer.Argument(metavar="FILE", help="Where to write the private key, NAME.key.")
    ],
    passphrase: _Encrypt = False,
    passphrase_env: PassphraseEnv = None,
    json: Json = False,
) -> None:
    """Make an ECDSA P-256 key: NAME.key for its owner alone, NAME.pub beside it.

    Neither file is ever overwritten.
    """
    output = Output("keys generate", json)
    public = generate_key(path, new_passphrase(passphrase_env, ask=passphrase))
    beside = public_path(path)
    output.finish(
        {"private": str(path), "public": str(beside), "id": key_id(public)},
        f"{path}, public key {beside}, id {key_id(public)[:12]}",
        next_command=("keys", "trust", "add", "trust.json", beside),
    )


@keys.command(context_settings=_HELP)
def show(
    path: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="A key or a trust file.", show_default=False),
    ],
    passphrase_env: PassphraseEnv = None,
    json: Json = False,
) -> None:
    """Show a key's id and public half, or whom a trust file trusts.

    Of a private key nothing but its public half is shown.
    """
    output = Output("keys show", json)
    if _begins_as_json(path):
        _show_trust(output, path, read_trust(path))
        return
    is_private = path.suffix != ".pub"
    public = load_key(path, passphrase_env).public_key() if is_private else load_public(path)
    facts = {"id": key_id(public), "hint": key_hint(public), "public_key_pem": public_pem(public)}
    output.facts(str(path), {"id": facts["id"], "named in signatures": facts["hint"]})
    output.text(facts["public_key_pem"].rstrip())
    output.finish(facts, f"{path}, id {facts['id'][:12]}")


@keys.command(context_settings=_HELP)
def rotate(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="Public key to follow, OLD.pub.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="Where to write the new key.")],
    trust_file: Annotated[
        Path,
        typer.Option("--trust", metavar="FILE", help="Trust file to renew.", show_default=False),
    ],
    overlap_days: Annotated[
        int, typer.Option(min=0, max=3650, help="Days that the old key stays good.")
    ] = 30,
    days: _Days = _YEAR_DAYS,
    passphrase: _Encrypt = False,
    passphrase_env: PassphraseEnv = None,
    json: Json = False,
) -> None:
    """Follow a key with a new one of the same role, and let the old one run out.

    Take the trust file to every robot before anything is signed with the new key. A key that
    leaked is no case for this: take it out with `keys trust remove`.
    """
    output = Output("keys rotate", json)
    before = read_trust(trust_file)
    known = before.find(key_id(load_public(old)))
    public = generate_key(new, new_passphrase(passphrase_env, ask=passphrase))
    last = min(datetime.date.fromisoformat(known.expires), in_days(overlap_days))
    after = before.with_key(known.public_key, known.role, last)
    write_trust(trust_file, after.with_key(public, known.role, in_days(days)))
    output.finish(
        {
            "private": str(new),
            "public": str(public_path(new)),
            "id": key_id(public),
            "old_id": known.id,
            "old_expires": last.isoformat(),
            "trust": str(trust_file),
        },
        f"{new} follows {known.id[:12]}, which expires on {last}; {trust_file} holds both",
    )


@trust.command("add", context_settings=_HELP)
def add(
    trust_file: _TrustFile,
    public: Annotated[
        Path, typer.Argument(metavar="KEY", help="Public key, NAME.pub.", show_default=False)
    ],
    role: _Role = "release",
    days: _Days = _YEAR_DAYS,
    json: Json = False,
) -> None:
    """Trust a key; one that is trusted already gets this role and these days.

    The file is made if it is not there.
    """
    output = Output("keys trust add", json)
    before = read_trust(trust_file) if trust_file.exists() else NOBODY
    key, last = load_public(public), in_days(days)
    write_trust(trust_file, before.with_key(key, role, last))
    output.finish(
        {"trust": str(trust_file), "id": key_id(key), "role": role, "expires": last.isoformat()},
        f"{trust_file} trusts {key_id(key)[:12]} as {role} key until {last}",
    )


@trust.command("remove", context_settings=_HELP)
def remove(
    trust_file: _TrustFile,
    identity: Annotated[str, typer.Argument(metavar="ID", help="The key's id, or how it begins.")],
    json: Json = False,
) -> None:
    """Trust a key no longer: robots refuse what it signed from the day they get the file."""
    output = Output("keys trust remove", json)
    before = read_trust(trust_file)
    key = before.find(identity)
    write_trust(trust_file, before.without(key.id))
    output.finish(
        {"trust": str(trust_file), "id": key.id},
        f"{trust_file} no longer trusts {key.id[:12]}",
    )


@trust.command("allow", context_settings=_HELP)
def allow(
    trust_file: _TrustFile,
    unsigned: Annotated[
        bool | None,
        typer.Option("--unsigned/--no-unsigned", help="Whether --allow-unsigned may be used."),
    ] = None,
    development: Annotated[
        bool | None,
        typer.Option("--development/--no-development", help="Whether development keys count."),
    ] = None,
    json: Json = False,
) -> None:
    """Say what else a robot takes besides releases signed with release keys."""
    output = Output("keys trust allow", json)
    if unsigned is None and development is None:
        raise InputError("usage", "Nothing was asked for.", "Give --unsigned or --development.")
    before = read_trust(trust_file) if trust_file.exists() else NOBODY
    asked = {"allow_unsigned": unsigned, "allow_development": development}
    after = before.model_copy(update={k: v for k, v in asked.items() if v is not None})
    write_trust(trust_file, after)
    output.finish({"trust": str(trust_file), **_allowed(after)}, f"{trust_file}: {_words(after)}")


def _show_trust(output: Output, path: Path, found: Trust) -> None:
    output.table(
        ("key", "role", "good until (UTC)"),
        [(key.id[:16], key.role, key.expires) for key in found.keys],
    )
    result: dict[str, Any] = {"keys": [key.model_dump(mode="json") for key in found.keys]}
    output.finish({**result, **_allowed(found)}, f"{path}: {len(found.keys)} keys, {_words(found)}")


def _allowed(found: Trust) -> dict[str, bool]:
    return {
        "allow_unsigned": found.allow_unsigned,
        "allow_development": found.allow_development,
    }


def _words(found: Trust) -> str:
    unsigned = "on request" if found.allow_unsigned else "never"
    development = "taken" if found.allow_development else "refused"
    return f"unsigned releases {unsigned}, development keys {development}"


def _begins_as_json(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(64).lstrip().startswith(b"{")
    except OSError:
        return False
