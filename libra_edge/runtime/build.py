"""Builds the native runtime with the cross-compiler of the `ziglang` package.

Needed where a release is made, not where it runs. The same sources give the same bytes, whatever
the folder they lie in.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from libra_edge.errors import IncompatibleError, InputError, LibraError
from libra_edge.version import __version__

LIBRARY_NAME = "liblibra_edge.so"
SOURCE_ROOT = Path(__file__).parent
HEADER = SOURCE_ROOT / "include" / "libra_edge.h"

_COMMON = ["-O2", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-Wall", "-Wextra"]
_COMMON += ["-Werror", "-g0"]
# The manifest is only read, and it is plain JSON.
_YYJSON = ["-std=c11", "-DYYJSON_DISABLE_WRITER=1", "-DYYJSON_DISABLE_UTILS=1"]
_YYJSON += ["-DYYJSON_DISABLE_NON_STANDARD=1"]
_TIMEOUT_S = 900
_ONNXRUNTIME_NAME = re.compile(r"libonnxruntime\.so\.\d+\.\d+\.\d+")


def build_library(
    out_dir: Path,
    target_triple: str = "x86_64-linux-gnu",
    glibc: str = "2.35",
    *,
    cache_dir: Path | None = None,
    source_root: Path = SOURCE_ROOT,
) -> Path:
    """Compile and link `liblibra_edge.so`.

    Args:
        out_dir: folder for the library; made if missing.
        target_triple: architecture, for example `aarch64-linux-gnu`.
        glibc: oldest glibc the library has to load on.
        cache_dir: the compiler's cache; default: the user's cache folder.
        source_root: folder with `include`, `src` and `third_party`.

    Returns:
        Path of the library.

    Raises:
        InputError: the compiler package is not installed, or the target is not a name.
        LibraError: the sources do not compile.
    """
    if not re.fullmatch(r"[a-z0-9_]+-linux-gnu", target_triple) or not re.fullmatch(
        r"2\.\d{1,3}", glibc
    ):
        raise InputError(
            "native-target-unknown",
            f"{target_triple} with glibc {glibc} is not a target of the native runtime.",
            "Use a triple like aarch64-linux-gnu and a glibc version like 2.35.",
        )
    if importlib.util.find_spec("ziglang") is None:
        raise InputError(
            "ziglang-missing",
            "The native runtime needs the cross-compiler package ziglang, which is not installed.",
            "Install libra-edge[compile].",
        )
    cache = (cache_dir or default_cache_dir()).resolve()
    cache.mkdir(parents=True, exist_ok=True)
    out_dir.mkdir(parents=True, exist_ok=True)
    library = out_dir / LIBRARY_NAME
    target = ["-target", f"{target_triple}.{glibc}"]
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        json_object = Path(scratch) / "yyjson.o"
        linked = Path(scratch) / LIBRARY_NAME
        yyjson = ["third_party/yyjson/yyjson.c", "-c", "-o", str(json_object)]
        _zig(["cc", *target, *_COMMON, *_YYJSON, *yyjson], source_root, cache)
        arguments = ["c++", *target, *_COMMON, "-std=c++20", "-shared", "-s"]
        arguments += ["-Iinclude", "-isystem", "third_party/yyjson"]
        arguments += [f'-DLE_VERSION="{__version__}"', "-Wl,--version-script=src/exports.map"]
        arguments += [f"-Wl,-soname,{LIBRARY_NAME}", "-Wl,--build-id=none"]
        sources = sorted(path.name for path in (source_root / "src").glob("*.cc"))
        arguments += [f"src/{name}" for name in sources]
        _zig([*arguments, str(json_object), "-o", str(linked)], source_root, cache)
        content = linked.read_bytes()
    partial = library.with_suffix(".partial")
    partial.write_bytes(content)
    partial.chmod(0o755)
    partial.replace(library)
    return library


def default_cache_dir() -> Path:
    """The compiler's cache below the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "libra-edge" / "zig"


def source_hash(source_root: Path = SOURCE_ROOT) -> str:
    """SHA-256 over everything that decides the library's bytes, besides the compiler."""
    total = hashlib.sha256(__version__.encode())
    total.update(Path(__file__).read_bytes())
    for folder in ("include", "src", "third_party"):
        for path in sorted((source_root / folder).rglob("*")):
            if path.is_file():
                total.update(path.relative_to(source_root).as_posix().encode())
                total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def onnxruntime_library(package_dir: Path | None = None) -> Path:
    """The shared library inside the installed `onnxruntime` package, without importing it.

    Args:
        package_dir: the package's folder, for example of an unpacked wheel for another
            architecture; default: the installed one.

    Returns:
        Path of the library; `onnxruntime_version` reads the version off its name.

    Raises:
        InputError: the package is not installed.
        IncompatibleError: the package has not exactly one such library.
    """
    if package_dir is None:
        spec = importlib.util.find_spec("onnxruntime")
        if spec is None or spec.origin is None:
            raise InputError(
                "onnxruntime-missing",
                "A release carries ONNX Runtime's library, but onnxruntime is not installed.",
                "Install libra-edge[compile].",
            )
        package_dir = Path(spec.origin).parent
    capi = package_dir / "capi"
    paths = sorted(capi.iterdir()) if capi.is_dir() else []
    found = [path for path in paths if _ONNXRUNTIME_NAME.fullmatch(path.name)]
    if len(found) != 1:
        raise IncompatibleError(
            "onnxruntime-library-missing",
            f"{capi} holds {len(found)} files named libonnxruntime.so.<version>; one is needed.",
            "Install the onnxruntime version that constraints.txt names.",
        )
    return found[0]


def onnxruntime_version(library: Path) -> str:
    """The version in the name of a library that `onnxruntime_library` found."""
    return library.name.removeprefix("libonnxruntime.so.")


def _zig(arguments: Sequence[str], cwd: Path, cache: Path) -> None:
    """Run the compiler inside the source folder, so that no path of this machine gets compiled."""
    environment = dict(os.environ)
    environment["ZIG_GLOBAL_CACHE_DIR"] = environment["ZIG_LOCAL_CACHE_DIR"] = str(cache)
    command = [sys.executable, "-m", "ziglang", *arguments]
    try:
        result = subprocess.run(
            command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        raise LibraError(
            "native-build-timeout",
            f"Compiling the native runtime took more than {_TIMEOUT_S} s.",
            "Try again on a machine with less load.",
        ) from None
    if result.returncode != 0:
        raise LibraError(
            "native-build-failed",
            f"The native runtime does not compile: {result.stderr.strip()[-2000:]}",
            "Reinstall libra-edge and the ziglang version it names.",
        )
