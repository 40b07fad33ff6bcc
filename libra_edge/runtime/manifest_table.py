"""Writes the manifest's rules for C++ from the Python models: one table, two readers.

Run as a module it renews `src/release/manifest_table.h`; a test says when that is needed.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, Literal

from pydantic import BaseModel

from libra_edge.bundle import members
from libra_edge.bundle.manifest import SCHEMA_VERSION, Manifest, json_schema
from libra_edge.catalog.providers import PROVIDERS
from libra_edge.runtime.build import SOURCE_ROOT

HEADER = SOURCE_ROOT / "src/release/manifest_table.h"
_ASCII = "".join(map(chr, range(128)))
_NO_LIMIT = "kNoLimit"
_PIECE = re.compile(r"(\[(?:\\.|[^\]])+\]|\\.|[^\\\[\](){}|*+?.])([*+]|\{\d+(?:,\d+)?\})?")
_WORDS = re.compile(r"\^\(([^()\[\]]+)\)\$")
_Kind = Literal[
    "kBoolean", "kInteger", "kNumber", "kWord", "kPattern", "kText", "kList", "kMap", "kObject"
]


class _Table:
    """Rules, keys, words and stretches as C++ initialisers; equal ones are written once."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._definitions = schema["$defs"]
        self._later = dict(_later_keys(Manifest))
        self.rules: list[str] = []
        self.keys: list[str] = []
        self.words: list[str] = []
        self.stretches: list[str] = []
        self.root = self._of(schema, "Manifest")

    def _of(self, schema: Mapping[str, Any], name: str = "") -> int:
        """Number of the rule for a JSON schema."""
        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            return self._of(self._definitions[name], name)
        if "anyOf" in schema:
            wanted = [case for case in schema["anyOf"] if case != {"type": "null"}]
            if len(wanted) != 1 or len(schema["anyOf"]) != 2:
                raise ValueError(f"the table cannot say {schema}")
            return self._nullable(self._of(wanted[0]))
        match schema.get("type"):
            case "boolean":
                return self._rule("kBoolean")
            case "integer" if "const" in schema:
                return self._rule("kInteger", schema["const"], schema["const"])
            case "integer" | "number" as kind:
                return self._number("kInteger" if kind == "integer" else "kNumber", schema)
            case "string":
                return self._text(schema)
            case "array":
                return self._list(schema)
            case "object" if "properties" in schema:
                return self._object(schema, name)
            case "object":
                return self._map(schema)
        raise ValueError(f"the table cannot say {schema}")

    def _number(self, kind: _Kind, schema: Mapping[str, Any]) -> int:
        above = "exclusiveMinimum" in schema
        least = schema.get("exclusiveMinimum", schema.get("minimum"))
        # C++ compares as doubles, which hold whole numbers exactly up to here.
        inexact = kind == "kInteger" and schema.get("maximum", 0) >= 2**53
        if inexact or "exclusiveMaximum" in schema:
            raise ValueError(f"the table cannot say {schema}")
        return self._rule(kind, least, schema.get("maximum"), above=above)

    def _text(self, schema: Mapping[str, Any]) -> int:
        words = schema.get("enum") or ([schema["const"]] if "const" in schema else None)
        pattern = schema.get("pattern", "")
        if not pattern and words is None:
            return self._rule("kText", schema.get("minLength", 0), schema.get("maxLength"))
        if {"minLength", "maxLength"} & schema.keys():
            raise ValueError(f"the table cannot say {schema}")
        if words is None and (found := _WORDS.fullmatch(pattern)):
            words = [re.sub(r"\\(.)", r"\1", word) for word in found[1].split("|")]
        if words is not None:
            first = _place(self.words, [_quoted(word) for word in sorted(words)])
            return self._rule("kWord", first=first, count=len(words))
        stretches = [_initialiser(*stretch) for stretch in _stretches(pattern)]
        first = _place(self.stretches, stretches)
        return self._rule("kPattern", first=first, count=len(stretches))

    def _list(self, schema: Mapping[str, Any]) -> int:
        items = schema.get("prefixItems") or [schema["items"]]
        if any(item != items[0] for item in items):
            raise ValueError(f"the table cannot say {schema}")
        least, most = schema.get("minItems", 0), schema.get("maxItems")
        return self._rule("kList", least, most, first=self._of(items[0]))

    def _map(self, schema: Mapping[str, Any]) -> int:
        if patterns := schema.get("patternProperties"):
            ((pattern, value),) = patterns.items()
            key: Mapping[str, Any] = {"type": "string", "pattern": pattern}
        else:
            value = schema["additionalProperties"]
            key = {"type": "string"} | schema.get("propertyNames", {})
        first, count = self._of(value), self._of(key)
        least, most = schema.get("minProperties", 0), schema.get("maxProperties")
        return self._rule("kMap", least, most, first=first, count=count)

    def _object(self, schema: Mapping[str, Any], name: str) -> int:
        if schema.get("additionalProperties") is not False:
            raise ValueError(f"{name} takes any key")
        later, rows = self._later.get(name, ()), []
        for key, value in sorted(schema["properties"].items()):
            rule = self._of(value)
            # A key with a default is written all the same, unless it came later.
            unset = _quoted(json.dumps(value["default"])) if key in later else "nullptr"
            rows.append(f"{{{_quoted(key)}, {rule}, {unset}}}")
        return self._rule("kObject", first=_place(self.keys, rows), count=len(rows))

    def _rule(
        self,
        kind: _Kind,
        least: float | None = None,
        most: float | None = None,
        *,
        above: bool = False,
        first: int = 0,
        count: int = 0,
    ) -> int:
        low = f"-{_NO_LIMIT}" if least is None else repr(least)
        high = _NO_LIMIT if most is None else repr(most)
        open_end = "true" if above else "false"
        row = f"{{Kind::{kind}, false, {open_end}, {low}, {high}, {first}, {count}}}"
        return _place(self.rules, [row])

    def _nullable(self, rule: int) -> int:
        return _place(self.rules, [self.rules[rule].replace(", false", ", true", 1)])


