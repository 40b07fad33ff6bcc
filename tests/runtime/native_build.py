"""Native builds for tests: the library once per source state, and small C programs beside it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from libra_edge.atomic import new_file
from libra_edge.runtime import build
from libra_edge.runtime.libraries import native_library

C_SOURCES = Path(__file__).parent / "c"
TARGET = ["-target", "x86_64-linux-gnu.2.35"]
STRICT = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"]


def cached_library() -> Path:
    """The library of the present sources; compiled only when they have changed."""
    if sanitized := os.environ.get("LIBRA_EDGE_TEST_LIBRARY"):
        return Path(sanitized)
    folder = build.default_cache_dir().parent / "tests"
    kept = folder / build.source_hash() / build.LIBRARY_NAME
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with new_file(kept) as stream:
            stream.write(native_library("x86_64-linux-gnu", "2.35"))
        kept.chmod(0o755)
    return kept


def zig(*arguments: str) -> None:
    cache = str(build.default_cache_dir())
    environment = {**os.environ, "ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache}
    result = subprocess.run(
        [sys.executable, "-m", "ziglang", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stderr


def golden_program(out: Path, release: Path) -> Path:
    """Compile `c/golden.c` against a release's own header and library."""
    zig(
        *("cc", *TARGET, "-std=c11", "-O1", *STRICT, f"-I{release / 'include'}"),
        *(str(C_SOURCES / "golden.c"), str(release / "lib/liblibra_edge.so"), "-lm"),
        *("-o", str(out)),
    )
    return out


def has_gxx() -> bool:
    return shutil.which("g++") is not None and shutil.which("gcc") is not None


def gxx(*command: str) -> str:
    result = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def c_program(name: str, folder: Path, release: Path) -> Path:
    """Compile `c/NAME.c` against a release's own header and library."""
    out = folder / name
    zig(
        *("cc", *TARGET, "-std=c11", "-O1", *STRICT, f"-I{release / 'include'}"),
        *(str(C_SOURCES / f"{name}.c"), str(release / "lib/liblibra_edge.so"), "-lpthread"),
        *("-o", str(out)),
    )
    return out


def run_c(program: Path, release: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run such a program on the release."""
    environment = {**os.environ, "LD_LIBRARY_PATH": str(release / "lib")}
    return subprocess.run(
        [str(program), str(release), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def core_program(name: str, folder: Path) -> Path:
    """Compile `c/NAME.cc` with the runtime's sources but for ONNX Runtime and files."""
    out, root = folder / name, build.SOURCE_ROOT
    core = [root / "src/engine/checks.cc", root / "src/error.cc"]
    without = ("policy", "policy_info", "threads")
    core += [p for p in (root / "src/control").glob("*.cc") if p.stem not in without]
    zig(
        *("c++", *TARGET, "-std=c++20", "-O2", *STRICT[:2], "-Werror", "-ffp-contract=off"),
        *(f"-I{root / 'include'}", f"-I{root / 'src'}", "-isystem"),
        *(str(root / "third_party/yyjson"), str(C_SOURCES / f"{name}.cc")),
        *(str(source) for source in core),
        *("-o", str(out)),
    )
    return out


def run_golden(
    program: Path, release: Path, *tolerances: float
) -> subprocess.CompletedProcess[str]:
    """Replay a release's golden vectors in C; exit status 0 means they match."""
    environment = {**os.environ, "LD_LIBRARY_PATH": str(release / "lib")}
    return subprocess.run(
        [str(program), str(release), *(f"{value:.9g}" for value in tolerances)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
