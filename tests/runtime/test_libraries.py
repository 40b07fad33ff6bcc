"""Where the native runtime comes from: the wheel, the cache, the compiler."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from libra_edge.errors import InputError, IntegrityError, LibraError
from libra_edge.runtime import libraries
from libra_edge.runtime.libraries import native_library, write_shipped

X86 = ("x86_64-linux-gnu", "2.35")
ARM = ("aarch64-linux-gnu", "2.35")


class Compiler:
    """Stands in for the build, which takes a minute, and counts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.built: list[tuple[str, str]] = []
        self.sources, self.version = "one", "0.17.0"
        monkeypatch.setattr(libraries, "build_library", self)
        monkeypatch.setattr(libraries, "build_agent", self)
        monkeypatch.setattr(libraries, "source_hash", lambda: self.sources)
        monkeypatch.setattr(libraries, "_compiler", lambda: self.version)

    def __call__(self, folder: Path, arch: str, glibc: str, *, on_progress: Any) -> Path:
        self.built.append((arch, glibc))
        on_progress(0, 2, "")
        path = folder / "liblibra_edge.so"
        path.write_text(f"{arch} {glibc} {self.sources} {self.version}")
        return path


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Compiler:
    return Compiler(monkeypatch)


def test_it_is_built_once_per_sources_compiler_and_target(
    compiler: Compiler, tmp_path: Path
) -> None:
    def get(target: tuple[str, str] = X86) -> bytes:
        return native_library(*target, cache=tmp_path, shipped=tmp_path / "none")

    first = get()
    assert get() == first
    assert compiler.built == [X86]
    assert get(ARM) != first
    compiler.sources = "two"
    assert get() != first
    compiler.version = "0.18.0"
    get()
    assert len(compiler.built) == 4
    compiler.sources, compiler.version = "one", "0.17.0"
    assert get() == first
    assert len(compiler.built) == 4


def test_a_damaged_library_is_built_again(compiler: Compiler, tmp_path: Path) -> None:
    first = native_library(*X86, cache=tmp_path, shipped=tmp_path / "none")
    (kept,) = [path for path in tmp_path.iterdir() if path.suffix != ".lock"]
    for damage in (b"", first[:-1], first + b"x"):
        kept.write_bytes(damage)
        assert native_library(*X86, cache=tmp_path, shipped=tmp_path / "none") == first
    assert len(compiler.built) == 4


def test_two_at_a_time_build_once(compiler: Compiler, tmp_path: Path) -> None:
    found: list[bytes] = []

    def get() -> None:
        found.append(native_library(*X86, cache=tmp_path, shipped=tmp_path / "none"))

    threads = [threading.Thread(target=get) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(found) == 4
    assert compiler.built == [X86]


def test_a_failed_build_leaves_nothing(
    compiler: Compiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Path:
        raise LibraError("native-build-failed", "It does not compile.", "Reinstall.")

    monkeypatch.setattr(libraries, "build_library", fail)
    with pytest.raises(LibraError, match="native-build-failed"):
        native_library(*X86, cache=tmp_path, shipped=tmp_path / "none")
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


def test_a_wheel_s_library_is_taken_without_compiler_or_cache(
    compiler: Compiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_shipped(tmp_path / "shipped", {X86, ARM}, lambda done, total, what: None)
    assert sorted(compiler.built) == [ARM, ARM, X86, X86], "a library and an agent of each"
    unwritable = Path("/dev/null/nowhere")
    for target in (X86, ARM):
        content = native_library(*target, cache=unwritable, shipped=tmp_path / "shipped")
        assert content == " ".join([*target, "one", "0.17.0"]).encode()
    assert len(compiler.built) == 4
    # Of other sources, another compiler, or for another target: built.
    for change in ({"sources": "two"}, {"version": "0.18.0"}):
        vars(compiler).update(change)
        content = native_library(*X86, cache=tmp_path / "c", shipped=tmp_path / "shipped")
        assert compiler.sources in content.decode()
    assert len(compiler.built) == 6
    with pytest.raises(InputError, match="cache-not-writable"):
        native_library(*X86, cache=unwritable, shipped=tmp_path / "shipped")


@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_a_wheel_s_library_that_is_not_its_own_is_refused(
    compiler: Compiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_shipped(tmp_path / "shipped", {X86}, lambda done, total, what: None)
    (path,) = (tmp_path / "shipped").glob("*.so")
    index = json.loads((tmp_path / "shipped" / libraries.INDEX).read_text())
    assert index["sha256"][path.name] == hashlib.sha256(path.read_bytes()).hexdigest()
    path.unlink() if damage == "missing" else path.write_bytes(b"another")
    with pytest.raises(IntegrityError, match="shipped-library-changed"):
        native_library(*X86, cache=tmp_path, shipped=tmp_path / "shipped")
