"""The native runtime for a target: shipped in the wheel, kept from before, or built now.

A wheel ships the libraries of every target. A source checkout builds them on first use, once per
machine: what is kept is keyed by the sources and the compiler, and its bytes are checked.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from libra_edge.atomic import new_file
from libra_edge.errors import InputError, IntegrityError
from libra_edge.runtime.build import (
    SOURCE_ROOT,
    OnProgress,
    build_agent,
    build_library,
    source_hash,
)
from libra_edge.user_cache import cache_folder, make_writable

SHIPPED = SOURCE_ROOT / "shipped"
INDEX = "index.json"


@dataclass(frozen=True)
class _Product:
    """Something that the compiler makes of the sources."""

    build: Callable[..., Path]
    shipped_as: str


_LIBRARY = _Product(lambda *a, **k: build_library(*a, **k), "liblibra_edge-{}-{}.so")
_AGENT = _Product(lambda *a, **k: build_agent(*a, **k), "libra-agent-{}-{}")


def native_library(
    arch: str,
    glibc: str,
    *,
    cache: Path | None = None,
    shipped: Path = SHIPPED,
    on_progress: OnProgress = lambda done, total, what: None,
) -> bytes:
    """`liblibra_edge.so` for a target; the same bytes wherever it comes from.

    Args:
        arch: for example `aarch64-linux-gnu`.
        glibc: oldest glibc the library has to load on.
        cache: where libraries are kept; None takes the user's cache folder.
        shipped: the wheel's libraries; a source checkout has none.
        on_progress: as in `build_library`; called only where it has to be built.

    Raises:
        IntegrityError: the wheel's library is not the one that it names.
        LibraError: it cannot be built, or not be kept.
    """
    return _native(_LIBRARY, arch, glibc, cache, shipped, on_progress)


def native_agent(
    arch: str,
    glibc: str,
    *,
    cache: Path | None = None,
    shipped: Path = SHIPPED,
    on_progress: OnProgress = lambda done, total, what: None,
) -> bytes:
    """`libra-agent` for a target; otherwise as `native_library`."""
    return _native(_AGENT, arch, glibc, cache, shipped, on_progress)


def _native(
    product: _Product,
    arch: str,
    glibc: str,
    cache: Path | None,
    shipped: Path,
    on_progress: OnProgress,
) -> bytes:
    if (content := _shipped(shipped, product.shipped_as.format(arch, glibc))) is not None:
        return content
    folder = make_writable(cache or cache_folder("native"))
    words = f"{source_hash()} {_compiler()} {product.shipped_as.format(arch, glibc)}"
    key = hashlib.sha256(words.encode()).hexdigest()
    # A second compiler on this machine waits for the first instead of doing its work again.
    with _locked(folder / f"{key}.lock"):
        if (content := _kept(folder, key)) is not None:
            return content
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            built = product.build(Path(scratch), arch, glibc, on_progress=on_progress)
            content = built.read_bytes()
        with new_file(folder / f"{key}-{hashlib.sha256(content).hexdigest()}") as stream:
            stream.write(content)
        return content


def is_shipped() -> bool:
    """Whether this installation came with libraries, so that a first compile needs none built."""
    return (SHIPPED / INDEX).is_file()


def library_cache(other: Path) -> Path:
    """The user's own cache of libraries, which serves every command, or one below `other`.

    Raises:
        InputError: neither can be written to.
    """
    try:
        return make_writable(cache_folder("native"))
    except InputError:
        return make_writable(other / "native", "--cache")


def write_shipped(folder: Path, targets: set[tuple[str, str]], on_progress: OnProgress) -> None:
    """Fill a wheel's folder of libraries.

    Args:
        folder: made if missing.
        targets: architecture and glibc of each.
        on_progress: as in `build_library`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    digests = {}
    for arch, glibc in sorted(targets):
        for product in (_LIBRARY, _AGENT):
            nowhere = folder / "none"
            content = _native(product, arch, glibc, None, nowhere, on_progress)
            path = folder / product.shipped_as.format(arch, glibc)
            path.write_bytes(content)
            path.chmod(0o755)
            digests[path.name] = hashlib.sha256(content).hexdigest()
    index = {"sources": source_hash(), "compiler": _compiler(), "sha256": digests}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _compiler() -> str:
    return version("ziglang")


def _entry(shipped: Path, name: str) -> str | None:
    """The digest of a shipped file of these very sources and this compiler."""
    try:
        index: Mapping[str, Any] = json.loads((shipped / INDEX).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    if (index["sources"], index["compiler"]) != (source_hash(), _compiler()):
        return None
    digest = index["sha256"].get(name)
    return None if digest is None else str(digest)


def _shipped(shipped: Path, name: str) -> bytes | None:
    digest = _entry(shipped, name)
    if digest is None:
        return None
    path = shipped / name
    content = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(content).hexdigest() != digest:
        raise IntegrityError(
            "shipped-library-changed",
            f"{path} is not the library that this installation came with.",
            "Reinstall libra-edge.",
        )
    return content


def _kept(folder: Path, key: str) -> bytes | None:
    """A library built before; a damaged one is dropped."""
    for path in folder.glob(f"{key}-*"):
        content = path.read_bytes()
        if path.name == f"{key}-{hashlib.sha256(content).hexdigest()}":
            return content
        path.unlink()
    return None


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
