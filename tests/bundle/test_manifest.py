from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from libra_edge.bundle.manifest import canonical_json, json_schema, parse_manifest
from libra_edge.bundle.members import MANIFEST
from libra_edge.errors import ExitCode, IncompatibleError, IntegrityError

SCHEMA_FILE = Path(__file__).parents[2] / "docs/reference/manifest.schema.json"


def test_bytes_survive_a_round_trip(release: Path) -> None:
    data = (release / MANIFEST).read_bytes()
    assert parse_manifest(data).to_bytes() == data


def test_canonical_form_is_sorted_indented_utf8() -> None:
    assert canonical_json({"b": 1.0, "a": "é"}) == '{\n "a": "é",\n "b": 1.0\n}\n'.encode()


def test_published_schema_is_the_one_of_the_code() -> None:
    assert json.loads(SCHEMA_FILE.read_text()) == json_schema(), "run `make docs`"


def test_a_manifest_satisfies_the_published_schema(release: Path) -> None:
    body = json.loads((release / MANIFEST).read_bytes())
    schema = json.loads(SCHEMA_FILE.read_text())
    jsonschema.validate(body, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**body, "surprise": 1}, schema)


def test_another_schema_version_is_incompatible_not_corrupt(release: Path) -> None:
    body = json.loads((release / MANIFEST).read_bytes())
    with pytest.raises(IncompatibleError) as caught:
        parse_manifest(canonical_json({**body, "schema_version": 2}))
    assert caught.value.code == "manifest-schema"
    assert caught.value.exit_code is ExitCode.INCOMPATIBLE


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("policy", "plan_steps"), 7),
        (("policy", "bins"), "10"),
        (("policy", "bins"), 2**63),
        (("policy", "checkpoint_sha256"), "AB" * 32),
        (("parity", "verdict"), "fail"),
        (("parity", "samples"), 0),
        (("engines", "planner", "member"), "lib/libonnxruntime.so"),
        (("engines", "refiner", "form"), "magic"),
        (("name",), "../escape"),
        (("members", "engines/planner.onnx", "size_bytes"), 2**40),
        (("members", "engines/planner.onnx", "sha256"), "0"),
        (("members", "engines/other.onnx"), {"sha256": "00" * 32, "size_bytes": 1}),
    ],
)
def test_an_invalid_value_is_refused(release: Path, path: tuple[str, ...], value: object) -> None:
    body = json.loads((release / MANIFEST).read_bytes())
    *parents, last = path
    inner = body
    for key in parents:
        inner = inner[key]
    inner[last] = value
    with pytest.raises(IntegrityError) as caught:
        parse_manifest(canonical_json(body))
    assert caught.value.code == "manifest-invalid"
