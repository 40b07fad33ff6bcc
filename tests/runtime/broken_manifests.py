"""Manifests that are broken in one place, and some that look it: made from the model's schema."""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Iterator
from typing import Any

from libra_edge.bundle.manifest import canonical_json, json_schema
from libra_edge.bundle.members import MANIFEST, MAX_BYTES, MEMBERS, required_members
from libra_edge.catalog.providers import PROVIDERS
from tests.bundle.examples import facts_body

SCHEMA = json_schema()
Path = tuple[str | int, ...]
_FITTING = ("x", "ab" * 32, "2.35", "1.2.3", "x86_64-linux-gnu", "session.disable_prepacking")
_OTHER_TYPES = (None, True, False, 0, 1, -1, 2.5, "", "x", [], {}, [0], {"x": 0}, 2**40, 2**70)
_TEXTS = (
    *("", "a", "-a", "a" * 64, "a" * 65, "a\n", "a b", "é", "a\u0000", "\u007f", "😀" * 64),
    *("😀" * 4096, "a" * 4097, "\u2028", '"', "\\", "\t", "A" * 64, "0" * 63, "2.1234", "1.2"),
    *("1.2.3.4", "x-linux-gnu", "-linux-gnu", "X-linux-gnu", "engines/planner.onnx", "٣", "m/s²"),
)


def sample(schema: dict[str, Any]) -> Any:
    """Some value of a schema."""
    if "$ref" in schema:
        return sample(SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]])
    for case in schema.get("anyOf", ()):
        if case != {"type": "null"}:
            return sample(case)
    if "const" in schema or "enum" in schema:
        return schema.get("const", schema.get("enum", [None])[-1])
    kind = schema["type"]
    if kind == "string":
        return next(t for t in _FITTING if re.search(schema.get("pattern", ""), t))
    if kind == "boolean":
        return True
    if kind == "array":
        items = schema.get("prefixItems") or [schema["items"]] * schema.get("minItems", 1)
        return [sample(item) for item in items]
    if kind == "object" and "properties" in schema:
        return {key: sample(value) for key, value in schema["properties"].items()}
    if kind == "object":
        ((key, value),) = schema.get("patternProperties", {"": None}).items()
        value = value or schema["additionalProperties"]
        return {next(t for t in _FITTING if re.search(key, t)): sample(value)}
    low = schema.get("minimum", schema.get("exclusiveMinimum", -1))
    return max(1, low) if kind == "integer" else max(0.5, float(low))


def bodies() -> Iterator[dict[str, Any]]:
    """Manifests that are right: the keys that must be there, no planner, all with a planner."""
    member = {"sha256": "ab" * 32, "size_bytes": 7}
    plain = facts_body() | {"members": {name: dict(member) for name in MEMBERS}}
    yield plain
    yield without_planner(plain, member)
    full = _filled(plain, SCHEMA)
    del full["policy"]["predicted"], full["policy"]["observation_steps"]
    del full["embodiment"]["camera_sizes"]
    full["engines"]["planner"]["member"] = "engines/planner.engine.onnx"
    full["engines"]["refiner"]["member"] = "engines/refiner.engine.onnx"
    full["members"] = {n: dict(member) for n in MAX_BYTES if n != MANIFEST}
    # Each engine on a provider of its own, so that the files of all of them belong.
    for engine, provider in zip(full["engines"].values(), PROVIDERS, strict=True):
        engine["provider"] = provider
    yield full


def without_planner(plain: dict[str, Any], member: dict[str, Any]) -> dict[str, Any]:
    """The same of a policy with one engine, cameras of two sizes, and a look back."""
    body = copy.deepcopy(plain)
    size = body["policy"]["chunk"]
    body["policy"] |= {"bins": 0, "chunks_per_plan": 1, "plan_steps": size, "predicted": size + 1}
    body["policy"] |= {"observation_steps": 2}
    body["embodiment"] |= {"cameras": ["one", "two"], "image_height": 8, "image_width": 6}
    body["embodiment"]["camera_sizes"] = [[8, 4], [4, 6]]
    del body["engines"]["planner"]
    needed = required_members(plans=False, words=True, noise=True)
    return body | {"members": {name: dict(member) for name in needed}}


def _items(schema: dict[str, Any], value: list[Any]) -> list[dict[str, Any]]:
    """The schema of each item of a list, or of a tuple."""
    return schema.get("prefixItems") or [schema["items"]] * len(value)


def _filled(value: Any, schema: dict[str, Any]) -> Any:
    """The value with a sample for each key that its schema knows and it lacks."""
    schema = _resolved(schema)
    if isinstance(value, list):
        return [
            _filled(item, inner) for item, inner in zip(value, _items(schema, value), strict=True)
        ]
    if not isinstance(value, dict) or "properties" not in schema:
        return value
    known = schema["properties"]
    whole = {k: _filled(v, known[k]) if k in known else v for k, v in value.items()}
    return whole | {k: sample(known[k]) for k in known.keys() - value.keys()}


def _resolved(schema: dict[str, Any]) -> dict[str, Any]:
    for case in schema.get("anyOf", ()):
        if case != {"type": "null"}:
            schema = case
    if "$ref" in schema:
        return dict(SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]])
    return schema


def _places(value: Any, schema: dict[str, Any], path: Path = ()) -> Iterator[tuple[Path, Any, Any]]:
    """(path, value, schema) of the value and all that it holds."""
    schema = _resolved(schema)
    yield path, value, schema
    if isinstance(value, list):
        for index, (item, inner) in enumerate(zip(value[:2], _items(schema, value), strict=False)):
            yield from _places(item, inner, (*path, index))
    elif isinstance(value, dict):
        (other,) = schema.get(
            "patternProperties", {"": schema.get("additionalProperties")}
        ).values()
        for key, item in value.items():
            inner = schema.get("properties", {}).get(key, other)
            yield from _places(item, inner, (*path, key))