def header() -> str:
    """The whole of `manifest_table.h`."""
    table = _Table(json_schema())
    files = [
        f"{{{_quoted(name)}, {members.MAX_BYTES[name]}, "
        f"{_presence(name)}, {_beside(name)}, {_needed_by(name)}, {_provider_of(name)}}}"
        for name in sorted(members.MAX_BYTES.keys() - {members.MANIFEST})
    ]
    parts = [
        "// Generated by `python -m libra_edge.runtime.manifest_table` from libra_edge/bundle.",
        "#pragma once\n",
        '#include "release/rules.h"\n',
        "// clang-format off",
        "namespace le {\n",
        f"constexpr int kSchemaVersion = {SCHEMA_VERSION};",
        f"constexpr size_t kMostManifestBytes = {members.MAX_BYTES[members.MANIFEST]};",
        f"constexpr const char *kSignatureFile = {_quoted(members.SIGNATURE)};",
        f"constexpr size_t kMostSignatureBytes = {members.MAX_SIGNATURE_BYTES};",
        f"constexpr uint64_t kMostImageBytes = {members.MAX_IMAGE_BYTES};",
        f"constexpr uint64_t kMostPlanNumbers = {members.MAX_PLAN_NUMBERS};\n",
        _array("MemberRule kMemberRules", files),
        *_providers(),
        _array("char *kFolders", [_quoted(name) for name in sorted(members.FOLDERS)]),
        _array("char *kWords", table.words),
        _array("Stretch kStretches", table.stretches),
        _array("Key kKeys", table.keys),
        _array("Rule kRules", table.rules),
        f"constexpr size_t kManifestRule = {table.root};\n",
        "}  // namespace le",
    ]
    return "\n".join(parts) + "\n"


