"""Manifests with one thing changed: values of other types, and numbers at and past usual bounds."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from libra_edge.bundle.manifest import canonical_json

_OTHERS: tuple[Any, ...] = (None, True, 0, 2.5, "x", [], {})
_ENDS = (-1, 0, 1, 2, 3, 4, 8, 16, 64, 256, 1000, 1024, 4096, 8192, 10**4, 65_536, 10**6)
_NUMBERS = (*(end + more for end in _ENDS for more in (0, 1)), 2**31, 2**53, 2**63, 1e31, 1e-31)
_TEXTS = ("", "a" * 65, "a" * 4097, "a b", "-a", "é", "a\n", "X", "fail", "0" * 64, "2.1234", "1.2")
_LENGTHS = (0, 9, 17, 1025)
Path = tuple[str | int, ...]


def broken_manifests(body: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    """(what was changed, bytes), among them some that are right: ask `parse_manifest`."""
    data = canonical_json(body)
    yield "two lines at its end", data + b"\n"
    yield "no line at its end", data[:-1]
    yield "a space", data.replace(b": ", b":  ", 1)
    yield "a repeated key", data.replace(b' "name": "probe",\n', b' "name": "probe",\n' * 2, 1)
    yield "bytes that are no UTF-8", data.replace(b"probe", b"pr\xffbe", 1)
    yield "nothing", b""
    decision = dict.fromkeys(("stage", "subject", "choice", "reason"), "x" * 4000)
    yield "more bytes than it may have", _bytes(body | {"decisions": [decision] * 80})
    for path, value in list(_places(body)):
        for other in _instead(value):
            yield (
                f"{'.'.join(map(str, path))} {str(other)[:40]!r}",
                _bytes(_with(body, path, other)),
            )


def _places(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Everything in it but itself; of lists the first item, of members two."""
    children: list[tuple[str | int, Any]] = []
    if isinstance(value, dict):
        names = sorted(value)[:2] if path == ("members",) else value
        children += [(name, value[name]) for name in names]
    elif isinstance(value, list):
        children += list(enumerate(value))[:1]
    for key, child in children:
        yield (*path, key), child
        yield from _places(child, (*path, key))


def _instead(value: Any) -> Iterator[Any]:
    yield from _OTHERS
    if isinstance(value, bool):
        return
    if isinstance(value, int | float):
        yield from (type(value)(number) for number in _NUMBERS)
    elif isinstance(value, str):
        yield from _TEXTS
        yield value + "x"
    elif isinstance(value, list) and value:
        yield from ([value[0]] * length for length in _LENGTHS)
    elif isinstance(value, dict):
        yield value | {"surprise": 0}
        yield from ({k: v for k, v in value.items() if k != gone} for gone in sorted(value)[:40])


def _with(body: dict[str, Any], path: Path, value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(body)
    inner: Any = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return changed


def _bytes(body: dict[str, Any]) -> bytes:
    return canonical_json(body)
