"""The verified loading of a release's library, and its statuses as Python errors."""

from __future__ import annotations

import ctypes
import hashlib
import os
from pathlib import Path
from typing import NoReturn

from libra_edge.binding import abi
from libra_edge.bundle.compatibility import (
    Needs,
    require_compatible,
    require_trained,
    this_device,
)
from libra_edge.bundle.manifest import Manifest, parse_manifest
from libra_edge.bundle.members import MANIFEST, MAX_BYTES
from libra_edge.errors import (
    IncompatibleError,
    InputError,
    IntegrityError,
    LibraError,
    ParityError,
)

LIBRARY_MEMBER = "lib/liblibra_edge.so"
_REMEDIES = {
    abi.ABI_MISMATCH: "Use the libra-edge version that made the release.",
    abi.INCOMPATIBLE: "Compile the policy for this target and version.",
    abi.WRONG_ARCHITECTURE: "Compile the policy for a target of this architecture.",
    abi.NO_PROVIDER: "Compile the policy for a target with a provider this machine has.",
    abi.NO_DRIVER: "Install NVIDIA's driver, in the version that the release's target names.",
    abi.DRIVER_TOO_OLD: "Update NVIDIA's driver; `libra-edge inspect` shows what is needed.",
    abi.NO_DEVICE: "Run the release on a machine of its target; pass the device into a container.",
    abi.SEVERAL_DEVICES: "Name one, for example CUDA_VISIBLE_DEVICES=0, and run it again.",
    abi.WRONG_DEVICE: "Compile the policy for this machine's target.",
    abi.DEVICE_TOO_SMALL: "Compile with fewer bits (--recipe fp8, int8) or for a larger device.",
    abi.ENGINE_MISMATCH: "Compile the policy again; do not run this release.",
    abi.ENGINE_REFUSED: "Update the driver, or compile the policy again for this machine's target.",
    abi.ENGINE: "Run `libra-edge verify` on the release and compile it again.",
    abi.NOT_FINITE: "Find where the NaN or infinity comes from, then reset the policy.",
    abi.NO_MEMORY: "Free memory, or use a smaller policy.",
}
# Of errors that say what this machine lacks, and nothing against the release.
DEVICE_CODES = frozenset(
    {
        "no-driver",
        "driver-too-old",
        "no-device",
        "several-devices",
        "wrong-device",
        "device-too-small",
    }
)
_INCOMPATIBLE = (
    abi.ABI_MISMATCH,
    abi.INCOMPATIBLE,
    abi.WRONG_ARCHITECTURE,
    abi.NO_PROVIDER,
    abi.NO_DRIVER,
    abi.DRIVER_TOO_OLD,
    abi.NO_DEVICE,
    abi.SEVERAL_DEVICES,
    abi.WRONG_DEVICE,
    abi.DEVICE_TOO_SMALL,
    abi.ENGINE_REFUSED,
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
        if function is None and name in abi.ADDED_LATER:
            continue  # a release from before still runs with what it has
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


def load_release_library(
    release_dir: Path, *, allow_failed: bool = False, allow_random_weights: bool = False
) -> tuple[ctypes.CDLL, Manifest]:
    """Load a release's own library, after checking its SHA-256 against the manifest.

    Returns:
        The library, and the manifest.

    Raises:
        InputError: the folder is not a release.
        IntegrityError: the manifest is damaged, or the library is not the one it names.
        IncompatibleError: the release is not for this machine, or it was never trained.
        ParityError: it failed its parity checks.
    """
    manifest = _read_manifest(release_dir)
    # What the engines run on is the library's own business: it says what is missing.
    runtime = manifest.runtime
    require_compatible(Needs(manifest.name, runtime.arch, runtime.glibc), this_device())
    if not allow_random_weights:
        require_trained(manifest)
    if manifest.parity.verdict == "fail" and not allow_failed:
        raise ParityError(
            "parity-failed",
            f"{release_dir} failed its own parity checks: it is not the trained policy.",
            "Compile the policy again; `libra-edge inspect` shows what failed.",
        )
    library = release_dir / LIBRARY_MEMBER
    found = hashlib.sha256(library.read_bytes()).hexdigest() if library.is_file() else "missing"
    if found != manifest.members[LIBRARY_MEMBER].sha256:
        raise IntegrityError(
            "member-changed",
            f"{LIBRARY_MEMBER} of {release_dir} is not the file its manifest names.",
            "Copy the release again; do not run this one.",
        )
    return load_library(library), manifest


def require_builds(library: ctypes.CDLL, release_dir: Path) -> None:
    """Refuse engines that were built here where the release's library knows of none.

    Raises:
        IncompatibleError: it is from before.
    """
    if not hasattr(library, "le_build_engines"):
        raise IncompatibleError(
            "no-device-build",
            f"The library in {release_dir} builds and opens no engines on the robot.",
            "Compile the policy again with this libra-edge.",
        )


def build_engines(release_dir: Path, folder: Path, *, threads: int = 1) -> None:
    """Build what a release leaves to this machine, by its own library.

    Args:
        release_dir: the release's directory.
        folder: an empty one, for the engines and their mark.
        threads: of each engine.

    Raises:
        LibraError: as `le_build_engines` says.
    """
    library, _ = load_release_library(release_dir)
    require_builds(library, release_dir)
    options = abi.OpenOptions(
        abi_version=abi.ABI_VERSION,
        release_dir=os.fsencode(release_dir),
        engines_dir=os.fsencode(folder),
        threads=threads,
    )
    error = ctypes.create_string_buffer(abi.ERROR_SIZE)
    status = library.le_build_engines(ctypes.byref(options), error, abi.ERROR_SIZE)
    if status != abi.OK:
        name = library.le_status_name(status).decode()
        raise_status(status, name, error.value.decode(errors="replace"))


def _read_manifest(release_dir: Path) -> Manifest:
    path = release_dir / MANIFEST
    if release_dir.is_file():
        raise InputError(
            "not-a-release",
            f"{release_dir} is a file; a release is run from its directory.",
            "Unpack it with `libra-edge unpack` and name the directory.",
        )
    if not path.is_file():
        raise InputError(
            "not-a-release",
            f"{release_dir} has no {MANIFEST}.",
            "Name a release directory; unpack a .libra file first.",
        )
    with path.open("rb") as file:
        return parse_manifest(file.read(MAX_BYTES[MANIFEST] + 1))


def raise_status(status: int, name: str, text: str) -> NoReturn:
    """Turn a status of the C ABI into the Python error of the same meaning."""
    code = name.removeprefix("LE_").lower().replace("_", "-")
    if status == abi.INVALID_ARGUMENT:
        raise InputError(code, text, "Match the sizes and ranges that the release names.")
    if status in _INCOMPATIBLE:
        raise IncompatibleError(code, text, _REMEDIES[status])
    if status == abi.UNPROVEN:
        raise ParityError(code, text, "Compile the policy again, or open it by name of the flag.")
    if status in (abi.IO, abi.MALFORMED, abi.INTEGRITY):
        raise IntegrityError(code, text, "Copy the release again; do not run this one.")
    if status == abi.ENGINE_MISMATCH:
        raise IntegrityError(code, text, _REMEDIES[status])
    if status == abi.INTERNAL:
        raise RuntimeError(f"liblibra_edge: {text}")
    raise LibraError(code, text, _REMEDIES.get(status, "Report this as a bug."))
