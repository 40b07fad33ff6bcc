"""A release that is not whole, or not for this machine, never opens."""

from __future__ import annotations

import ctypes
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from libra_edge.binding import abi
from libra_edge.binding.library import load_library
from libra_edge.binding.policy import Policy
from libra_edge.bundle import members
from libra_edge.bundle.manifest import parse_manifest
from libra_edge.errors import ExitCode, LibraError
from tests.runtime import tiny_release as tiny

Copy = Callable[[], Path]
MEMBERS = [
    "engines/planner.onnx",
    "engines/refiner.onnx",
    "golden/actions.npy",
    "golden/images.npy",
    "golden/instruction.npy",
    "golden/intent.npy",
    "golden/margin.npy",
    "golden/noise.npy",
    "golden/state.npy",
    "include/libra_edge.h",
    "lib/liblibra_edge.so",
    "lib/libonnxruntime.so",
    "tokenizer.json",
]


def read(release: Path) -> Any:
    return json.loads((release / "manifest.json").read_text(encoding="utf-8"))


def try_open(release: Path, library: Path, flags: int = 0) -> tuple[int, str]:
    """Status and text of le_open through a trusted library; the handle stays untouched."""
    loaded = load_library(library)
    handle = ctypes.c_void_p(0xABCD)
    error = ctypes.create_string_buffer(abi.ERROR_SIZE)
    options = abi.OpenOptions(
        struct_size=ctypes.sizeof(abi.OpenOptions),
        abi_version=1,
        release_dir=os.fsencode(release),
        threads=1,
        flags=flags,
    )
    status = loaded.le_open(ctypes.byref(options), ctypes.byref(handle), error, len(error))
    if status == abi.OK:
        loaded.le_destroy(handle)
    else:
        assert handle.value == 0xABCD
        assert error.value
    return status, error.value.decode(errors="replace")


def edit(path: tuple[str | int, ...], value: Any) -> Callable[[Any], None]:
    def change(manifest: Any) -> None:
        for key in path[:-1]:
            manifest = manifest[key]
        if value is None:
            del manifest[path[-1]]
        else:
            manifest[path[-1]] = value

    return change


def test_the_members_above_are_all(release: Path) -> None:
    assert sorted(read(release)["members"]) == MEMBERS == sorted(members.MEMBERS)


def test_python_reads_the_same_manifest(release: Path) -> None:
    manifest = parse_manifest((release / "manifest.json").read_bytes())
    assert manifest.engines.refiner.form == "loop"


