"""Whether a release fits a device: one check for compile, flash and open.

It reads the manifest and asks the machine; nothing of the release is loaded. Every mismatch is one
sentence: what was found, what is needed, what to do.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from libra_edge.bundle.manifest import Manifest, ReleaseFacts
from libra_edge.bundle.members import OF_PROVIDERS
from libra_edge.catalog import Target
from libra_edge.errors import IncompatibleError

CPU = "CPUExecutionProvider"
# A driver serves everything up to its own version; the others have to be the same so far.
_PARTS_THAT_COUNT = {"tensorrt": 2, "cuda": 1, "jetpack": 1}
_NAMES = {"tensorrt": "TensorRT", "cuda": "CUDA", "jetpack": "JetPack", "driver": "NVIDIA driver"}
# What the operating system and the other programs of a robot keep of memory that is shared.
_SHARED_MEMORY_SHARE = 0.8
_NVIDIA_VERSION = Path("/proc/driver/nvidia/version")
_TEGRA_RELEASE = Path("/etc/nv_tegra_release")


@dataclass(frozen=True)
class Device:
    """What a machine is and has. None and an empty set mean that it has no such thing.

    unknown: facts that could not be found out, which no release is refused for.
    """

    name: str
    arch: str
    glibc: str
    compute_capability: str | None = None
    memory_bytes: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    providers: frozenset[str] = frozenset({CPU})
    unknown: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Needs:
    """What a release asks of a device."""

    name: str
    arch: str
    glibc: str
    providers: frozenset[str] = frozenset({CPU})
    compute_capability: str | None = None
    memory_bytes: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Mismatch:
    """One thing that does not fit."""

    code: str
    sentence: str
    remedy: str


def needs_of(manifest: Manifest | ReleaseFacts) -> Needs:
    """What a release's native code and engines need; plain graphs on a CPU need no accelerator."""
    runtime = manifest.runtime
    providers = frozenset(engine.provider for engine in manifest.engines.by_name.values())
    device = manifest.device if providers != {CPU} else None
    return Needs(
        manifest.name,
        runtime.arch,
        runtime.glibc,
        providers,
        device.compute_capability if device else None,
        device.memory_bytes if device else 0,
        device.versions if device else {},
    )


def provisioned_needs(manifest: Manifest | ReleaseFacts) -> Needs:
    """What the engines need that the robot is to build from a release's graphs."""
    needs, device = needs_of(manifest), manifest.device
    if manifest.provision is None or device is None:
        return needs
    return Needs(
        needs.name,
        needs.arch,
        needs.glibc,
        frozenset({manifest.provision.provider}),
        device.compute_capability,
        device.memory_bytes,
        device.versions,
    )


def device_of(target: Target) -> Device:
    """The machine that a target's profile describes."""
    versions = {name: v for name, v in vars(target.software).items() if v is not None}
    return Device(
        f"target {target.name}",
        target.arch,
        target.glibc,
        target.compute_capability,
        target.memory_bytes,
        versions,
        frozenset(engine.provider for engine in target.engines) | {CPU},
    )


def this_device(providers: frozenset[str] = frozenset({CPU})) -> Device:
    """The machine this runs on, from the kernel's and the driver's own files.

    Args:
        providers: what would run the engines here; the native runtime loads the CPU's.
    """
    tegra = _tegra_jetpack()
    driver = _driver_version()
    versions = {"jetpack": tegra} if tegra else {}
    versions |= {"driver": driver} if driver else {}
    has_gpu = driver is not None or tegra is not None
    # Without the driver's library a GPU's capability, memory, CUDA and TensorRT stay unknown.
    unknown = {"compute_capability", "memory", "cuda", "tensorrt"} if has_gpu else set()
    if tegra and not driver:
        unknown.add("driver")
    return Device(
        "this machine",
        f"{platform.machine()}-{platform.system().lower()}-gnu",
        _glibc(),
        versions=versions,
        providers=providers,
        unknown=frozenset(unknown),
    )


def device_for(manifest: Manifest) -> Device:
    """This machine, with the providers that a release brings along."""
    brought = {OF_PROVIDERS[name] for name in manifest.members.keys() & OF_PROVIDERS.keys()}
    return this_device(frozenset({CPU, *brought}))


def mismatches(needs: Needs, device: Device) -> list[Mismatch]:
    """Everything that does not fit, what decides most first."""
    return [
        *_arch(needs, device),
        *_glibc_old(needs, device),
        *_provider(needs, device),
        *_capability(needs, device),
        *_memory(needs, device),
        *_versions(needs, device),
    ]


def require_compatible(needs: Needs, device: Device) -> None:
    """Refuse a release that does not fit, before anything of it is loaded.

    Raises:
        IncompatibleError: with every mismatch in a sentence, and the first one's code and remedy.
    """
    found = mismatches(needs, device)
    if found:
        sentences = " ".join(mismatch.sentence for mismatch in found)
        raise IncompatibleError(found[0].code, sentences, found[0].remedy)


