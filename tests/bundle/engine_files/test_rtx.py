"""Headers of TensorRT-RTX engines: read without a driver, and refused where they do not fit."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from libra_edge.bundle.engine_facts import Compiled
from libra_edge.bundle.engine_files.rtx import (
    Examined,
    engine_headers,
    property_name,
    read_header,
)
from libra_edge.bundle.engine_files.wrapper import MOST_FIELDS, NotAWrapper, read_wrapper
from libra_edge.bundle.manifest import ReleaseFacts
from libra_edge.engines._epcontext import wrap
from libra_edge.engines.session import TensorSpec
from tests.bundle.examples import facts_body

PROVIDER = "NvTensorRTRTXExecutionProvider"
SPECS = (TensorSpec("x", "float32", (1,)),)
SIZE = 4096


def engine(size: int = SIZE, version: bytes = b"\x01\x07\x01\x74", mask: int = 8) -> bytes:
    """Bytes that begin as engines of TensorRT-RTX 1.7.1.116 were seen to begin."""
    head = struct.pack("<4sIIIQ4s4sI", b"vtrt", 0, 2, 0, size, version, b"vtrt", mask)
    return head + bytes(SIZE - len(head))


def test_a_header_as_it_was_seen() -> None:
    seen = bytes.fromhex(
        "76747274000000000200000000000000c419000000000000010701747674727408000000"
        "00000000000000000000000000000000000000000000000002000000"
    )
    header = read_header(seen)
    assert header is not None
    assert (header.size_bytes, header.version) == (6596, "1.7.1.116")
    assert header.capabilities == ("8.9",)
    assert read_header(seen[:20]) is None
    assert read_header(b"ftrt" + seen[4:]) is None
    both = read_header(engine(mask=4 | 16))
    assert both is not None
    assert both.capabilities == ("8.6", "12.0")


def plain() -> ReleaseFacts:
    return ReleaseFacts.model_validate_json(json.dumps(facts_body()))


def file_around(content: bytes | str, **changes: object) -> bytes:
    given = {"hardware": "89", "sdk_version": "1.7.1.116", "provider": PROVIDER, "name": "refiner"}
    metadata = {}
    if isinstance(content, bytes):
        metadata = {property_name(PROVIDER): content[:64].hex()}
    return wrap(content, SPECS, SPECS, metadata=metadata, **{**given, **changes})


def release(folder: Path, content: bytes, **made: object) -> ReleaseFacts:
    """A release's manifest and the one file of it that is looked at."""
    (folder / "engines").mkdir(parents=True)
    (folder / "engines/refiner.engine.onnx").write_bytes(content)
    facts = {
        "compiler": "tensorrt-rtx",
        "version": "1.7.1.116",
        "compute_capability": "8.9",
        "engine_bytes": SIZE,
        "weight_bytes": 1,
        "workspace_bytes": 1,
    }
    manifest = plain()
    refiner = manifest.engines.refiner.model_copy(
        update={
            "member": "engines/refiner.engine.onnx",
            "kind": "tensorrt_rtx",
            "provider": PROVIDER,
            "compiled": Compiled.model_validate(facts | made),
        }
    )
    engines = manifest.engines.model_copy(update={"refiner": refiner})
    return manifest.model_copy(update={"engines": engines, "target": "rtx4090"})


def examined(folder: Path, content: bytes, **made: object) -> Examined:
    return engine_headers(release(folder, content, **made), folder)["refiner"]


def test_a_good_engine_has_no_fault(tmp_path: Path) -> None:
    found = examined(tmp_path, file_around(engine()))
    assert found.faults == ()
    assert [one.metric for one in found.findings] == [
        "size",
        "version",
        "compute capability",
        "hardware",
        "compatibility info",
    ]
    assert found.header is not None
    assert found.header.capabilities == ("8.9",)


@pytest.mark.parametrize(
    ("content", "made", "words"),
    [
        (file_around(engine()[: SIZE // 2]), {}, "header says 4096 bytes, the file holds 2048"),
        (file_around(engine()), {"engine_bytes": 5}, "the manifest says 5 bytes"),
        (file_around(engine(mask=4)), {}, "header says 8.6, the manifest says 8.9"),
        (
            file_around(engine(mask=16)),
            {"compute_capability": "12.0"},
            "manifest says 12.0, target rtx4090 has 8.9",
        ),
        (file_around(engine(mask=1 << 9)), {}, "header says unknown (bit 9)"),
        (file_around(engine(mask=8 | 16)), {}, "header says 8.9, 12.0"),
        (file_around(engine(mask=0)), {}, "header says none"),
        (file_around(engine(version=b"\1\6\0\x10")), {}, "header says 1.6.0.16"),
        (file_around(engine(), sdk_version="1.6.0.16"), {}, "the file around it says 1.6.0.16"),
        (file_around(engine(), hardware="86"), {}, "hardware: the file around it says '86'"),
        (file_around(b"\0" * SIZE), {}, "does not begin as TensorRT-RTX engines do"),
        (file_around(b""), {}, "does not begin as TensorRT-RTX engines do"),
        (file_around(engine()).replace(b"0107", b"0106"), {}, "not what the engine begins with"),
        (file_around("refiner.engine")[:-30], {}, "in the middle of a field"),
        (file_around("../secret"), {}, "its engine is said to lie in '../secret'"),
        (file_around("planner.engine"), {}, "its engine is said to lie in 'planner.engine'"),
        (file_around("refiner.engine"), {}, "refiner.engine, is not in the release"),
        (b"", {}, "it is empty"),
    ],
)
def test_what_does_not_fit_is_named(
    tmp_path: Path, content: bytes, made: dict[str, object], words: str
) -> None:
    found = examined(tmp_path, content, **made)
    assert any(words in fault for fault in found.faults), found.faults


def test_an_engine_beside_its_file_is_looked_at_too(tmp_path: Path) -> None:
    manifest = release(tmp_path, file_around("refiner.engine"))
    (tmp_path / "engines/refiner.engine").write_bytes(engine())
    assert engine_headers(manifest, tmp_path)["refiner"].faults == ()
    (tmp_path / "engines/refiner.engine").write_bytes(engine()[:-1])
    (fault,) = engine_headers(manifest, tmp_path)["refiner"].faults
    assert "the file holds 4095 bytes" in fault


def test_engines_of_other_compilers_are_left(tmp_path: Path) -> None:
    manifest = release(tmp_path, file_around(b"ftrt"), compiler="tensorrt")
    assert engine_headers(manifest, tmp_path) == {}
    assert engine_headers(plain(), tmp_path) == {}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x80" * 20, "more than 64 bits"),
        (b"\x80", "in the middle of a number"),
        (b"\x3a\xff\xff\xff\xff\x0f", "in the middle of a field"),
        (b"\x3b\x00", "no ONNX file"),
        (b"\x08\x01" * (MOST_FIELDS + 1), f"more than {MOST_FIELDS} fields"),
        (b"\x08\x01", "it has 0 EPContext nodes"),
    ],
)
def test_bytes_of_anything(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(NotAWrapper, match=words):
        read_wrapper(tmp_path / "f")


def test_a_file_cut_anywhere_is_no_crash(tmp_path: Path) -> None:
    whole = file_around(engine())
    for length in [*range(1, 80), *range(SIZE, len(whole), 7)]:
        (tmp_path / "f").write_bytes(whole[:length])
        with pytest.raises(NotAWrapper):
            read_wrapper(tmp_path / "f")