@pytest.mark.parametrize("member", MEMBERS)
@pytest.mark.parametrize("where", ["first", "middle", "last"])
def test_a_changed_byte(copy: Copy, library: Path, member: str, where: str) -> None:
    release = copy()
    content = bytearray((release / member).read_bytes())
    content[{"first": 0, "middle": len(content) // 2, "last": -1}[where]] ^= 1
    tiny.replace(release / member, bytes(content))
    status, text = try_open(release, library)
    assert (status, text) == (
        abi.INTEGRITY,
        f"{member} is not the file the manifest names: its SHA-256 differs.",
    )


@pytest.mark.parametrize("member", MEMBERS)
def test_a_member_cut_or_missing_or_no_file(copy: Copy, library: Path, member: str) -> None:
    release = copy()
    tiny.replace(release / member, (release / member).read_bytes()[:-1])
    status, text = try_open(release, library)
    assert status == abi.INTEGRITY
    assert "the manifest says" in text
    (release / member).unlink()
    assert try_open(release, library) == (abi.INTEGRITY, f"{member} is missing.")
    (release / member).mkdir()
    assert try_open(release, library) == (abi.INTEGRITY, f"{member} is not a regular file.")
    (release / member).rmdir()
    os.mkfifo(release / member)
    assert try_open(release, library) == (abi.INTEGRITY, f"{member} is not a regular file.")


POLICY, PLANNER, MEMBER = "policy", ("engines", "planner"), ("members", "engines/planner.onnx")
LIBRARY = ("members", "lib/liblibra_edge.so", "sha256")
ACTION = ("embodiment", "actions", 0)
EDITS: list[tuple[tuple[str | int, ...], Any, int, str]] = [
    (("schema_version",), 2, abi.INCOMPATIBLE, "schema 2"),
    (("schema_version",), "1", abi.MALFORMED, "schema_version"),
    (("schema_version",), True, abi.MALFORMED, "schema_version"),
    (
        ("runtime", "abi_version"),
        2,
        abi.ABI_MISMATCH,
        "The release is made for ABI version 2; this library has version 1.",
    ),
    (
        ("runtime", "arch"),
        "aarch64-linux-gnu",
        abi.WRONG_ARCHITECTURE,
        "The release is compiled for aarch64-linux-gnu; this library runs on x86_64-linux-gnu.",
    ),
    (("runtime", "onnxruntime_version"), "1.0.0", abi.INCOMPATIBLE, "1.0.0"),
    (("runtime",), None, abi.MALFORMED, "runtime"),
    (("name",), "a\u0000b", abi.MALFORMED, "name"),
    (("name",), "x" * 300, abi.MALFORMED, "name"),
    ((POLICY, "type"), "no name", abi.MALFORMED, "type"),
    ((POLICY, "bins"), 1, abi.MALFORMED, "bins"),
    ((POLICY, "bins"), 10.0, abi.MALFORMED, "bins"),
    ((POLICY, "chunk"), -3, abi.MALFORMED, "chunk"),
    ((POLICY, "chunk"), 2**64, abi.MALFORMED, "canonical"),
    ((POLICY, "plan_steps"), 7, abi.MALFORMED, "plan_steps"),
    ((POLICY, "denoise_steps"), None, abi.MALFORMED, "denoise_steps"),
    (("embodiment", "control_hz"), 0, abi.MALFORMED, "control_hz"),
    (("embodiment", "cameras"), [], abi.MALFORMED, "cameras"),
    (("embodiment", "image_width"), 65536 * 2, abi.MALFORMED, "image_width"),
    ((*ACTION, "kind"), "relative", abi.MALFORMED, "relative"),
    ((*ACTION, "lower"), 0.5, abi.MALFORMED, "below upper"),
    ((*ACTION, "upper"), 1e300, abi.MALFORMED, "1e+30"),
    ((*PLANNER, "kind"), "tensorrt", abi.INCOMPATIBLE, "tensorrt"),
    (
        (*PLANNER, "provider"),
        "CUDAExecutionProvider",
        abi.NO_PROVIDER,
        "engines/planner.onnx needs the execution provider CUDAExecutionProvider, which this "
        "library does not run.",
    ),
    ((*PLANNER, "member"), "../planner.onnx", abi.MALFORMED, "../planner.onnx"),
    ((*PLANNER, "member"), "engines/refiner.onnx", abi.MALFORMED, "planner: member"),
    ((*PLANNER, "session_options"), {"x.file_path": "/"}, abi.MALFORMED, "x.file_path"),
    (
        (*PLANNER, "session_options"),
        {"session.disable_prepacking": 1},
        abi.MALFORMED,
        "is not text",
    ),
    ((*PLANNER, "inputs", 0, "dtype"), "float32", abi.INCOMPATIBLE, "images uint8"),
    ((*PLANNER, "inputs", 0, "shape", 0), 3, abi.INCOMPATIBLE, "images uint8"),
    ((*PLANNER, "inputs", 0, "shape", 0), -1, abi.MALFORMED, "shape"),
    ((*PLANNER, "inputs", 1, "name"), "images", abi.INCOMPATIBLE, "instruction int64"),
    ((*PLANNER, "outputs", 1), None, abi.INCOMPATIBLE, "outputs"),
    ((*MEMBER, "sha256"), "0" * 64, abi.INTEGRITY, "SHA-256"),
    ((*MEMBER, "sha256"), "A" * 64, abi.MALFORMED, "sha256"),
    ((*MEMBER, "sha256"), "0" * 63, abi.MALFORMED, "sha256"),
    ((*MEMBER, "size_bytes"), 2**40, abi.MALFORMED, "size_bytes"),
    (MEMBER, None, abi.MALFORMED, "engines/planner.onnx"),
    (("members", "lib/libonnxruntime.so"), None, abi.MALFORMED, "lib/libonnxruntime.so"),
    (("members", "../../etc/passwd"), {}, abi.MALFORMED, "../../etc/passwd"),
    (("members", "manifest.json"), {}, abi.MALFORMED, "manifest.json"),
    (("members", "engines/other.onnx"), {}, abi.MALFORMED, "engines/other.onnx"),
]


@pytest.mark.parametrize(("path", "value", "status", "text"), EDITS)
def test_a_manifest_with_another_value(
    copy: Copy, library: Path, path: tuple[str | int, ...], value: Any, status: int, text: str
) -> None:
    release = copy()
    manifest = read(release)
    edit(path, value)(manifest)
    tiny.write_manifest(release, manifest)
    found = try_open(release, library)
    assert found[0] == status, found
    assert text in found[1]


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "{",
        "null",
        "[]",
        '"text"',
        "[" * 500_000,
        "[" * 17 + "]" * 17,
        "[" * 500_000 + "]" * 500_000,
        '{"a":' * 170_000 + "1" + "}" * 170_000,
        '{"a":' * 200_000,
        '{"schema_version": NaN}',
        '{"schema_version": 1e999}',
        '{"schema_version": 1, "schema_version": 1}',
        '{"schema_version": 1} {}',
        '{"schema_version": 1,}',
        '{"schema_version": 1 /* c */}',
        '{"\\ud800": 1}',
        '{"' + "x" * 100_000 + '": 1}',
        "{" + ",".join(f'"{i}": 1' for i in range(300)) + "}",
    ],
    ids=lambda text: text[:20],
)
def test_a_hostile_manifest(copy: Copy, library: Path, text: str) -> None:
    release = copy()
    tiny.replace(release / "manifest.json", text.encode())
    assert try_open(release, library)[0] == abi.MALFORMED
    with pytest.raises(LibraError) as caught:
        Policy(release)
    assert caught.value.exit_code in (ExitCode.INTEGRITY, ExitCode.INCOMPATIBLE)


