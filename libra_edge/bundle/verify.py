"""Check that a release is exactly what its manifest says, then hand it out."""

from __future__ import annotations

import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from libra_edge.atomic import new_directory
from libra_edge.bundle.container import (
    broken,
    container_signature,
    copy_checked,
    read_container,
)
from libra_edge.bundle.manifest import Manifest, parse_manifest
from libra_edge.bundle.members import (
    ALWAYS,
    ALWAYS_FOLDERS,
    FOLDERS,
    MANIFEST,
    MAX_BYTES,
    MAX_SIGNATURE_BYTES,
    SIGNATURE,
)
from libra_edge.errors import InputError, IntegrityError
from libra_edge.paths import StrPath
from libra_edge.user_cache import cache_folder, make_writable


@dataclass(frozen=True)
class Release:
    """A verified release on disk."""

    path: Path
    manifest: Manifest

    def member(self, name: str) -> Path:
        """The file of member `name`."""
        if name not in self.manifest.members:
            raise KeyError(name)
        return self.path / name


def is_release(path: StrPath) -> bool:
    """Whether `path` looks like a release (directory or one file) rather than a checkpoint."""
    path = Path(path)
    return (path / MANIFEST).is_file() or path.is_file()


def verify_integrity(path: StrPath) -> Manifest:
    """Check every byte of a release, directory or one file.

    Raises:
        InputError: there is no release at `path`.
        IntegrityError: a member is missing, unexpected or changed, or the manifest is not valid.
        IncompatibleError: the manifest has another schema version.
    """
    path = Path(path)
    if path.is_file():
        return read_container(path)
    if not (path / MANIFEST).is_file():
        what = f"has no {MANIFEST}" if path.is_dir() else "does not exist"
        raise InputError(
            "not-a-release", f"{path} {what}.", "Name a release directory or a .libra file."
        )
    return _verify_directory(path)


def read_signature(path: StrPath) -> bytes | None:
    """The bytes of a verified release's `model.sig`; None where nobody signed it."""
    path = Path(path)
    if path.is_file():
        return container_signature(path)
    return (path / SIGNATURE).read_bytes() if (path / SIGNATURE).is_file() else None


def open_release(path: StrPath) -> Release:
    """Verify a release and hand out its directory; a `.libra` file is unpacked into the cache.

    The cache (`$XDG_CACHE_HOME/libra-edge/releases`) is keyed by content, and what lies there is
    verified each time, so neither a stale nor a damaged entry is ever used.

    Raises:
        LibraError: as `verify_integrity`, or the disk is full.
    """
    path = Path(path)
    manifest = verify_integrity(path)
    if path.is_dir():
        return Release(path, manifest)
    cached = _cache_folder() / manifest.release_id
    if not _is_intact(cached, manifest, read_signature(path)):
        if cached.exists():
            shutil.rmtree(cached)
        with new_directory(cached) as partial:
            read_container(path, into=partial)
    return Release(cached, manifest)


def _is_intact(directory: Path, manifest: Manifest, signature: bytes | None) -> bool:
    try:
        return verify_integrity(directory) == manifest and read_signature(directory) == signature
    except (InputError, IntegrityError):
        return False


def _cache_folder() -> Path:
    return make_writable(cache_folder("releases"))


def _verify_directory(path: Path) -> Manifest:
    names = _require_names(path)
    with (path / MANIFEST).open("rb") as stream:
        manifest = parse_manifest(stream.read(MAX_BYTES[MANIFEST] + 1))
    if other := sorted((names - {MANIFEST, SIGNATURE}) ^ manifest.members.keys()):
        where = "not in the manifest" if other[0] in names else "missing"
        code = "member-unexpected" if other[0] in names else "member-missing"
        raise broken(code, f"{other[0]} is {where}")
    for name, member in sorted(manifest.members.items()):
        found = (path / name).stat().st_size
        if found != member.size_bytes:
            raise broken("member-changed", f"{name} has {found} bytes, not {member.size_bytes}")
        with (path / name).open("rb") as stream:
            copy_checked(stream, None, name, member.size_bytes, member.sha256)
    return manifest


def _require_names(path: Path) -> set[str]:
    """The names there are; only known ones: regular files, plain folders, no links, none hidden."""
    found = set()
    for folder in ("", *sorted(FOLDERS)):
        if folder not in ("", *ALWAYS_FOLDERS) and not os.path.lexists(path / folder):
            continue
        if not (path / folder).is_dir() or (folder and (path / folder).is_symlink()):
            raise broken("member-missing", f"The release has no folder {folder}/")
        for entry in os.scandir(path / folder):
            name = f"{folder}/{entry.name}" if folder else entry.name
            if not folder and name in FOLDERS:
                continue
            regular = stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode)
            if name not in (*MAX_BYTES, SIGNATURE) or not regular:
                raise broken("member-unexpected", f"The release holds {name!r}, which it must not")
            found.add(name)
    if missing := sorted(ALWAYS - found):
        raise broken("member-missing", f"The release has no {missing[0]}")
    if SIGNATURE in found and (path / SIGNATURE).stat().st_size > MAX_SIGNATURE_BYTES:
        raise broken("member-unexpected", f"{SIGNATURE} is too large to be a signature")
    return found
