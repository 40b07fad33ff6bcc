"""The one-file form `NAME.libra`: a tar (ustar) file with one possible byte form per release.

`manifest.json` comes first, then `model.sig` where the release is signed, then the other members
sorted by name, then two zero blocks. Every
header field but name and size is fixed, so a reader rebuilds each header from the manifest and
compares bytes: there is no path, link, mode, time, extension or repeated member to interpret.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from libra_edge.bundle.manifest import Manifest, parse_manifest
from libra_edge.bundle.members import MANIFEST, MAX_BYTES, MAX_SIGNATURE_BYTES, SIGNATURE
from libra_edge.errors import InputError, IntegrityError

BLOCK_BYTES = 512
SUFFIX = ".libra"
_END = bytes(2 * BLOCK_BYTES)
_PIECE_BYTES = 1024 * 1024


def header(name: str, size_bytes: int) -> bytes:
    """The ustar header block of one member."""
    fields = (
        name.encode("ascii").ljust(100, b"\0"),
        b"0000644\0" + b"0000000\0" * 2,  # mode, owner, group
        b"%011o\0" % size_bytes,
        b"%011o\0" % 0,  # time of modification
        b" " * 8,  # checksum, as it counts in its own sum
        b"0".ljust(101, b"\0"),  # a regular file, linked to nothing
        b"ustar\x0000".ljust(8 + 32 + 32 + 8 + 8 + 155 + 12, b"\0"),
    )
    block = b"".join(fields)
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def write_container(stream: BinaryIO, directory: Path, manifest: Manifest) -> None:
    """Write a verified release directory as one file.

    Raises:
        IntegrityError: a member is no longer what the manifest says.
    """
    stream.write(_entry(MANIFEST, manifest.to_bytes()))
    if (directory / SIGNATURE).is_file():
        stream.write(_entry(SIGNATURE, (directory / SIGNATURE).read_bytes()))
    for name, member in sorted(manifest.members.items()):
        stream.write(header(name, member.size_bytes))
        with (directory / name).open("rb") as source:
            copy_checked(source, stream, name, member.size_bytes, member.sha256)
        stream.write(bytes(_padding(member.size_bytes)))
    stream.write(_END)


def read_container(path: Path, into: Path | None = None) -> Manifest:
    """Check every byte of a one-file release; with `into`, an empty directory, unpack it there.

    Raises:
        InputError: there is no such file.
        IntegrityError: the file is not exactly what its manifest says.
        IncompatibleError: the manifest has another schema version.
    """
    if not path.is_file():
        raise InputError("not-a-release", f"{path} is not a file.", "Name a .libra file.")
    with path.open("rb") as stream:
        data = _read_manifest(stream)
        manifest = parse_manifest(data)
        signature = _read_signature(stream)
        _require_length(path, manifest, [data, *([signature] if signature is not None else [])])
        if into is not None:
            (into / MANIFEST).write_bytes(data)
        if into is not None and signature is not None:
            (into / SIGNATURE).write_bytes(signature)
        for name, member in sorted(manifest.members.items()):
            _expect(stream, header(name, member.size_bytes), f"the header of {name}")
            _read_member(stream, into, name, member.size_bytes, member.sha256)
            _expect(stream, bytes(_padding(member.size_bytes)), f"the padding after {name}")
        _expect(stream, _END, "the end")
    return manifest


def container_signature(path: Path) -> bytes | None:
    """The bytes of `model.sig` in a verified one-file release, or None.

    Raises:
        IntegrityError: the file is not a release.
    """
    with path.open("rb") as stream:
        _read_manifest(stream)
        return _read_signature(stream)


def with_signature(path: Path, signature: bytes, stream: BinaryIO) -> None:
    """Write a verified one-file release with this signature, in place of its own if it has one."""
    with path.open("rb") as source:
        manifest = _read_manifest(source)
        _read_signature(source)
        stream.write(_entry(MANIFEST, manifest) + _entry(SIGNATURE, signature))
        shutil.copyfileobj(source, stream, _PIECE_BYTES)


def copy_checked(
    source: BinaryIO, sink: BinaryIO | None, name: str, size_bytes: int, sha256: str
) -> None:
    """Copy exactly `size_bytes` (to nowhere if `sink` is None) and compare their hash.

    Raises:
        IntegrityError: the source ends early or the bytes are others.
    """
    digest = hashlib.sha256()
    left = size_bytes
    while left:
        piece = source.read(min(left, _PIECE_BYTES))
        if not piece:
            raise broken("member-truncated", f"{name} ends {left} bytes early")
        digest.update(piece)
        if sink is not None:
            sink.write(piece)
        left -= len(piece)
    if digest.hexdigest() != sha256:
        raise broken(
            "member-changed",
            f"{name} is not the bytes the manifest says "
            f"(sha256 {digest.hexdigest()[:12]}, should be {sha256[:12]})",
        )


def broken(code: str, fact: str) -> IntegrityError:
    """A release that is not the bytes its manifest says."""
    return IntegrityError(
        code, f"{fact}.", "Do not use this release: fetch it again or compile it again."
    )


def _entry(name: str, data: bytes) -> bytes:
    return header(name, len(data)) + data + bytes(_padding(len(data)))


def _read_manifest(stream: BinaryIO) -> bytes:
    return _read_entry(stream, stream.read(BLOCK_BYTES), MANIFEST, MAX_BYTES[MANIFEST])


def _read_signature(stream: BinaryIO) -> bytes | None:
    """`model.sig`, if it comes next; else nothing is read."""
    block = stream.read(BLOCK_BYTES)
    if not block.startswith(SIGNATURE.encode() + b"\0"):
        stream.seek(-len(block), os.SEEK_CUR)
        return None
    return _read_entry(stream, block, SIGNATURE, MAX_SIGNATURE_BYTES)


def _read_entry(stream: BinaryIO, block: bytes, name: str, max_bytes: int) -> bytes:
    """What no manifest tells the size of."""
    size_field = block[124:136]
    if not re.fullmatch(rb"[0-7]{11}\0", size_field):
        raise broken("container-invalid", f"The file has no header of {name} where it must be")
    size_bytes = int(size_field[:11], 8)
    if size_bytes > max_bytes:
        raise broken("container-invalid", f"{name} claims {size_bytes} bytes")
    if block != header(name, size_bytes):
        raise broken("container-invalid", f"The file does not hold {name} where it must be")
    data = stream.read(size_bytes)
    if len(data) != size_bytes:
        raise broken("container-truncated", f"The file ends inside {name}")
    _expect(stream, bytes(_padding(size_bytes)), f"the padding after {name}")
    return data


def _require_length(path: Path, manifest: Manifest, before: Sequence[bytes]) -> None:
    sizes = [*map(len, before), *(member.size_bytes for member in manifest.members.values())]
    expected = sum(BLOCK_BYTES + size + _padding(size) for size in sizes) + len(_END)
    found = path.stat().st_size
    if found < expected:
        raise broken("container-truncated", f"{path} has {found} bytes of {expected}")
    if found > expected:
        raise broken("container-invalid", f"{path} has {found - expected} bytes too many")


def _read_member(
    stream: BinaryIO, into: Path | None, name: str, size_bytes: int, sha256: str
) -> None:
    if into is None:
        copy_checked(stream, None, name, size_bytes, sha256)
        return
    (into / name).parent.mkdir(exist_ok=True)
    with (into / name).open("xb") as sink:
        copy_checked(stream, sink, name, size_bytes, sha256)


def _expect(stream: BinaryIO, expected: bytes, what: str) -> None:
    if stream.read(len(expected)) != expected:
        raise broken("container-invalid", f"{what[0].upper()}{what[1:]} is not as it must be")


def _padding(size_bytes: int) -> int:
    return -size_bytes % BLOCK_BYTES
