"""Python and C++ take the same bytes for a manifest, and refuse the same."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable

import pytest

from libra_edge.binding import abi
from libra_edge.bundle.manifest import parse_manifest
from libra_edge.errors import IncompatibleError, IntegrityError
from libra_edge.runtime import build, manifest_table
from tests.runtime import broken_manifests as broken
from tests.runtime.native_build import C_SOURCES, STRICT, TARGET, zig

Reader = Callable[[bytes], tuple[int, str]]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """`read_manifest` of the runtime: status and sentence."""
    out, root = tmp_path_factory.mktemp("manifest") / "shim.so", build.SOURCE_ROOT
    names = ("canonical", "error", "json", "manifest", "rules", "sha256", "tensor")
    sources = [str(path) for path in build.native_sources() if path.stem in names]
    yyjson = root / "third_party/yyjson"
    zig("cc", *TARGET, "-O1", "-fPIC", "-c", str(yyjson / "yyjson.c"), "-o", f"{out}.o")
    zig(
        *("c++", *TARGET, "-std=c++20", "-O1", "-fPIC", "-shared", *STRICT[:2], "-Werror"),
        *(f"-I{root / 'include'}", f"-I{root / 'src'}", "-isystem", str(yyjson)),
        *(str(C_SOURCES / "manifest_shim.cc"), *sources, f"{out}.o", "-o", str(out)),
    )
    shim = ctypes.CDLL(str(out))
    shim.read_manifest.argtypes = (ctypes.c_char_p, ctypes.c_uint64) * 2

    def read(data: bytes) -> tuple[int, str]:
        text = ctypes.create_string_buffer(abi.ERROR_SIZE)
        status = shim.read_manifest(data, len(data), text, len(text))
        return status, text.value.decode(errors="replace")

    return read


def in_python(data: bytes) -> tuple[int, str]:
    try:
        parse_manifest(data)
    except IncompatibleError as error:
        return abi.INCOMPATIBLE, str(error)
    except IntegrityError as error:
        return abi.MALFORMED, str(error)
    return abi.OK, ""


def compare(reader: Reader, cases: Iterable[tuple[str, bytes]]) -> tuple[int, int]:
    """How many were taken and refused, by both alike."""
    taken = refused = 0
    for name, data in cases:
        python, cpp = in_python(data), reader(data)
        assert python[0] == cpp[0], f"{name}: {python} in Python, {cpp} in C++"
        taken, refused = taken + (python[0] == abi.OK), refused + (python[0] != abi.OK)
    return taken, refused


def test_the_table_is_the_one_of_the_models() -> None:
    found = manifest_table.HEADER.read_text(encoding="utf-8")
    assert found == manifest_table.header(), "run `python -m libra_edge.runtime.manifest_table`"


def test_the_examples_are_right_and_leave_no_key_out() -> None:
    for body in broken.bodies():
        parse_manifest(broken.canonical_json(body))
    assert body.keys() == broken.SCHEMA["properties"].keys()


def test_both_agree_on_every_other_value(reader: Reader) -> None:
    taken, refused = compare(reader, broken.other_values())
    assert taken > 300
    assert refused > 5000


def test_both_agree_on_other_bytes(reader: Reader) -> None:
    taken, refused = compare(reader, broken.other_bytes())
    assert taken > 5
    assert refused > 150


def test_both_write_numbers_alike(reader: Reader) -> None:
    taken, _ = compare(reader, broken.numbers(1500))
    assert taken >= 1500


@pytest.mark.parametrize(
    ("pattern", "why"), [("^a|b$", "cannot say"), ("^[a-z]+x$", "ambiguous"), ("a+", "cannot say")]
)
def test_a_pattern_that_the_table_cannot_say_is_an_error(pattern: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        list(manifest_table._stretches(pattern))
