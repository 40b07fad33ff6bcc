"""JSON from strangers, read so that no two readers differ on it (C++: `require_plain`)."""

from __future__ import annotations

import json
from typing import Any, NoReturn

_DEEPEST = 32
_LARGEST = 2**31 - 1


def read_plain_json(data: bytes) -> Any:
    """One JSON value in UTF-8, with nothing in it that readers take in different ways.

    Raises:
        ValueError: it is not JSON, has a key twice in an object, is nested too deeply, or holds a
            number that is not a whole one from 0 to 2^31 - 1.
    """
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_without_repetition,
            parse_int=_small,
            parse_float=_refused,
            parse_constant=_refused,
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    _check(value, 0)
    return value


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("it has a key twice")
    return found


def _small(text: str) -> int:
    if len(text) > len(str(_LARGEST)) or text.startswith("-") or int(text) > _LARGEST:
        _refused(text)
    return int(text)


def _refused(text: str) -> NoReturn:
    raise ValueError(f"it holds the number {text[:20]}")


def _check(value: Any, depth: int) -> None:
    if isinstance(value, str):
        value.encode()  # half of a surrogate pair raises a ValueError
    elif isinstance(value, dict | list):
        if depth == _DEEPEST:
            raise ValueError("it is nested too deeply")
        for item in value:
            _check(item, depth + 1)
        for item in value.values() if isinstance(value, dict) else ():
            _check(item, depth + 1)
