"""The ONNX file around a compiled engine, read without ONNX: one node, and the engine in it.

A field laptop has no ONNX package, and an engine may have gigabytes: the file is mapped, and only
the few fields that lead to the engine are looked at. It may come from anywhere: every length is
held against what there is, and the number of fields is bounded.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

HEAD_BYTES = 64
OP = b"EPContext"
# Numbers of fields in onnx.proto: of the model, the graph, the node, its attributes, a property.
_GRAPH, _PROPERTY = 7, 14
_NODE = 1
_OP_TYPE, _ATTRIBUTE = 4, 5
_NAME, _INTEGER, _BYTES = 1, 3, 4
_KEY, _VALUE = 1, 2
# A file of ours has about twenty in any one message.
MOST_FIELDS = 1024
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_MOST_VARINT_BYTES = 10


class NotAWrapper(ValueError):
    """The file is no ONNX file around one engine; the message says why."""


@dataclass(frozen=True)
class Wrapper:
    """What lies in the file around an engine.

    head: the first bytes of the engine; engine_bytes: its size; apart: the name of the file that
    holds it, None where it is this one: then there is no head and no size; metadata: properties.
    """

    head: bytes
    engine_bytes: int
    apart: str | None
    hardware: str
    sdk_version: str
    metadata: Mapping[str, str]


def read_wrapper(path: Path) -> Wrapper:
    """Read the file around a compiled engine.

    Raises:
        NotAWrapper: it is no such file.
    """
    if path.stat().st_size == 0:
        raise NotAWrapper("it is empty")
    with (
        path.open("rb") as stream,
        mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        memoryview(mapped) as view,
    ):
        return _read(view)


def read_head(path: Path) -> tuple[bytes, int]:
    """The first bytes of an engine that lies in a file of its own, and its size."""
    with path.open("rb") as stream:
        return stream.read(HEAD_BYTES), path.stat().st_size


def _read(view: memoryview) -> Wrapper:
    metadata: dict[str, str] = {}
    nodes: list[tuple[int, int]] = []
    for number, begin, end in _fields(view, 0, len(view)):
        if number == _PROPERTY:
            pair = {n: _text(view[b:e]) for n, b, e in _fields(view, begin, end)}
            metadata[pair.get(_KEY, "")] = pair.get(_VALUE, "")
        elif number == _GRAPH:
            nodes += [(b, e) for n, b, e in _fields(view, begin, end) if n == _NODE]
    found = [node for node in nodes if _op(view, *node) == OP]
    if len(found) != 1:
        raise NotAWrapper(f"it has {len(found)} {OP.decode()} nodes, not one")
    return _node(view, *found[0], metadata)


def _op(view: memoryview, begin: int, end: int) -> bytes:
    return next((bytes(view[b:e]) for n, b, e in _fields(view, begin, end) if n == _OP_TYPE), b"")


def _node(view: memoryview, begin: int, end: int, metadata: Mapping[str, str]) -> Wrapper:
    places: dict[str, tuple[int, int]] = {}
    integers: dict[str, int] = {}
    for number, first, last in _fields(view, begin, end):
        if number != _ATTRIBUTE:
            continue
        own = {n: (b, e) for n, b, e in _fields(view, first, last)}
        name = _text(view[slice(*own.get(_NAME, (0, 0)))])
        if _BYTES in own:
            places[name] = own[_BYTES]
        elif _INTEGER in own:
            integers[name] = _varint(view, *own[_INTEGER])[0]
    for name in ("ep_cache_context", "ep_sdk_version", "hardware_architecture"):
        if name not in places:
            raise NotAWrapper(f"its node has no {name}")
    start, stop = places["ep_cache_context"]
    embedded = integers.get("embed_mode", 1) == 1
    return Wrapper(
        bytes(view[start : min(stop, start + HEAD_BYTES)]) if embedded else b"",
        stop - start if embedded else 0,
        None if embedded else _text(view[start:stop]),
        _text(view[slice(*places["hardware_architecture"])]),
        _text(view[slice(*places["ep_sdk_version"])]),
        metadata,
    )


def _text(content: memoryview) -> str:
    return bytes(content[:4096]).decode("utf-8", "replace")


def _fields(view: memoryview, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, begin and end of every field of a message; of a varint, of its bytes."""
    for _ in range(MOST_FIELDS):
        if begin == end:
            return
        tag, begin = _varint(view, begin, end)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            stop = _varint(view, begin, end)[1]
        elif kind == _LENGTH:
            length, begin = _varint(view, begin, end)
            stop = begin + length
        elif kind in (_FIXED64, _FIXED32):
            stop = begin + (8 if kind == _FIXED64 else 4)
        else:
            raise NotAWrapper("it is no ONNX file")
        if stop > end:
            raise NotAWrapper("it ends in the middle of a field")
        yield number, begin, stop
        begin = stop
    raise NotAWrapper(f"it has more than {MOST_FIELDS} fields")


def _varint(view: memoryview, begin: int, end: int) -> tuple[int, int]:
    """A number, and where the next begins."""
    value = 0
    for i in range(_MOST_VARINT_BYTES):
        if begin + i >= end:
            raise NotAWrapper("it ends in the middle of a number")
        byte = view[begin + i]
        value |= (byte & 0x7F) << (7 * i)
        if not byte & 0x80:
            return value, begin + i + 1
    raise NotAWrapper("it has a number of more than 64 bits")
