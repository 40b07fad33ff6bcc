"""The runtime's own tests once more, under ThreadSanitizer, AddressSanitizer and UBSan.

Needs a g++ with its sanitizer libraries (Debian: g++), which the cross-compiler does not carry.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from libra_edge.runtime import build
from libra_edge.version import __version__
from tests.runtime import native_build

pytestmark = [pytest.mark.long, pytest.mark.sanitize]
ADDRESS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
ENVIRONMENT = {
    **os.environ,
    "TSAN_OPTIONS": "halt_on_error=1",
    "ASAN_OPTIONS": "detect_leaks=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}


def build_sanitized(out: Path, flags: list[str], *extra: str) -> Path:
    """Every source of the library with g++, as a program or (`-shared`) a library."""
    if not native_build.has_gxx():
        pytest.skip("g++ is not installed")
    root = build.SOURCE_ROOT
    json_object = out.parent / "yyjson.o"
    common = ["-O1", "-g", "-fPIC", "-fno-omit-frame-pointer", *flags]
    includes = [f"-I{root / 'include'}", f"-I{root / 'src'}", "-isystem"]
    includes += [str(root / "third_party/yyjson")]
    sources = [str(path) for path in build.native_sources()]
    yyjson = str(root / "third_party/yyjson/yyjson.c")
    native_build.gxx("gcc", *common, "-c", yyjson, "-o", str(json_object))
    native_build.gxx(
        *("g++", "-std=c++20", *common, "-ffp-contract=off", f'-DLE_VERSION="{__version__}"'),
        *(*includes, *sources, *extra, str(json_object), "-ldl", "-lpthread", "-o", str(out)),
    )
    return out


@pytest.mark.parametrize("flags", [["-fsanitize=thread"], ADDRESS], ids=["thread", "address"])
@pytest.mark.parametrize(
    ("name", "arguments"), [("stress", ["3"]), ("simulation", ["0", "1000"])], ids=str
)
def test_programs(flags: list[str], name: str, arguments: list[str], tmp_path: Path) -> None:
    source = native_build.C_SOURCES / f"{name}.cc"
    program = build_sanitized(tmp_path / name, flags, str(source))
    result = subprocess.run(
        [program, *arguments], env=ENVIRONMENT, capture_output=True, text=True, timeout=600
    )
    assert result.returncode == 0, result.stdout[-1000:] + result.stderr[-4000:]


def test_python_tests_on_an_address_sanitized_library(tmp_path: Path) -> None:
    library = build_sanitized(tmp_path / build.LIBRARY_NAME, ADDRESS, "-shared")
    # Without libstdc++ from the start ASan cannot see an exception pass.
    names = ("asan", "stdc++")
    runtime = [native_build.gxx("g++", f"-print-file-name=lib{name}.so") for name in names]
    environment = {
        **ENVIRONMENT,
        "LD_PRELOAD": " ".join(runtime),
        # Python itself never frees everything, and it allocates beyond what ASan allows.
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
        "LIBRA_EDGE_TEST_LIBRARY": str(library),
    }
    modules = ("abi", "async", "sync", "release")
    tests = [str(Path(__file__).parent / f"test_{name}.py") for name in modules]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
        env=environment,
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
