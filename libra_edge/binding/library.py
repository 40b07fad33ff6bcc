"""The verified loading of a release's library, and its statuses as Python errors."""

from __future__ import annotations

import ctypes
import hashlib
import json
import platform
from pathlib import Path
from typing import Any, NoReturn

from libra_edge.binding import abi
from libra_edge.errors import IncompatibleError, InputError, IntegrityError, LibraError

LIBRARY_MEMBER = "lib/liblibra_edge.so"
_MOST_MANIFEST_BYTES = 1 << 20
_REMEDIES = {
    abi.ABI_MISMATCH: "Use the libra-edge version that made the release.",
    abi.INCOMPATIBLE: "Compile the policy for this target and version.",
    abi.WRONG_ARCHITECTURE: "Compile the policy for a target of this architecture.",
    abi.NO_PROVIDER: "Compile the policy for a target with a provider this machine has.",
    abi.ENGINE: "Run `libra-edge verify` on the release and compile it again.",
    abi.NOT_FINITE: "Find where the NaN or infinity comes from, then reset the policy.",
    abi.NO_MEMORY: "Free memory, or use a smaller policy.",
}
_INCOMPATIBLE = (
    abi.ABI_MISMATCH,
    abi.INCOMPATIBLE,
    abi.WRONG_ARCHITECTURE,
    abi.NO_PROVIDER,
)


def load_library(path: Path) -> ctypes.CDLL:
    """Load a library that is known to be the right one, and declare its functions.

    Raises:
        IncompatibleError: it cannot be loaded here, or has another ABI version.
    """
    try:
        library = ctypes.CDLL(str(path.resolve()))
    except OSError as error:
        raise IncompatibleError(
            "library-not-loadable",
            f"{path} cannot be loaded on this machine: {error}.",
            "Compile the policy for a target of this machine's architecture and glibc.",
        ) from None
    for name, (result, arguments) in abi.PROTOTYPES.items():
        function = getattr(library, name, None)
        if function is None and name in abi.ADDED_WITH_ASYNC:
            continue  # a release from before still runs in sync mode
        if function is None:
            raise IncompatibleError(
                "library-not-loadable",
                f"{path} has no {name}: it is not the runtime of a release.",
                "Compile the policy again.",
            )
        function.restype, function.argtypes = result, arguments
    if library.le_abi_version() != abi.ABI_VERSION:
        raise IncompatibleError(
            "abi-mismatch",
            f"{path} has ABI version {library.le_abi_version()}, not {abi.ABI_VERSION}.",
            "Use the libra-edge version that made the release.",
        )
    return library


def load_release_library(release_dir: Path) -> ctypes.CDLL:
    """Load a release's own library, after checking its SHA-256 against the manifest.

    Raises:
        InputError: the folder is not a release.
        IntegrityError: the manifest is damaged, or the library is not the one it names.
        IncompatibleError: the release is for another architecture or ABI version.
    """
    runtime, sha256 = _read_manifest(release_dir)
    here = f"{platform.machine()}-linux-gnu"
    if runtime.get("arch") != here:
        raise IncompatibleError(
            "arch-mismatch",
            f"{release_dir} is compiled for {runtime.get('arch')}, this machine is {here}.",
            "Compile the policy for a target of this architecture.",
        )
    library = release_dir / LIBRARY_MEMBER
    found = hashlib.sha256(library.read_bytes()).hexdigest() if library.is_file() else "missing"
    if found != sha256:
        raise IntegrityError(
            "member-changed",
            f"{LIBRARY_MEMBER} of {release_dir} is not the file its manifest names.",
            "Copy the release again; do not run this one.",
        )
    return load_library(library)


def _read_manifest(release_dir: Path) -> tuple[dict[str, Any], str]:
    """The `runtime` section, and the library's SHA-256."""
    path = release_dir / "manifest.json"
    if not path.is_file():
        raise InputError(
            "not-a-release",
            f"{release_dir} has no manifest.json.",
            "Name a release directory; unpack a .libra file first.",
        )
    try:
        with path.open("rb") as file:
            manifest = json.loads(file.read(_MOST_MANIFEST_BYTES))
        return dict(manifest["runtime"]), str(manifest["members"][LIBRARY_MEMBER]["sha256"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise IntegrityError(
            "manifest-malformed",
            f"{path} is not a release manifest ({type(error).__name__}).",
            "Copy the release again.",
        ) from None


def raise_status(status: int, name: str, text: str) -> NoReturn:
    """Turn a status of the C ABI into the Python error of the same meaning."""
    code = name.removeprefix("LE_").lower().replace("_", "-")
    if status == abi.INVALID_ARGUMENT:
        raise InputError(code, text, "Match the sizes and ranges that the release names.")
    if status in _INCOMPATIBLE:
        raise IncompatibleError(code, text, _REMEDIES[status])
    if status in (abi.IO, abi.MALFORMED, abi.INTEGRITY):
        raise IntegrityError(code, text, "Copy the release again; do not run this one.")
    if status == abi.INTERNAL:
        raise RuntimeError(f"liblibra_edge: {text}")
    raise LibraError(code, text, _REMEDIES.get(status, "Report this as a bug."))
