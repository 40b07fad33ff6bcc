"""Write releases: from the compiler's files to a directory, and between directory and one file."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from libra_edge.atomic import new_directory, new_file
from libra_edge.bundle.container import SUFFIX, read_container, write_container
from libra_edge.bundle.manifest import Manifest, Member, ReleaseFacts
from libra_edge.bundle.members import MANIFEST, MAX_BYTES, OPTIONAL, required_members
from libra_edge.bundle.verify import read_signature, verify_integrity
from libra_edge.errors import IncompatibleError, InputError, IntegrityError
from libra_edge.paths import StrPath

# Makes a member that tells of all others.
Describe = Callable[[ReleaseFacts, Mapping[str, Member]], bytes]


def write_release(
    destination: Path,
    facts: ReleaseFacts,
    files: Mapping[str, Path | bytes],
    *,
    replace: bool = False,
    described_by: Mapping[str, Describe] | None = None,
) -> Manifest:
    """Write a release directory, whole or not at all.

    Args:
        destination: the directory to make. If it already holds this very release, nothing is done.
        facts: the manifest without its list of members.
        files: every member by name, as a file to copy or as bytes.
        replace: replace another release that stands at `destination`.
        described_by: members that are made of the facts and of all other members' digests.

    Raises:
        InputError: `destination` is taken.
        LibraError: the disk is full.
        ValueError: `files` is not exactly the members of a release.
    """
    policy = facts.policy
    needed = required_members(
        plans=policy.plans,
        words=policy.instruction_length > 0,
        noise=policy.denoise_steps > 0,
    )
    if wrong := (set(files) - OPTIONAL - needed) | (needed - set(files)):
        raise ValueError(f"not the members of a release: {sorted(wrong)}")
    members = {name: _measure(name, source) for name, source in files.items()}
    more = {name: make(facts, members) for name, make in (described_by or {}).items()}
    members |= {name: _measure(name, content) for name, content in more.items()}
    manifest = Manifest(**dict(facts), members=members)
    if _already_there(destination, manifest, replace=replace):
        return manifest
    with new_directory(destination) as partial:
        for name, source in {**files, **more}.items():
            (partial / name).parent.mkdir(exist_ok=True)
            if isinstance(source, bytes):
                (partial / name).write_bytes(source)
            else:
                shutil.copyfile(source, partial / name)
        (partial / MANIFEST).write_bytes(manifest.to_bytes())
        verify_integrity(partial)
    return manifest


def pack_release(directory: StrPath, destination: StrPath, *, replace: bool = False) -> Manifest:
    """Write the release in `directory` as one file; the same release gives the same bytes.

    Raises:
        InputError: `directory` is not a release, or `destination` is taken.
        IntegrityError: the release is not what its manifest says.
        LibraError: the disk is full.
    """
    directory = Path(directory)
    destination = Path(destination)
    manifest = verify_integrity(directory)
    if _already_there(destination, manifest, directory, replace=replace):
        return manifest
    with new_file(destination) as stream:
        write_container(stream, directory, manifest)
    return verify_integrity(destination)


def unpack_release(file: StrPath, destination: StrPath, *, replace: bool = False) -> Manifest:
    """Unpack a one-file release; every byte is checked before `destination` appears.

    Raises:
        InputError: there is no such file, or `destination` is taken.
        IntegrityError: the file is not what its manifest says.
        LibraError: the disk is full.
    """
    file = Path(file)
    destination = Path(destination)
    manifest = read_container(file)
    if _already_there(destination, manifest, file, replace=replace):
        return manifest
    with new_directory(destination) as partial:
        read_container(file, into=partial)
    return verify_integrity(destination)


def _measure(name: str, source: Path | bytes) -> Member:
    size_bytes = len(source) if isinstance(source, bytes) else source.stat().st_size
    if size_bytes > MAX_BYTES[name]:
        raise InputError(
            "member-too-large",
            f"{name} would have {size_bytes} bytes; a release allows {MAX_BYTES[name]}.",
            "Compile a smaller policy or record fewer golden samples.",
        )
    if isinstance(source, bytes):
        return Member(sha256=hashlib.sha256(source).hexdigest(), size_bytes=size_bytes)
    with source.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256")
    return Member(sha256=digest.hexdigest(), size_bytes=size_bytes)


def _already_there(
    destination: Path, manifest: Manifest, source: Path | None = None, *, replace: bool
) -> bool:
    """Whether `destination` holds this release; refuses one that holds something else.

    Where it comes from a `source`, the signature is a part of it.
    """
    if not destination.exists() or (destination.is_dir() and not any(destination.iterdir())):
        return False
    try:
        if verify_integrity(destination) == manifest and (
            source is None or read_signature(source) == read_signature(destination)
        ):
            return True
    except (InputError, IncompatibleError, IntegrityError):
        pass  # not this release, whatever it is
    is_release = destination.suffix == SUFFIX or (destination / MANIFEST).is_file()
    if replace and is_release:
        return False
    raise InputError(
        "destination-exists",
        f"{destination} exists and is not this release.",
        "Choose another place, or pass --force to replace it."
        if is_release
        else "Choose another place; it holds no release, so it is not replaced.",
    )
