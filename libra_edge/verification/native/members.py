"""Native members against those that this toolkit makes: the same sources give the same bytes."""

from __future__ import annotations

import hashlib
import importlib.util
import math
import platform
from collections.abc import Callable
from pathlib import Path

from libra_edge.bundle.manifest import Manifest
from libra_edge.bundle.members import AGENT, LIBRARY
from libra_edge.bundle.verify import Release
from libra_edge.errors import LibraError
from libra_edge.limits import Verdict
from libra_edge.parity.gates import Check, not_measured
from libra_edge.runtime.build import HEADER, onnxruntime_library, onnxruntime_version
from libra_edge.runtime.fetch import fetched_onnxruntime
from libra_edge.runtime.libraries import library_cache, native_agent, native_library
from libra_edge.version import __version__

OnStage = Callable[[str], None]
STAGE = "native members vs this toolkit's"
# Interfaces from before this one, of libra-edges that had the same version.
FORMER_HEADERS = frozenset({"515761c3bc5ee17c55ec5fd3e65be144e88d9fd72317542df69c7687badde41a"})


def is_former(manifest: Manifest) -> bool:
    """Whether a release says that another libra-edge made its native members.

    Then there is nothing to hold them against; so it is no way to a pass either.
    """
    header = manifest.members["include/libra_edge.h"].sha256
    return manifest.tools.get("libra-edge") != __version__ or header in FORMER_HEADERS


def compare_members(release: Release, cache: Path, on_stage: OnStage) -> list[Check]:
    """One check per native member, by its SHA-256.

    Args:
        release: what is under test.
        cache: where libraries are kept if the user's own cache cannot be written to.
        on_stage: told what takes a while.
    """
    # Releases of before the agent have none.
    made = [(LIBRARY, native_library), (AGENT, native_agent)]
    return [
        *(
            _made(release, name, make, cache, on_stage)
            for name, make in made
            if name in release.manifest.members
        ),
        _onnxruntime(release),
        _check(release.manifest, "include/libra_edge.h", _sha256(HEADER.read_bytes())),
    ]


def _made(
    release: Release, name: str, make: Callable[..., bytes], cache: Path, on_stage: OnStage
) -> Check:
    runtime = release.manifest.runtime
    if importlib.util.find_spec("ziglang") is None:
        reason = "the compiler is not installed; install libra-edge[compile]"
        return not_measured(STAGE, f"{name}: {reason}")
    try:
        own = make(
            runtime.arch,
            runtime.glibc,
            cache=library_cache(cache),
            on_progress=lambda done, total, what: on_stage(
                f"compiling C++ for {runtime.arch}, once per machine, {done} of {total} pieces"
            ),
        )
    except LibraError as error:
        return not_measured(STAGE, f"{name}: {error.fact}")
    return _check(release.manifest, name, _sha256(own))


def _onnxruntime(release: Release) -> Check:
    """Only where a library of that version is on this machine: nothing is downloaded for it."""
    name, runtime = "lib/libonnxruntime.so", release.manifest.runtime
    try:
        installed = onnxruntime_library()
    except LibraError as error:
        return not_measured(STAGE, f"{name}: {error.fact}")
    wanted, found = runtime.onnxruntime_version, onnxruntime_version(installed)
    if wanted != found:
        return not_measured(STAGE, f"{name}: it is version {wanted}, and {found} is installed")
    known = [_file_sha256(path) for path in (installed, *fetched_onnxruntime(wanted))]
    own = release.manifest.members[name].sha256
    if runtime.arch != f"{platform.machine()}-linux-gnu" and own not in known:
        return not_measured(STAGE, f"{name}: none for {runtime.arch} is on this machine")
    return _check(release.manifest, name, own if own in known else known[0])


def _check(manifest: Manifest, name: str, own: str) -> Check:
    same = manifest.members[name].sha256 == own
    verdict: Verdict = "pass" if same else "not measured" if is_former(manifest) else "fail"
    note = "" if same else "not this toolkit's"
    if verdict == "not measured":
        maker = manifest.tools.get("libra-edge", "another version")
        note += f": another libra-edge made it ({maker}, this is {__version__})"
        return Check(STAGE, f"{name} is the same", math.nan, 1.0, 0, verdict, note)
    return Check(STAGE, f"{name} is the same", float(same), 1.0, 1, verdict, note)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
