"""Where the caches lie, and that a place that keeps nothing is told before any work."""

from __future__ import annotations

from pathlib import Path

import pytest

from libra_edge.compiler.request import Request
from libra_edge.compiler.resolve import resolve
from libra_edge.errors import InputError
from libra_edge.user_cache import cache_folder, make_writable, require_writable

# None of them can be made or written to, whoever asks; a root user passes permission bits.
IMPOSSIBLE = ("/dev/null/cache", "/proc/cache", "/sys/cache")


def test_the_variable_decides_then_the_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/some/cache")
    monkeypatch.setenv("HOME", "/some/home")
    assert cache_folder("stages") == Path("/some/cache/libra-edge/stages")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert cache_folder("stages") == Path("/some/home/.cache/libra-edge/stages")


def test_a_user_without_a_home_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(InputError) as caught:
        cache_folder("stages")
    assert caught.value.code == "cache-not-writable"
    assert "XDG_CACHE_HOME" in caught.value.remedy


@pytest.mark.parametrize("place", IMPOSSIBLE)
def test_what_cannot_be_written_to_is_named(place: str) -> None:
    with pytest.raises(InputError) as caught:
        make_writable(Path(place), "--cache")
    assert caught.value.code == "cache-not-writable"
    assert place in caught.value.fact
    assert "XDG_CACHE_HOME" in caught.value.remedy
    assert "--cache" in caught.value.remedy


def test_a_folder_is_made(tmp_path: Path) -> None:
    assert make_writable(tmp_path / "a/b") == tmp_path / "a/b"
    assert make_writable(tmp_path / "a/b").is_dir()


def test_a_look_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    require_writable(tmp_path / "a/b/c")
    assert list(tmp_path.rglob("*")) == [tmp_path / "a"]
    (tmp_path / "a/b/c/kept").mkdir(parents=True)
    require_writable(tmp_path / "a/b/c")
    assert (tmp_path / "a/b/c/kept").is_dir()


@pytest.mark.parametrize("place", IMPOSSIBLE)
def test_compile_says_it_before_it_reads_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", place)
    with pytest.raises(InputError, match="cache-not-writable"):
        resolve(Request(tmp_path / "no-checkpoint", out=tmp_path / "out"))
    with pytest.raises(InputError, match="not-a-checkpoint"):
        resolve(Request(tmp_path / "no-checkpoint", out=tmp_path / "out", cache=tmp_path / "c"))
