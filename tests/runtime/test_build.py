from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import clang_format
import pytest
from elftools.elf.elffile import ELFFile

from libra_edge.errors import IncompatibleError, InputError, LibraError
from libra_edge.runtime import build
from tests.runtime.native_build import C_SOURCES
from tests.runtime.test_header import SNAPSHOT


@pytest.fixture
def other_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Another name, home, language, day and umask."""
    for name, value in {
        **{"USER": "somebody", "LOGNAME": "somebody", "HOME": str(tmp_path / "home")},
        **{"TZ": "Pacific/Kiritimati", "LC_ALL": "tr_TR.UTF-8", "SOURCE_DATE_EPOCH": "1"},
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(build.default_cache_dir().parents[1]))
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.mark.usefixtures("other_user")
def test_same_bytes_from_another_folder_and_other_rooms(library: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "a place with another name"
    shutil.copytree(build.SOURCE_ROOT, elsewhere, ignore=shutil.ignore_patterns("__pycache__"))
    names = [path.name for path in build.native_sources()]
    assert names == sorted(set(names))
    for source in (elsewhere / "src/release").glob("*.cc"):
        source.rename(elsewhere / "src/engine" / source.name)
    again = build.build_library(tmp_path / "out", source_root=elsewhere)
    content = again.read_bytes()
    assert content == library.read_bytes()
    for path in (build.SOURCE_ROOT, tmp_path, Path.home() / ".cache", build.default_cache_dir()):
        assert str(path).encode() not in content
    assert [path.name for path in again.parent.iterdir()] == [build.LIBRARY_NAME]


def test_exports_only_the_interface_and_needs_only_libc(library: Path) -> None:
    with library.open("rb") as file:
        elf = ELFFile(file)
        symbols = elf.get_section_by_name(".dynsym").iter_symbols()
        exported = sorted(
            symbol.name
            for symbol in symbols
            if symbol.entry.st_shndx != "SHN_UNDEF" and symbol.entry.st_info.bind != "STB_LOCAL"
        )
        needed = {tag.needed for tag in elf.get_section_by_name(".dynamic").iter_tags("DT_NEEDED")}
        versions = {
            aux.name
            for _, auxiliaries in elf.get_section_by_name(".gnu.version_r").iter_versions()
            for aux in auxiliaries
        }
        assert elf.get_section_by_name(".symtab") is None
        assert elf.get_section_by_name(".debug_info") is None
    assert exported == json.loads(SNAPSHOT.read_text(encoding="utf-8"))["functions"]
    allowed = {"libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "ld-linux-x86-64.so.2"}
    assert needed <= allowed
    glibc = [tuple(map(int, v[6:].split("."))) for v in versions if v.startswith("GLIBC_2")]
    assert glibc
    assert max(glibc) <= (2, 35)


def test_warnings_are_errors(tmp_path: Path) -> None:
    broken = tmp_path / "sources"
    shutil.copytree(build.SOURCE_ROOT, broken)
    with (broken / "src/error.cc").open("a") as file:
        file.write("static int unused_variable;\n")
    with pytest.raises(LibraError) as caught:
        build.build_library(tmp_path / "out", source_root=broken)
    assert caught.value.code == "native-build-failed"
    assert "unused_variable" in caught.value.fact
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("triple", "glibc"),
    [("windows", "2.35"), ("x86_64-linux-gnu -o /x", "2.35"), ("x86_64-linux-gnu", "latest")],
)
def test_unknown_targets_are_refused(triple: str, glibc: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        build.build_library(tmp_path, triple, glibc)
    assert caught.value.code == "native-target-unknown"


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="ziglang-missing"):
        build.build_library(tmp_path)
    with pytest.raises(InputError, match="onnxruntime-missing"):
        build.onnxruntime_library()


def test_finds_onnxruntime_without_importing_it(tmp_path: Path) -> None:
    library = build.onnxruntime_library()
    assert library.is_file()
    assert build.onnxruntime_version(library).count(".") == 2
    with pytest.raises(IncompatibleError, match="onnxruntime-library-missing"):
        build.onnxruntime_library(tmp_path)


def test_source_hash_sees_every_source(tmp_path: Path) -> None:
    copy = tmp_path / "sources"
    shutil.copytree(build.SOURCE_ROOT, copy)
    assert build.source_hash(copy) == build.source_hash()
    with (copy / "third_party/yyjson/yyjson.c").open("a") as file:
        file.write("\n")
    assert build.source_hash(copy) != build.source_hash()


def test_sources_are_formatted() -> None:
    folders = [build.SOURCE_ROOT / "src", build.SOURCE_ROOT / "include", C_SOURCES]
    files = [
        str(p) for folder in folders for p in folder.rglob("*") if p.suffix in (".c", ".cc", ".h")
    ]
    program = clang_format.get_executable("clang-format")
    command = [program, "--style=file", "--dry-run", "-Werror", *files]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_the_runtime_needs_nothing_that_compiles_or_trains() -> None:
    code = "import sys, libra_edge.runtime.build; print(*sorted(sys.modules))"
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    loaded = {name.partition(".")[0] for name in printed.stdout.split()}
    assert not loaded & {"torch", "onnx", "onnxruntime", "transformers", "ziglang", "scipy"}
