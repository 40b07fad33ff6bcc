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
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from libra_edge.errors import IncompatibleError, InputError, LibraError
from libra_edge.user_cache import cache_folder, make_writable
from libra_edge.version import __version__

OnProgress = Callable[[int, int, str], None]

LIBRARY_NAME = "liblibra_edge.so"
AGENT_NAME = "libra-agent"
SOURCE_ROOT = Path(__file__).parent
HEADER = SOURCE_ROOT / "include" / "libra_edge.h"

_COMMON = ["-O2", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-Wall", "-Wextra"]
_COMMON += ["-Werror", "-g0"]
# The manifest is only read, and it is plain JSON.
_YYJSON = ["-std=c11", "-DYYJSON_DISABLE_WRITER=1", "-DYYJSON_DISABLE_UTILS=1"]
_YYJSON += ["-DYYJSON_DISABLE_NON_STANDARD=1"]
# What the compiler's own libraries are built with depends on these.
_SHARED = ["-shared", "-s"]
# Sources in Zig stop at what cannot happen, in a release too.
_ZIG = ["-OReleaseSafe", "-fPIC", "-fstrip", "-fsingle-threaded"]
_STANDARD = "C++ standard library"
# Of the runtime's own files, what reads releases.
_READS_RELEASES = ["base64", "canonical", "folder", "json", "manifest", "memory_file", "rules"]
_READS_RELEASES += ["sha256", "signature", "trust", "utf8"]
_OF_THE_AGENT = [
    "src/error.cc",
    "src/engine/tensor.cc",
    *(f"src/release/{name}.cc" for name in _READS_RELEASES),
]
_TIMEOUT_S = 900
_ONNXRUNTIME_NAME = re.compile(r"libonnxruntime\.so\.\d+\.\d+\.\d+")


def build_library(
    out_dir: Path,
    target_triple: str = "x86_64-linux-gnu",
    glibc: str = "2.35",
    *,
    cache_dir: Path | None = None,
    source_root: Path = SOURCE_ROOT,
    on_progress: OnProgress = lambda done, total, what: None,
) -> Path:
    """Compile all files in parallel and link `liblibra_edge.so`.

    Args:
        out_dir: folder for the library; made if missing.
        target_triple: architecture, for example `aarch64-linux-gnu`.
        glibc: oldest glibc the library has to load on.
        cache_dir: the compiler's cache; default: the user's cache folder.
        source_root: folder with `include`, `src`, `agent` and `third_party`.
        on_progress: called with pieces done, pieces in all and the piece just done, in the order
            in which they end; first with none done.

    Returns:
        Path of the library.

    Raises:
        InputError: the compiler package is not installed, the target is not a name, or the cache
            cannot be written to.
        LibraError: the sources do not compile.
    """
    sources = native_sources(source_root)
    link = [*_SHARED, "-Wl,--version-script=src/exports.map", f"-Wl,-soname,{LIBRARY_NAME}"]
    target = (target_triple, glibc)
    return _build(
        out_dir / LIBRARY_NAME, sources, link, target, cache_dir, source_root, on_progress
    )


def build_agent(
    out_dir: Path,
    target_triple: str = "x86_64-linux-gnu",
    glibc: str = "2.35",
    *,
    cache_dir: Path | None = None,
    source_root: Path = SOURCE_ROOT,
    on_progress: OnProgress = lambda done, total, what: None,
) -> Path:
    """Compile and link `libra-agent`, as `build_library` does the library."""
    own = sorted((source_root / "agent").glob("*.cc"), key=lambda path: path.name)
    sources = [*own, *(source_root / name for name in _OF_THE_AGENT)]
    target = (target_triple, glibc)
    return _build(
        out_dir / AGENT_NAME, sources, ["-s"], target, cache_dir, source_root, on_progress
    )


def _build(
    out: Path,
    sources: Sequence[Path],
    link: Sequence[str],
    target: tuple[str, str],
    cache_dir: Path | None,
    source_root: Path,
    on_progress: OnProgress,
) -> Path:
    triple, glibc = target
    if not re.fullmatch(r"[a-z0-9_]+-linux-gnu", triple) or not re.fullmatch(r"2\.\d{1,3}", glibc):
        raise InputError(
            "native-target-unknown",
            f"{triple} with glibc {glibc} is not a target of the native runtime.",
            "Use a triple like aarch64-linux-gnu and a glibc version like 2.35.",
        )
    if importlib.util.find_spec("ziglang") is None:
        raise InputError(
            "ziglang-missing",
            "The native runtime needs the cross-compiler package ziglang, which is not installed.",
            "Install libra-edge[compile].",
        )
    cache = make_writable(cache_dir or default_cache_dir()).resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    machine = ["-target", f"{triple}.{glibc}"]
    flags = [*machine, *_COMMON]
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        pieces = _pieces(Path(scratch), sources, source_root)
        commands = {what: [words[0], *flags, *words[1:]] for what, words in pieces.items()}
        commands |= _zig_pieces(Path(scratch), source_root, machine)
        on_progress(0, len(commands) + 1, "")
        _run_in_parallel(commands, source_root, cache, on_progress)
        linked = Path(scratch) / out.name
        objects = [str(_object(Path(scratch), name)) for name in commands if name != _STANDARD]
        words = ["c++", *flags, *link, "-Wl,--build-id=none", *objects, "-o", str(linked)]
        _zig(words, source_root, cache)
        content = linked.read_bytes()
    partial = out.with_suffix(".partial")
    partial.write_bytes(content)
    partial.chmod(0o755)
    partial.replace(out)
    on_progress(len(commands) + 1, len(commands) + 1, out.name)
    return out


def _pieces(scratch: Path, sources: Sequence[Path], source_root: Path) -> dict[str, list[str]]:
    """What can be compiled at the same time: name to arguments, in the order they are linked.

    The first is an empty library: the compiler builds the C++ standard library for it, which takes
    longer than all of our own files.
    """
    empty = scratch / "empty.cc"
    empty.touch()
    pieces = {_STANDARD: ["c++", *_SHARED, str(empty), "-o", str(scratch / "empty.so")]}
    cxx = ["c++", "-std=c++20", "-Iinclude", "-Isrc", "-I.", "-isystem", "third_party/yyjson"]
    cxx += [f'-DLE_VERSION="{__version__}"']
    for path in sources:
        name = path.relative_to(source_root).as_posix()
        pieces[name] = [*cxx, "-c", name, "-o", str(_object(scratch, name))]
    json = "third_party/yyjson/yyjson.c"
    pieces[json] = ["cc", *_YYJSON, "-c", json, "-o", str(_object(scratch, json))]
    return pieces


def _zig_pieces(scratch: Path, source_root: Path, machine: Sequence[str]) -> dict[str, list[str]]:
    """What the compiler's own standard library gives: functions for C, one object a file."""
    names = [path.relative_to(source_root).as_posix() for path in zig_sources(source_root)]
    return {
        name: ["build-obj", name, *machine, *_ZIG, f"-femit-bin={_object(scratch, name)}"]
        for name in names
    }


def _object(scratch: Path, source: str) -> Path:
    return scratch / (source.replace("/", "-") + ".o")


def _run_in_parallel(
    commands: Mapping[str, Sequence[str]], cwd: Path, cache: Path, on_progress: OnProgress
) -> None:
    """Run the compiler once per piece, on every processor; the first failure ends it."""
    # One more than processors: the standard library is built by few processes, and waits.
    with ThreadPoolExecutor(len(os.sched_getaffinity(0)) + 1) as pool:
        waiting = {pool.submit(_zig, words, cwd, cache): what for what, words in commands.items()}
        try:
            for done, future in enumerate(as_completed(waiting), start=1):
                future.result()
                on_progress(done, len(commands) + 1, waiting[future])
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def native_sources(source_root: Path = SOURCE_ROOT) -> list[Path]:
    """The C++ files, by name: their order, and so the library's bytes, knows no folders."""
    return sorted((source_root / "src").rglob("*.cc"), key=lambda path: path.name)


def zig_sources(source_root: Path = SOURCE_ROOT) -> list[Path]:
    """The Zig files, by name."""
    return sorted((source_root / "src").rglob("*.zig"), key=lambda path: path.name)


def default_cache_dir() -> Path:
    """The compiler's cache below the user's cache folder."""
    return cache_folder("zig")


def source_hash(source_root: Path = SOURCE_ROOT) -> str:
    """SHA-256 over everything that decides the library's bytes, besides the compiler."""
    total = hashlib.sha256(__version__.encode())
    total.update(Path(__file__).read_bytes())
    for folder in ("include", "src", "agent", "tensorrt", "third_party"):
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
