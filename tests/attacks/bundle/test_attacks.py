"""Files made to be refused: each must fail with an integrity error and leave nothing behind."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from libra_edge.bundle.container import header
from libra_edge.bundle.manifest import parse_manifest
from libra_edge.bundle.members import MANIFEST, MEMBERS
from libra_edge.bundle.pack import pack_release, unpack_release
from libra_edge.bundle.verify import verify_integrity
from libra_edge.errors import ExitCode, InputError, IntegrityError
from tests.bundle.examples import make_release

ALL = [MANIFEST, *sorted(MEMBERS)]
NONEMPTY = [name for index, name in enumerate(sorted(MEMBERS)) if index % 7]


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return make_release(tmp_path / "source")


@pytest.fixture
def packed(release: Path) -> bytes:
    path = release.parent / "packed.libra"
    pack_release(release, path)
    return path.read_bytes()


def assert_refused(data: bytes, folder: Path) -> None:
    file = folder / "attack.libra"
    file.write_bytes(data)
    for attempt in (lambda: verify_integrity(file), lambda: unpack_release(file, folder / "out")):
        with pytest.raises(IntegrityError) as caught:
            attempt()
        assert caught.value.exit_code is ExitCode.INTEGRITY
        assert caught.value.remedy
    assert {path.name for path in folder.iterdir()} <= {"attack.libra", "source"}


def offset_of(packed: bytes, name: str) -> int:
    return packed.index(name.encode().ljust(100, b"\0"))


def test_the_unharmed_file_is_accepted(packed: bytes, tmp_path: Path) -> None:
    (tmp_path / "good.libra").write_bytes(packed)
    verify_integrity(tmp_path / "good.libra")


@pytest.mark.parametrize("evil", ["../../evil", "/tmp/evil", "engines/../../evil", "engines\\x"])
def test_path_traversal(packed: bytes, tmp_path: Path, evil: str) -> None:
    size = int(packed[(at := offset_of(packed, "engines/refiner.onnx")) + 124 : at + 135], 8)
    assert_refused(packed[:at] + header(evil, size) + packed[at + 512 :], tmp_path)


def rewrite(packed: bytes, change: Callable[[tarfile.TarInfo], None], tar_format: int) -> bytes:
    """The same archive as another tar writer would make it, one member changed."""
    out = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(packed), mode="r:") as source,
        tarfile.open(fileobj=out, mode="w:", format=tar_format) as sink,
    ):
        for entry in source:
            data = source.extractfile(entry)
            if entry.name == "engines/refiner.onnx":
                change(entry)
            sink.addfile(entry, data)
    return out.getvalue()


def make_link(kind: bytes) -> Callable[[tarfile.TarInfo], None]:
    def change(entry: tarfile.TarInfo) -> None:
        entry.type, entry.linkname, entry.size = kind, "/etc/passwd", 0

    return change


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_link_and_device_members(packed: bytes, tmp_path: Path, kind: bytes) -> None:
    assert_refused(rewrite(packed, make_link(kind), tarfile.USTAR_FORMAT), tmp_path)


@pytest.mark.parametrize("tar_format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_extended_headers(packed: bytes, tmp_path: Path, tar_format: int) -> None:
    def lengthen(entry: tarfile.TarInfo) -> None:
        entry.name = "engines/" + "x" * 300

    assert_refused(rewrite(packed, lengthen, tar_format), tmp_path)


@pytest.mark.parametrize("start", [100, 108, 116, 136, 148, 156, 157, 257, 265, 329, 345, 500])
def test_every_header_field_is_fixed(packed: bytes, tmp_path: Path, start: int) -> None:
    data = bytearray(packed)
    data[offset_of(packed, "engines/planner.onnx") + start] ^= 1
    assert_refused(bytes(data), tmp_path)


@pytest.mark.parametrize("name", ["engines/planner.onnx", "golden/actions.npy"])
def test_duplicate_member(packed: bytes, tmp_path: Path, name: str) -> None:
    at = offset_of(packed, name)
    size = int(packed[at + 124 : at + 135], 8)
    member = packed[at : at + 512 + size + -size % 512]
    assert_refused(packed[:at] + member + packed[at:], tmp_path)


def test_extra_member(packed: bytes, tmp_path: Path) -> None:
    extra = header("zzz", 4) + b"evil".ljust(512, b"\0")
    assert_refused(packed[:-1024] + extra + packed[-1024:], tmp_path)


@pytest.mark.parametrize("size", [2**20 + 1, 8**11 - 1])
def test_oversize_manifest_header(packed: bytes, tmp_path: Path, size: int) -> None:
    assert_refused(header(MANIFEST, size) + packed[512:], tmp_path)


@pytest.mark.parametrize("field", [b"-0000000001\0", b"\x80" + bytes(11), b"0x000000010\0"])
def test_a_size_that_is_no_plain_octal(packed: bytes, tmp_path: Path, field: bytes) -> None:
    assert_refused(packed[:124] + field + packed[136:], tmp_path)


@pytest.mark.parametrize("keep", [0, 1, 511, 512, 600, 5000, -1024, -1])
def test_truncated(packed: bytes, tmp_path: Path, keep: int) -> None:
    assert_refused(packed[:keep], tmp_path)


@pytest.mark.parametrize("tail", [b"\0", bytes(512), b"#!/bin/sh\nevil"])
def test_trailing_bytes(packed: bytes, tmp_path: Path, tail: bytes) -> None:
    assert_refused(packed + tail, tmp_path)


def test_bytes_hidden_in_padding(packed: bytes, tmp_path: Path) -> None:
    at = offset_of(packed, "golden/intent.npy")
    data = bytearray(packed)
    data[at - 1] = 1
    assert_refused(bytes(data), tmp_path)


@pytest.mark.parametrize("name", NONEMPTY)
def test_changed_byte_in_a_packed_member(packed: bytes, tmp_path: Path, name: str) -> None:
    data = bytearray(packed)
    data[offset_of(packed, name) + 512] ^= 1
    assert_refused(bytes(data), tmp_path)


@pytest.mark.parametrize("name", ALL)
def test_changed_byte_in_a_directory(release: Path, name: str) -> None:
    data = bytearray((release / name).read_bytes() or b"\0")
    data[len(data) // 2] ^= 1
    (release / name).write_bytes(data)
    with pytest.raises(IntegrityError):
        verify_integrity(release)


@pytest.mark.parametrize("name", sorted(MEMBERS))
def test_missing_file_in_a_directory(release: Path, name: str) -> None:
    (release / name).unlink()
    with pytest.raises(IntegrityError) as caught:
        verify_integrity(release)
    assert name in caught.value.fact


@pytest.mark.parametrize("name", ["x", ".hidden", "engines/x.onnx", "lib/.x", "golden/deep/x"])
def test_extra_file_in_a_directory(release: Path, name: str) -> None:
    (release / name).parent.mkdir(exist_ok=True)
    (release / name).write_bytes(b"")
    with pytest.raises(IntegrityError) as caught:
        verify_integrity(release)
    assert caught.value.code == "member-unexpected"


@pytest.mark.parametrize("name", ["tokenizer.json", "lib/liblibra_edge.so", "engines", MANIFEST])
def test_symlinks_in_a_directory(release: Path, tmp_path: Path, name: str) -> None:
    (release / name).rename(tmp_path / "moved")
    (release / name).symlink_to(tmp_path / "moved")
    with pytest.raises(IntegrityError):
        verify_integrity(release)


def test_a_fifo_in_a_directory_is_not_waited_for(release: Path) -> None:
    (release / "tokenizer.json").unlink()
    os.mkfifo(release / "tokenizer.json")
    with pytest.raises(IntegrityError):
        verify_integrity(release)


def with_text(old: str, new: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        assert old in text
        return text.replace(old, new, 1)

    return change


JSON_ATTACKS: dict[str, Callable[[str], str]] = {
    "not canonical: indent": lambda text: json.dumps(json.loads(text), sort_keys=True),
    "not canonical: order": lambda text: json.dumps(json.loads(text), indent=1) + " \n",
    "not canonical: no newline": lambda text: text.removesuffix("\n"),
    "not canonical: escape": with_text("×", "\\u00d7"),
    "not canonical: number": with_text("80.0", "8e1"),
    "duplicate key": with_text('"name": "example"', '"name": "example",\n "name": "example"'),
    "shadowed key": with_text('"name": "example"', '"name": "evil",\n "name": "example"'),
    "unknown key": with_text('"name": "example"', '"naem": 1,\n "name": "example"'),
    "deep": lambda _: "[" * 200_000,
    "deep object": lambda _: '{"a":' * 100_000,
    "huge integer": with_text('"bins": 10', '"bins": 1' + "0" * 5000),
    "huge exponent": with_text("80.0", "1e999"),
    "not a number": with_text("80.0", "NaN"),
    "lone surrogate": with_text("example", "\\ud800"),
    "zero byte": with_text("example", "exa\0mple"),
    "too large": lambda text: text + " " * 2**20,
    "empty": lambda _: "",
    "null": lambda _: "null\n",
}


@pytest.mark.parametrize("attack", JSON_ATTACKS)
def test_manifest_text(release: Path, tmp_path: Path, attack: str) -> None:
    text = JSON_ATTACKS[attack]((release / MANIFEST).read_text("utf-8"))
    with pytest.raises(IntegrityError) as caught:
        parse_manifest(text.encode())
    assert caught.value.code == "manifest-invalid"
    (release / MANIFEST).write_bytes(text.encode())
    with pytest.raises(IntegrityError):
        verify_integrity(release)


def test_manifest_that_is_not_utf8(release: Path) -> None:
    with pytest.raises(IntegrityError):
        parse_manifest((release / MANIFEST).read_bytes().replace("×".encode(), b"\xff"))


@pytest.mark.parametrize("name", ["nothing", "empty-folder", "a-folder.libra"])
def test_no_release_at_all(tmp_path: Path, name: str) -> None:
    if "folder" in name:
        (tmp_path / name).mkdir()
    with pytest.raises(InputError) as caught:
        verify_integrity(tmp_path / name)
    assert caught.value.code == "not-a-release"