def _later_keys(model: type[BaseModel]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(name, keys that are left out where unset) of a model and all that it holds."""
    yield model.__name__, getattr(model, "later", ())
    for field in model.model_fields.values():
        for part in _models_in(field.annotation):
            yield from _later_keys(part)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _models_in(argument)


def _stretches(pattern: str) -> Iterator[tuple[str, bool, int, int]]:
    """(ASCII characters, all others too, least, most) of each stretch of a simple pattern.

    Raises:
        ValueError: reading it from the left, taking all that fits, would not always do.
    """
    pieces = list(_PIECE.finditer(pattern.removeprefix("^").removesuffix("$")))
    if f"^{''.join(piece[0] for piece in pieces)}$" != pattern:
        raise ValueError(f"the table cannot say {pattern}")
    found = [_stretch(*piece.groups()) for piece in pieces]
    for (before, _, least, most), (after, *_) in pairwise(found):
        if least != most and set(before) & set(after):
            raise ValueError(f"{pattern} is ambiguous")
    yield from found


def _stretch(characters: str, times: str | None) -> tuple[str, bool, int, int]:
    known = re.compile(characters if characters[0] in "[\\" else re.escape(characters))
    allowed = "".join(c for c in _ASCII if known.fullmatch(c))
    numbers = [int(n) for n in re.findall(r"\d+", times or "{1}")]
    endless = times in ("*", "+")
    least = {"*": 0, "+": 1}.get(times or "", numbers[0] if numbers else 0)
    return allowed, bool(known.fullmatch("é")), least, 2**32 - 1 if endless else numbers[-1]


def _initialiser(characters: str, others: bool, least: int, most: int) -> str:
    return f"{{{_quoted(characters)}, {'true' if others else 'false'}, {least}, {most}u}}"


def _place(rows: list[str], new: list[str]) -> int:
    """Where `new` stands in `rows`, to whose end it is added if need be."""
    for at in range(len(rows) - len(new) + 1):
        if rows[at : at + len(new)] == new:
            return at
    rows.extend(new)
    return len(rows) - len(new)


def _presence(name: str) -> str:
    if name in members.COMPILED:
        return "Presence::kIfLoaded"
    return f"Presence::{'kOptional' if name in members.OPTIONAL else 'kRequired'}"


def _beside(name: str) -> str:
    return _quoted(members.APART[name]) if name in members.APART else "nullptr"


def _needed_by(name: str) -> str:
    groups = {"kPlans": members.OF_PLANS, "kWords": members.OF_WORDS, "kNoise": members.OF_NOISE}
    return f"Needs::{next((need for need, names in groups.items() if name in names), 'kAll')}"


def _provider_of(name: str) -> str:
    provider = members.OF_PROVIDERS.get(name)
    return "nullptr" if provider is None else _quoted(provider)


def _providers() -> list[str]:
    """The tables of providers, their files and their options."""
    files: list[str] = []
    options: list[str] = []
    rows = []
    for provider in PROVIDERS.values():
        first_file, first_option = len(files), len(options)
        files += [_quoted(file.member) for file in provider.files]
        for engine, own in (
            ("kBoth", provider.options),
            ("kPlanner", provider.planner),
            ("kRefiner", provider.refiner),
        ):
            options += [
                f"{{OptionFor::{engine}, {_quoted(key)}, {_quoted(value)}}}"
                for key, value in own.items()
            ]
        words = ", ".join(map(_quoted, (provider.name, provider.words, provider.kind)))
        flags = f"{_boolean(provider.compiled)}, {_boolean(provider.device == 'gpu')}"
        counts = f"{first_file}, {len(files) - first_file}"
        counts += f", {first_option}, {len(options) - first_option}"
        rows.append(f"{{{words}, {flags}, {counts}}}")
    return [
        _array("char *kProviderFiles", files),
        _array("ProviderOption kProviderOptions", options),
        _array("ProviderRule kProviderRules", rows),
    ]


def _boolean(value: bool) -> str:
    return "true" if value else "false"


def _quoted(text: str) -> str:
    plain = set(string.printable) - set('"\\\t\n\r\x0b\x0c')
    return '"' + "".join(c if c in plain else f"\\{ord(c):03o}" for c in text) + '"'


def _array(name: str, rows: list[str]) -> str:
    return f"constexpr const {name}[] = {{\n" + "".join(f"    {r},\n" for r in rows) + "};\n"


if __name__ == "__main__":
    HEADER.write_text(header(), encoding="utf-8")
