"""A stick (or any folder) that carries a release to a robot that no network reaches."""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from libra_edge.atomic import new_file
from libra_edge.bundle.container import SUFFIX
from libra_edge.bundle.members import AGENT
from libra_edge.bundle.pack import pack_release
from libra_edge.bundle.verify import Release, open_release, read_signature, verify_integrity
from libra_edge.deploy.flash import FlashRequest, require_signed
from libra_edge.deploy.preflight import SPARE_BYTES, require_releasable, size
from libra_edge.errors import IncompatibleError, InputError, LibraError


@dataclass(frozen=True)
class Carried:
    """What lies on the stick; commands: what to run on the robot, from the stick's own folder."""

    release: str
    release_id: str
    condition: Literal["carried", "already there", "planned"]
    file: str
    size_bytes: int
    commands: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def carry(folder: Path, request: FlashRequest) -> Carried:
    """Write a release as one file, with its agent beside it; read back before it counts.

    Args:
        folder: of the stick.
        request: the release; `dry_run` and `allow_unsigned` are heeded, the rest is the robot's.

    Raises:
        InputError: there is no such folder.
        LibraError: the release must not run, has no agent, or does not fit.
    """
    release = open_release(request.release)
    manifest = release.manifest
    require_releasable(manifest)
    require_signed(release, read_signature(release.path) or b"", allow=request.allow_unsigned)
    if AGENT not in manifest.members:
        raise IncompatibleError(
            "release-without-agent",
            f"Release {manifest.name!r} holds no {AGENT}, so a robot could not install it.",
            "Compile the policy again with this libra-edge: every release now has its agent.",
        )
    if not folder.is_dir():
        raise InputError("no-stick", f"{folder} is no folder.", "Mount the stick, name its folder.")
    file = folder / f"{manifest.name}{SUFFIX}"
    size_bytes = sum(member.size_bytes for member in manifest.members.values())
    there = _holds(file, release)
    if not there:
        _require_space(folder, size_bytes + manifest.members[AGENT].size_bytes)
    if not request.dry_run:
        pack_release(release.path, file, replace=True)
        with new_file(folder / "libra-agent") as agent:
            agent.write(release.member(AGENT).read_bytes())
        (folder / "libra-agent").chmod(0o755)
    install = f"./libra-agent install {file.name}"
    unsigned = " --allow-unsigned" if request.allow_unsigned else ""
    return Carried(
        manifest.name,
        manifest.release_id,
        "planned" if request.dry_run else "already there" if there else "carried",
        str(file),
        size_bytes,
        (f"{install}{unsigned}", "./libra-agent activate"),
    )


def _holds(file: Path, release: Release) -> bool:
    try:
        return verify_integrity(file) == release.manifest and (
            read_signature(file) == read_signature(release.path)
        )
    except LibraError:
        return False


def _require_space(folder: Path, needed_bytes: int) -> None:
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes + SPARE_BYTES or not os.access(folder, os.W_OK):
        raise LibraError(
            "stick-full",
            f"{folder} has {size(free_bytes)} free and needs {size(needed_bytes + SPARE_BYTES)}, "
            "writable.",
            "Free space on it, or take another; nothing was written.",
        )
