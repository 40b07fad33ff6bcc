"""The header of a TensorRT-RTX engine, which says its size, its compiler and its GPUs.

NVIDIA does not document it; this is what engines of 1.7.1 begin with for every capability that they
are built for (docs/decisions/0041). Reading it takes no driver, so that an engine that was cut, or
is for another GPU or of another version, is found on any machine.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from libra_edge.bundle.engine_facts import Compiled
from libra_edge.bundle.engine_files.wrapper import (
    NotAWrapper,
    Wrapper,
    read_head,
    read_wrapper,
)
from libra_edge.bundle.manifest import ReleaseFacts
from libra_edge.bundle.members import APART
from libra_edge.catalog import list_targets

COMPILER = "tensorrt-rtx"
# The property of the file around an engine by which ONNX Runtime refuses it before it is loaded.
PROPERTY = "ep_compatibility_info"
_MAGIC = b"vtrt"
_CAPABILITIES = {1: "8.0", 2: "8.6", 3: "8.9", 4: "12.0", 5: "12.1"}
_LAYOUT = struct.Struct("<4s12xQ4B4sI")


@dataclass(frozen=True)
class Header:
    """version: of the compiler; capabilities: the GPUs that it was compiled for."""

    size_bytes: int
    version: str
    capabilities: tuple[str, ...]


@dataclass(frozen=True)
class Finding:
    """One thing that a header says; fault: what is wrong with it, empty if nothing is."""

    metric: str
    fault: str = ""


def property_name(provider: str) -> str:
    """Where ONNX Runtime looks for what a provider says of an engine."""
    return f"{PROPERTY}.{provider}"


def read_header(head: bytes) -> Header | None:
    """The header that an engine begins with; None if it is no engine of TensorRT-RTX."""
    if len(head) < _LAYOUT.size:
        return None
    magic, size_bytes, *version, again, mask = _LAYOUT.unpack_from(head)
    if magic != _MAGIC or again != _MAGIC:
        return None
    bits = [bit for bit in range(32) if mask >> bit & 1]
    known = tuple(_CAPABILITIES.get(bit, f"unknown (bit {bit})") for bit in bits)
    return Header(size_bytes, ".".join(map(str, version)), known)


@dataclass(frozen=True)
class Examined:
    """The header of one engine, None if it cannot be read, and what was found of it."""

    header: Header | None
    findings: tuple[Finding, ...]

    @property
    def faults(self) -> tuple[str, ...]:
        """What is wrong, in words."""
        return tuple(f"{one.metric}: {one.fault}" for one in self.findings if one.fault)


def engine_headers(manifest: ReleaseFacts, folder: Path) -> dict[str, Examined]:
    """What the compiled engines of a release say of themselves, held against its manifest.

    Args:
        manifest: of the release.
        folder: its directory, every byte as the manifest says.

    Returns:
        By name, only those that TensorRT-RTX compiled.
    """
    found = {}
    for name, engine in manifest.engines.by_name.items():
        made = engine.compiled
        if made is None or made.compiler != COMPILER:
            continue
        try:
            wrapper = read_wrapper(folder / engine.member)
            head, size_bytes = _engine(wrapper, engine.member, folder)
        except NotAWrapper as reason:
            found[name] = Examined(None, (Finding("file", f"{engine.member}: {reason}"),))
            continue
        header = read_header(head)
        findings = list(_findings(manifest, made, wrapper, header, size_bytes))
        told = wrapper.metadata.get(property_name(engine.provider))
        if told is not None:
            fault = "" if told == head.hex() else "it is not what the engine begins with"
            findings.append(Finding("compatibility info", fault))
        found[name] = Examined(header, tuple(findings))
    return found


def _engine(wrapper: Wrapper, member: str, folder: Path) -> tuple[bytes, int]:
    """The head and size of the engine, in the file around it or beside."""
    if wrapper.apart is None:
        return wrapper.head, wrapper.engine_bytes
    beside = {Path(name).name: name for name, around in APART.items() if around == member}
    if wrapper.apart not in beside:
        raise NotAWrapper(f"its engine is said to lie in {wrapper.apart!r}")
    if not (folder / beside[wrapper.apart]).is_file():
        raise NotAWrapper(f"its engine, {wrapper.apart}, is not in the release")
    return read_head(folder / beside[wrapper.apart])


def _findings(
    manifest: ReleaseFacts, made: Compiled, wrapper: Wrapper, header: Header | None, size_bytes: int
) -> Iterator[Finding]:
    if header is None:
        yield Finding("header", "the file does not begin as TensorRT-RTX engines do")
        return
    yield _held(
        "size",
        {
            "the engine's header says": header.size_bytes,
            "the file holds": size_bytes,
            "the manifest says": made.engine_bytes,
        },
        "bytes",
    )
    yield _held(
        "version",
        {
            "the engine's header says": header.version,
            "the file around it says": wrapper.sdk_version,
            "the manifest says": made.version,
        },
    )
    target = list_targets().get(manifest.target)
    wanted = {"the engine's header says": ", ".join(header.capabilities) or "none"}
    wanted["the manifest says"] = made.compute_capability
    if target is not None:
        wanted[f"target {target.name} has"] = str(target.compute_capability)
    yield _held("compute capability", wanted)
    digits = made.compute_capability.replace(".", "")
    fault = "" if wrapper.hardware == digits else f"the file around it says {wrapper.hardware!r}"
    yield Finding("hardware", fault)


def _held(metric: str, told: dict[str, int] | dict[str, str], unit: str = "") -> Finding:
    """Whether all say the same; the words are of each."""
    if len(set(told.values())) == 1:
        return Finding(metric)
    words = (f"{who} {value} {unit}".rstrip() for who, value in told.items())
    return Finding(metric, ", ".join(words))
