"""Signatures and trust files that no reader may take, and some that all may."""

from __future__ import annotations

import base64
import copy
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from libra_edge.bundle.manifest import canonical_json
from libra_edge.bundle.signing.envelope import bundle_of

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 1.0, 2**31, 2**64, 1e300),
    *("", "x", "\0", "é", "\U0001f600", [], [[]], {}, {"a": 1}, ["x"], "A" * 300),
)


def flipped(data: bytes, bits: Iterator[int] | range) -> Iterator[tuple[str, bytes]]:
    """The bytes with one bit turned, for each of these."""
    for bit in bits:
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        yield f"bit {bit}", bytes(changed)


def cut(data: bytes, lengths: Iterator[int] | range) -> Iterator[tuple[str, bytes]]:
    """The bytes up to each of these lengths."""
    for length in lengths:
        yield f"first {length} bytes", data[:length]


def other_json(data: bytes) -> Iterator[tuple[str, bytes]]:
    """JSON that readers are known to take in different ways, made of a good document."""
    text = data.decode()
    key, rest = text.split('"', 2)[1], text.lstrip().removeprefix("{")
    yield "byte order mark", b"\xef\xbb\xbf" + data
    yield "UTF-16", text.encode("utf-16")
    yield "blanks around", b" \n\t\r" + data + b"\r\n \t"
    yield "form feed after", data + b"\x0c"
    yield "zero byte after", data + b"\0"
    yield "two documents", data + data
    yield "a comment", data + b"// x\n"
    yield "single quotes", text.replace('"', "'").encode()
    yield "a comma at the end", text.rstrip()[:-1].encode() + b",}"
    yield "a key twice, same", f'{{"{key}": "x",{rest}'.encode()
    yield "a key twice, spelled", f'{{"\\u{ord(key[0]):04x}{key[1:]}": "x",{rest}'.encode()
    yield "an unknown key", f'{{"unknown": "x",{rest}'.encode()
    yield "an empty key", f'{{"": "x",{rest}'.encode()
    for number in ("NaN", "Infinity", "-Infinity", "-0", "01", "1e999", "1" * 5000, "0x10", "+1"):
        yield f"number {number[:12]}", f'{{"unknown": {number},{rest}'.encode()
    for string in ("\\ud800", "\\udc00\\ud800", "\\ud83d\\ude00", "\\x41", "\x01", "\x7f", "\\/"):
        yield f"string {string!r}", f'{{"unknown": "{string}",{rest}'.encode()
    for raw in (b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82"):
        yield f"bytes {raw!r}", b'{"unknown": "' + raw + b'",' + rest.encode()
    for depth in (31, 32, 33, 500, 100_000):
        nested = "[" * depth + "]" * depth
        yield f"nested {depth}", f'{{"unknown": {nested},{rest}'.encode()
        objects = '{"a":' * depth + "0" + "}" * depth
        yield f"objects {depth}", f'{{"unknown": {objects},{rest}'.encode()
    for whole in ("", "null", "[]", "{}", "0", '"x"', "[" * 100_000):
        yield f"only {whole[:9]!r}", whole.encode()


def other_values(body: Any) -> Iterator[tuple[str, Any]]:
    """The body with each of its values in turn replaced, left out, or with a key beside it."""
    for path in _paths(body):
        for value in ODD_VALUES:
            yield (
                f"{path} = {value!r:.20}",
                _changed(body, path, lambda at, k, v=value: _put(at, k, v)),
            )
        yield f"without {path}", _changed(body, path, lambda at, key: at.pop(key))
    yield "a key more", {**body, "more": "x"} if isinstance(body, dict) else [*body, "x"]


def other_proofs(
    payload: bytes, message: bytes, key: ec.EllipticCurvePrivateKey
) -> Iterator[tuple[str, bytes]]:
    """Bundles whose DER is not the one form of a signature, and the twin that is one too."""
    proof = key.sign(message, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
    r, s = decode_dss_signature(proof)
    forms = {
        "as it is": proof,
        "its twin": _der(_integer(r), _integer(ORDER - s)),
        "r of zero": _der(_integer(0), _integer(s)),
        "s of zero": _der(_integer(r), _integer(0)),
        "both zero": _der(_integer(0), _integer(0)),
        "r past the order": _der(_integer(r + ORDER), _integer(s)),
        "s past the order": _der(_integer(r), _integer(s + ORDER)),
        "r is the order": _der(_integer(ORDER), _integer(s)),
        "negative r": _der(_integer(r - (1 << 256)), _integer(s)),
        "a zero before r": _der(b"\0" + _integer(r), _integer(s)),
        "a zero before s": _der(_integer(r), b"\0" + _integer(s)),
        "an empty integer": _der(b"", _integer(s)),
        "bytes after": proof + b"\0",
        "a third integer": _der(_integer(r), _integer(s), _integer(1)),
        "one integer": _der(_integer(r)),
        "long length": b"\x30\x81" + proof[1:],
        "endless length": b"\x30\x80" + proof[2:] + b"\0\0",
        "a set": b"\x31" + proof[1:],
        "raw": r.to_bytes(32, "big") + s.to_bytes(32, "big"),
        "nothing": b"",
    }
    for name, form in forms.items():
        bundle = bundle_of(payload, key)
        bundle["dsseEnvelope"]["signatures"][0]["sig"] = base64.b64encode(form).decode()
        yield name, canonical_json(bundle)


def other_base64(bundle: Any) -> Iterator[tuple[str, bytes]]:
    """The same bytes in other forms of base64."""
    for place in ("payload", "sig"):
        changed = copy.deepcopy(bundle)
        envelope = changed["dsseEnvelope"]
        at = envelope if place == "payload" else envelope["signatures"][0]
        text = at[place]
        forms = [
            *(text.rstrip("="), text + "=", text + "====", text[:8] + "\n" + text[8:], " " + text),
            *(text.replace("+", "-").replace("/", "_"), text[:-1], text + "A", text + "é"),
            *(
                text[:-3] + chr(ord(text[-3]) + 1) + text[-2:],
                "=" + text,
                text[:4] + "=" + text[4:],
            ),
        ]
        for index, form in enumerate(forms):
            at[place] = form
            yield f"{place}, form {index}", canonical_json(changed)


def random_statements(body: Any, count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """Statements with several changes at once; all will be signed by a trusted key."""
    chance = random.Random(seed)
    for index in range(count):
        changed = copy.deepcopy(body)
        for _ in range(chance.randint(1, 3)):
            paths = list(_paths(changed))
            if not paths:
                break
            path, value = chance.choice(paths), chance.choice(ODD_VALUES)
            changed = _changed(changed, path, lambda at, k, v=value: _put(at, k, v))
        yield f"statement {index}", json.dumps(changed, allow_nan=False).encode()


def _put(at: Any, key: Any, value: Any) -> None:
    at[key] = copy.deepcopy(value)


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        yield (*path, key)
        if isinstance(item, dict | list):
            yield from _paths(item, (*path, key))


def _changed(body: Any, path: tuple[Any, ...], change: Callable[[Any, Any], Any]) -> Any:
    changed = copy.deepcopy(body)
    at = changed
    for key in path[:-1]:
        at = at[key]
    change(at, path[-1])
    return changed


def _integer(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)


def _der(*integers: bytes) -> bytes:
    body = b"".join(b"\x02" + bytes([len(one)]) + one for one in integers)
    return b"\x30" + bytes([len(body)]) + body