def _with(body: Any, path: Path, value: Any) -> Any:
    if not path:
        return value
    changed = copy.deepcopy(body)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return changed


def _values(value: Any, schema: dict[str, Any]) -> Iterator[Any]:
    """Other values for one place: of other types, at its bounds and just past them."""
    yield from _OTHER_TYPES
    kind = schema.get("type")
    if kind in ("integer", "number"):
        step = 1 if kind == "integer" else 0.5
        for bound in ("minimum", "maximum", "exclusiveMinimum"):
            if bound in schema:
                edge = schema[bound] if kind == "integer" else float(schema[bound])
                yield from (edge, edge - step, edge + step, float(edge))
        yield from (10**400, -(2**63), 1e-320, -0.0, 5e-324, 1e308, 1e16, 123456789012345680.0)
    elif kind == "string":
        yield from _TEXTS
        yield from (word + tail for word in schema.get("enum", ()) for tail in ("", "x"))
    elif kind == "array":
        for bound in ("minItems", "maxItems"):
            if bound in schema and schema[bound] <= 1024:
                one = value[0] if value else sample(_items(schema, [None])[0])
                yield from ([one] * schema[bound], [one] * (schema[bound] + 1))
    elif kind == "object":
        yield value | {"surprise": 0}
        yield value | {"": ""}
        yield from ({k: v for k, v in value.items() if k != gone} for gone in value)
        if "maxProperties" in schema:
            most, inner = schema["maxProperties"], next(iter(value.values()), "x")
            yield from ({f"x{i}": inner for i in range(n)} for n in (most, most + 1))


def other_values() -> Iterator[tuple[str, bytes]]:
    """(what was changed, bytes): each value of each manifest, changed in every way."""
    for body in bodies():
        for path, value, schema in _places(body, SCHEMA):
            for number, other in enumerate(_values(value, schema)):
                name = f"{'.'.join(map(str, path)) or 'root'} {number}: {str(other)[:40]}"
                yield name, canonical_json(_with(body, path, other))


def other_bytes() -> Iterator[tuple[str, bytes]]:
    """(what was changed, bytes): a right value in wrong bytes, and what is no JSON at all."""
    for body in bodies():
        data = canonical_json(body)
        yield "as it is", data
        yield "no newline", data[:-1]
        yield "two newlines", data + b"\n"
        yield "a space", data.replace(b": ", b":  ", 1)
        yield "indented by 2", json.dumps(body, sort_keys=True, indent=2).encode() + b"\n"
        yield "not indented", json.dumps(body, sort_keys=True).encode() + b"\n"
        yield "unsorted", json.dumps(dict(reversed(body.items())), indent=1).encode() + b"\n"
        yield "byte order mark", b"\xef\xbb\xbf" + data
        yield "utf-16", data.decode().encode("utf-16")
        yield "cut", data[:-40]
        yield "twice", data + data
        yield "escaped", data.replace(b"example", b"\\u0065xample")
        yield "escaped slash", data.replace(b"engines/", b"engines\\/", 1)
        for text in (b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\xaf"):
            yield f"bad utf-8 {text!r}", data.replace(b"faster", text, 1)
        for text in (b"\\ud800", b"\\u0000", b"\\u001f", b"\\u001F", b"\\n", b"\\/", b"\x01"):
            yield f"text {text!r}", data.replace(b"faster", text, 1)
        for number in (b"80", b"8e1", b"8.0e1", b"80.00", b"80.0e0", b"+80.0", b"080.0", b"NaN"):
            yield f"number {number!r}", data.replace(b"80.0", number, 1)
        for number in (b"Infinity", b"1e999", b"1e-999", b"0x10", b"80.", b".8", b"-0", b"8" * 500):
            yield f"number {number!r}", data.replace(b"80.0", number, 1)
        for line in {line for line in data.splitlines(keepends=True) if b'": ' in line}:
            if line.endswith(b",\n"):
                yield f"twice: {line!r}", data.replace(line, line + line, 1)
        yield "deep", data.replace(b'"example"', b"[" * 100_000 + b"]" * 100_000)
        yield "deep object", data.replace(b'"example"', b'{"a":' * 50_000 + b"1" + b"}" * 50_000)
        padding = MAX_BYTES[MANIFEST] - len(data)
        for size in (padding, padding + 1):
            yield f"padded by {size}", data.replace(b"faster", b"faster" + b"x" * size, 1)
    yield from ((repr(text), text) for text in (b"", b" ", b"{", b"null", b"[]", b'"x"', b"{}\n"))


def numbers(count: int) -> Iterator[tuple[str, bytes]]:
    """Doubles of every size, as Python writes them: the other reader has to write the same."""
    rng = random.Random(5)
    body = next(bodies())
    for _ in range(count):
        value = rng.choice((-1, 1)) * rng.uniform(1, 10) * 10.0 ** rng.randint(-300, 300)
        value = rng.choice((value, float(f"{value:.3g}"), float(f"{rng.uniform(1e-5, 1e18):.4g}")))
        checks = [{**body["parity"]["checks"][0], "threshold": value}]
        yield repr(value), canonical_json(_with(body, ("parity", "checks"), checks))
        changed = canonical_json(_with(body, ("parity", "checks"), checks))
        yield f"{value} longer", changed.replace(repr(value).encode(), f"{value:.20e}".encode())