def test_a_manifest_that_is_not_text_or_too_large(copy: Copy, library: Path) -> None:
    release = copy()
    whole = (release / "manifest.json").read_bytes()
    for content in (b"\xff\xfe" + whole, whole[:-10] + b"\x00" * 9, whole + b" " * 2**20):
        tiny.replace(release / "manifest.json", content)
        assert try_open(release, library)[0] == abi.MALFORMED


def test_every_truncation_is_refused(copy: Copy, library: Path) -> None:
    release = copy()
    whole = (release / "manifest.json").read_bytes()
    for length in [*range(0, len(whole) - 2, 37), len(whole) - 3]:
        tiny.replace(release / "manifest.json", whole[:length])
        assert try_open(release, library)[0] == abi.MALFORMED


def test_random_damage_never_crashes(copy: Copy, library: Path) -> None:
    release = copy()
    whole = (release / "manifest.json").read_bytes()
    rng = random.Random(11)
    statuses = set()
    for _ in range(300):
        content = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            start = rng.randrange(len(content))
            piece = bytes(rng.choices(b'{}[]",:0123456789-eE\\\x00\xff', k=rng.randint(0, 4)))
            content[start : start + rng.randint(0, 4)] = piece
        tiny.replace(release / "manifest.json", bytes(content))
        statuses.add(try_open(release, library)[0])
    assert abi.INTERNAL not in statuses
    assert abi.MALFORMED in statuses