def require_trained(manifest: Manifest | ReleaseFacts) -> None:
    """Refuse a release that was made to be measured and must never move a robot.

    Raises:
        IncompatibleError: its weights are random.
    """
    if manifest.random_weights:
        raise IncompatibleError(
            "random-weights",
            f"Release {manifest.name!r} was compiled with --random-weights: it is no policy.",
            "Compile a trained checkpoint; this release is for measuring alone.",
        )


def _arch(needs: Needs, device: Device) -> Iterable[Mismatch]:
    if needs.arch != device.arch:
        yield _mismatch(
            device,
            "arch-mismatch",
            f"runs {device.arch}",
            f"the native code of {needs.name} is for {needs.arch}",
            "Compile the policy for a target of this architecture.",
        )


def _glibc_old(needs: Needs, device: Device) -> Iterable[Mismatch]:
    if device.glibc and _numbers(device.glibc) < _numbers(needs.glibc):
        yield _mismatch(
            device,
            "glibc-too-old",
            f"has glibc {device.glibc}",
            f"{needs.name} needs {needs.glibc} or newer",
            "Update its operating system, or compile for a target with an older glibc.",
        )


def _provider(needs: Needs, device: Device) -> Iterable[Mismatch]:
    have = ", ".join(sorted(device.providers)) or "none"
    for provider in sorted(needs.providers - device.providers):
        yield _mismatch(
            device,
            "provider-unavailable",
            f"has the execution providers {have}",
            f"the engines of {needs.name} need {provider}",
            "Install that provider, or compile for a target this machine is.",
        )


def _capability(needs: Needs, device: Device) -> Iterable[Mismatch]:
    wanted, found = needs.compute_capability, device.compute_capability
    if wanted in (None, found) or (found is None and "compute_capability" in device.unknown):
        return
    yield _mismatch(
        device,
        "compute-capability-mismatch",
        "has no NVIDIA GPU" if found is None else f"has compute capability {found}",
        f"the engines of {needs.name} are built for {wanted}",
        "Compile for the target this machine is; engines do not move between GPU generations.",
    )


def _memory(needs: Needs, device: Device) -> Iterable[Mismatch]:
    if device.memory_bytes is None:
        return
    shared = device.arch.startswith("aarch64")
    usable = int(device.memory_bytes * (_SHARED_MEMORY_SHARE if shared else 1))
    if needs.memory_bytes > usable:
        yield _mismatch(
            device,
            "memory-too-small",
            f"has {_gib(usable)} for engines",
            f"both engines of {needs.name} need {_gib(needs.memory_bytes)} for weights, "
            "activations and scratch",
            "Compile with fewer bits (--recipe fp8, int8 or int4-awq) or for a larger device.",
        )


def _versions(needs: Needs, device: Device) -> Iterable[Mismatch]:
    for name, wanted in sorted(needs.versions.items()):
        found = device.versions.get(name)
        if (found is None and name in device.unknown) or (found and _fits(name, found, wanted)):
            continue
        least = f"{wanted} or newer" if name == "driver" else wanted
        yield _mismatch(
            device,
            f"{name}-mismatch",
            f"has {_NAMES[name]} {found or 'not installed'}",
            f"{needs.name} needs {least}",
            f"Install {_NAMES[name]} {least} there, or compile for what it has.",
        )


def _mismatch(device: Device, code: str, found: str, wanted: str, remedy: str) -> Mismatch:
    name = device.name[0].upper() + device.name[1:]
    return Mismatch(code, f"{name} {found}, {wanted}.", remedy)


def _fits(name: str, found: str, wanted: str) -> bool:
    if name == "driver":
        return _numbers(found) >= _numbers(wanted)
    count = _PARTS_THAT_COUNT[name]
    return _numbers(found)[:count] == _numbers(wanted)[:count]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / 2**30:.1f} GiB"


def _glibc() -> str:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").removeprefix("glibc ")
    except (ValueError, OSError):
        return ""


def _driver_version() -> str | None:
    try:
        return driver_of(_NVIDIA_VERSION.read_text())
    except OSError:
        return None


def driver_of(text: str) -> str | None:
    """The driver's version in the words of `/proc/driver/nvidia/version`."""
    found = re.search(r"Module.*?\s(\d+\.\d+(?:\.\d+)?)", text)
    return found[1] if found else None


def _tegra_jetpack() -> str | None:
    try:
        return jetpack_of(_TEGRA_RELEASE.read_text())
    except OSError:
        return None


def jetpack_of(text: str) -> str | None:
    """JetPack by the release of Jetson Linux: 36 is JetPack 6, 38 is JetPack 7."""
    found = re.search(r"# R(\d+)", text)
    major = {"35": "5", "36": "6", "38": "7"}.get(found[1]) if found else None
    return f"{major}.0" if major else None
