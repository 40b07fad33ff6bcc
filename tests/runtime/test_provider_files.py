"""Engines for a GPU and their provider's files: what of a release is not what its manifest says."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from libra_edge.binding import abi
from tests.runtime import fake_gpu
from tests.runtime import tiny_release as tiny
from tests.runtime.test_providers import gpu_release, opened

__all__ = ["gpu_release"]
Change = Callable[[Path], None]


# ---- the engine's own header, before anybody deserialises it ----------------------------------


def with_engine(release: Path, content: bytes) -> None:
    tiny.replace(
        release / "engines/refiner.engine.onnx",
        fake_gpu.engine_file(tiny.refiner_onnx(), content),
    )
    tiny.seal(release, fake_gpu.manifest())


def raw_file(release: Path, content: bytes) -> None:
    tiny.replace(release / "engines/refiner.engine.onnx", content)
    tiny.seal(release, fake_gpu.manifest())


GOOD = fake_gpu.engine(tiny.refiner_onnx())
BAD_ENGINES: list[tuple[str, Change, str]] = [
    ("cut", lambda r: with_engine(r, GOOD[:-1]), f"has {len(GOOD)} bytes; it has {len(GOOD) - 1}"),
    ("longer", lambda r: with_engine(r, GOOD + b"\0"), "it has"),
    ("short", lambda r: with_engine(r, GOOD[:63]), "no engine of TensorRT for RTX"),
    ("empty", lambda r: with_engine(r, b""), "no engine of TensorRT for RTX"),
    ("magic", lambda r: with_engine(r, b"ptrt" + GOOD[4:]), "no engine of TensorRT for RTX"),
    (
        "other GPU",
        lambda r: with_engine(r, fake_gpu.engine(tiny.refiner_onnx(), capability="8.6")),
        "capability 8.6; the manifest says 8.9",
    ),
    (
        "other version",
        lambda r: with_engine(r, fake_gpu.engine(tiny.refiner_onnx(), version="1.6.0")),
        "RTX 1.6.0; the manifest says 1.7.1",
    ),
    ("plain graph", lambda r: raw_file(r, tiny.refiner_onnx()), "holds 0 compiled engines"),
    ("no file", lambda r: raw_file(r, b""), "holds 0 compiled engines"),
    ("garbage", lambda r: raw_file(r, b"\xff" * 99), "holds 0 compiled engines"),
]


@pytest.mark.parametrize(("change", "words"), [pytest.param(*b[1:], id=b[0]) for b in BAD_ENGINES])
def test_an_engine_that_is_not_the_manifests(
    gpu_release: Path, library: Path, tmp_path: Path, change: Change, words: str
) -> None:
    release = tiny.link_release(gpu_release, tmp_path / "copy")
    change(release)
    status, text = opened(release, library)
    assert (status, words in text) == (abi.ENGINE_MISMATCH, True), text


# ---- the provider's files ---------------------------------------------------------------------

PLUGIN = f"provider/{fake_gpu.PROVIDER.files[-1].name}"
FIRST = f"provider/{fake_gpu.PROVIDER.files[0].name}"


def without_files(release: Path) -> None:
    shutil.rmtree(release / "provider")
    tiny.seal(release, fake_gpu.manifest())


def without_one(release: Path) -> None:
    (release / FIRST).unlink()
    tiny.seal(release, fake_gpu.manifest())


def changed(release: Path) -> None:
    content = bytearray((release / PLUGIN).read_bytes())
    content[-1] ^= 1
    tiny.replace(release / PLUGIN, bytes(content))


def cut(release: Path) -> None:
    tiny.replace(release / PLUGIN, (release / PLUGIN).read_bytes()[:2000])
    tiny.seal(release, fake_gpu.manifest())


def no_library(release: Path) -> None:
    tiny.replace(release / FIRST, b"no library at all, but of some length" * 20)
    tiny.seal(release, fake_gpu.manifest())


def no_plugin(release: Path) -> None:
    tiny.replace(release / PLUGIN, (release / FIRST).read_bytes())
    tiny.seal(release, fake_gpu.manifest())


def one_more(release: Path) -> None:
    (release / "provider/libmore.so").write_bytes(b"more")


def linked(release: Path) -> None:
    (release / PLUGIN).rename(release.parent / "moved.so")
    (release / PLUGIN).symlink_to(release.parent / "moved.so")


BAD_FILES: list[tuple[Change, int, str]] = [
    (without_files, abi.NO_PROVIDER, "whose files the release does not hold"),
    (without_one, abi.MALFORMED, f"without {FIRST}"),
    (changed, abi.INTEGRITY, PLUGIN),
    (cut, abi.NO_PROVIDER, "cut short"),
    (no_library, abi.NO_PROVIDER, "not a shared library"),
    (no_plugin, abi.NO_PROVIDER, "TensorRT for RTX does not start"),
    (one_more, abi.INTEGRITY, "provider/libmore.so"),
    (linked, abi.INTEGRITY, "symbolic link"),
]


@pytest.mark.parametrize(
    ("change", "status", "words"), [pytest.param(*b, id=b[0].__name__) for b in BAD_FILES]
)
def test_files_that_are_not_right(
    gpu_release: Path, library: Path, tmp_path: Path, change: Change, status: int, words: str
) -> None:
    release = tiny.link_release(gpu_release, tmp_path / "copy")
    change(release)
    found, text = opened(release, library)
    assert (found, words in text) == (status, True), text


def test_a_plain_release_holds_no_provider(release: Path, library: Path, tmp_path: Path) -> None:
    copy = tiny.link_release(release, tmp_path / "copy")
    shutil.copytree(fake_gpu.libraries() / "provider", copy / "provider")
    tiny.seal(copy, tiny.manifest())
    status, text = opened(copy, library)
    assert (status, "that no engine names" in text) == (abi.MALFORMED, True), text


def test_no_link_is_left_behind(gpu_release: Path, library: Path, tmp_path: Path) -> None:
    for settings in ({}, {"FAKE_GPU_STARTS_NOT": "1"}):
        opened(gpu_release, library, settings=settings | {"TMPDIR": str(tmp_path)})
        assert list(tmp_path.iterdir()) == []
