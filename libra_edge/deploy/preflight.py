"""Whether a release may go to a robot, before its first byte does: every check, with its limit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from libra_edge.bundle.compatibility import (
    Device,
    Mismatch,
    mismatches,
    needs_of,
    provisioned_needs,
    require_trained,
)
from libra_edge.bundle.manifest import Manifest
from libra_edge.deploy.probe import Facts
from libra_edge.errors import IncompatibleError, LibraError, NotMeasuredError, ParityError

MIB = 1024 * 1024
SPARE_BYTES = 32 * MIB  # besides the release: state, logs and the file system's own blocks
LEAST_CHARGE_PERCENT = 20  # of a battery that is being emptied
HOTTEST_C = 90.0  # where a sensor does not say when the machine switches itself off
COOLER_C = 10.0  # below that point

# As `stat -f` names them: what `current` is cannot lie there.
_WITHOUT_LINKS = {"msdos", "vfat", "exfat"}

Status = Literal["ok", "refused", "not readable"]


@dataclass(frozen=True)
class Check:
    """One thing looked at. A refusal has a code and a remedy."""

    name: str
    status: Status
    found: str
    needed: str
    code: str = ""
    remedy: str = ""


def require_releasable(manifest: Manifest) -> None:
    """Refuse a release that must not move a robot, whatever robot that is.

    Raises:
        IncompatibleError: its weights are random.
        ParityError: it failed its own parity gates.
        NotMeasuredError: they were not all measured.
    """
    require_trained(manifest)
    verdict = manifest.parity.verdict
    if verdict == "pass":
        return
    kind = ParityError if verdict == "fail" else NotMeasuredError
    code = "parity-failed" if verdict == "fail" else "parity-not-measured"
    raise kind(
        code,
        f"The parity of release {manifest.name!r} is {verdict!r}: nothing shows that it is still "
        "the policy it was compiled from.",
        "Compile it again until every gate passes; `libra-edge verify` says which did not.",
    )


def machine_checks(facts: Facts) -> list[Check]:
    """What a robot must be for any release: system, folder, power, temperature."""
    return [_system(facts), _folder(facts), *_power(facts), *_temperature(facts)]


def robot_rows(facts: Facts) -> list[Check]:
    """What a robot is, where no release says what is needed."""
    device = facts.device
    versions = ", ".join(f"{name} {version}" for name, version in sorted(device.versions.items()))
    memory = "?" if facts.memory_bytes is None else size(facts.memory_bytes)
    pairs = {
        "architecture": device.arch,
        "glibc": device.glibc or "?",
        "driver and GPU": versions or "none",
        "memory": memory,
    }
    return [Check(name, "ok", found, "the release's") for name, found in pairs.items()]


def agent_check(version: str | None, running: str) -> Check:
    """What answers on the robot; a robot without an agent gets its first one when it is flashed."""
    found = "none yet" if version is None else f"libra-agent {version}, runs {running}"
    return Check("agent", "ok", found, "any, or none")


def release_checks(manifest: Manifest, facts: Facts) -> list[Check]:
    """Whether this release fits this robot: architecture, C library, driver, memory."""
    needs, device = needs_of(manifest), facts.device
    wrong = [*mismatches(needs, device)]
    if manifest.provision is not None:
        wrong += mismatches(provisioned_needs(manifest), _with_provider(manifest, device))
    codes = {mismatch.code: mismatch for mismatch in wrong}
    return [
        _fits("architecture", codes, ("arch-mismatch",), device.arch, needs.arch),
        _fits("glibc", codes, ("glibc-too-old",), device.glibc, f">= {needs.glibc}"),
        _accelerator(manifest, device, codes),
        _memory(manifest, facts),
    ]


def space_check(needs_bytes: int, free_bytes: int | None) -> Check:
    """Whether what the robot has to write fits beside what it holds.

    Args:
        needs_bytes: of the release, as the agent counts them.
        free_bytes: on the file system of the robot's folder.
    """
    needed = f"{size(needs_bytes + SPARE_BYTES)} free"
    if free_bytes is None:
        return Check("space", "not readable", "?", needed)
    found = f"{size(free_bytes)} free"
    if free_bytes >= needs_bytes + SPARE_BYTES:
        return Check("space", "ok", found, needed)
    return Check(
        "space",
        "refused",
        found,
        needed,
        "robot-full",
        "Free space on the robot's disk, or move its folder to a larger one with --root.",
    )


def require_passed(checks: list[Check]) -> None:
    """Refuse if any check does.

    Raises:
        IncompatibleError: the robot is not a machine for this release.
        LibraError: it is, but not now: no space, no power, too hot, not writable.
    """
    refused = [check for check in checks if check.status == "refused"]
    if not refused:
        return
    first = refused[0]
    others = f" Also: {', '.join(check.name for check in refused[1:])}." if refused[1:] else ""
    lasting = first.code not in _PASSING
    kind = IncompatibleError if lasting else LibraError
    raise kind(
        first.code,
        f"The robot's {first.name}: {first.found}; needed: {first.needed}.{others} "
        "Nothing was sent.",
        first.remedy,
    )


_PASSING = {"robot-full", "robot-hot", "robot-power", "root-not-writable", "robot-memory"}


def size(count: float) -> str:
    """Bytes as people read them."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def _fits(
    name: str, wrong: dict[str, Mismatch], codes: tuple[str, ...], found: str, needed: str
) -> Check:
    mismatch = next((wrong[code] for code in codes if code in wrong), None)
    if mismatch is None:
        return Check(name, "ok" if found else "not readable", found or "?", needed)
    return Check(name, "refused", found, needed, mismatch.code, mismatch.remedy)


def _accelerator(manifest: Manifest, device: Device, wrong: dict[str, Mismatch]) -> Check:
    """Driver, JetPack, GPU and providers in one row: what is there, and the first misfit."""
    ours = {"arch-mismatch", "glibc-too-old"}
    others = tuple(code for code in wrong if code not in ours)
    needs = provisioned_needs(manifest)
    wanted = [f"{name} {version}" for name, version in sorted(needs.versions.items())]
    wanted += [f"capability {needs.compute_capability}"] if needs.compute_capability else []
    have = [f"{name} {version}" for name, version in sorted(device.versions.items())]
    have += [f"capability {device.compute_capability}"] if device.compute_capability else []
    found, needed = ", ".join(have) or "none", ", ".join(wanted) or "none"
    row = _fits("driver and GPU", wrong, others, found, needed)
    if row.status == "refused" and needed == "none":
        return Check(row.name, row.status, found, wrong[others[0]].sentence, row.code, row.remedy)
    if row.status == "ok" and wanted and not have:
        return Check(row.name, "not readable", "?", needed)
    return row


def _with_provider(manifest: Manifest, device: Device) -> Device:
    """The robot as it will be: the provider that it is to build engines with is its agent's."""
    provider = manifest.provision.provider if manifest.provision else ""
    return replace(device, providers=device.providers | {provider})


def _memory(manifest: Manifest, facts: Facts) -> Check:
    """A lower bound: the engines and the library that runs them have to be in memory at once."""
    loaded: list[str] = [engine.member for engine in manifest.engines.by_name.values()]
    loaded += [name for name in manifest.members if name.endswith((".data", ".engine"))]
    loaded += ["lib/libonnxruntime.so", "lib/liblibra_edge.so"]
    least = sum(manifest.members[name].size_bytes for name in set(loaded))
    needed = f"{size(least)} available"
    if facts.available_bytes is None:
        return Check("memory", "not readable", "?", needed)
    found = f"{size(facts.available_bytes)} available"
    if facts.available_bytes >= least:
        return Check("memory", "ok", found, needed)
    return Check(
        "memory",
        "refused",
        found,
        needed,
        "robot-memory",
        "Stop what else uses memory there, or compile with fewer bits.",
    )


def _system(facts: Facts) -> Check:
    if facts.system == "Linux":
        return Check("system", "ok", "Linux", "Linux")
    remedy = "Releases are for Linux robots."
    return Check("system", "refused", facts.system or "?", "Linux", "robot-system", remedy)


def _folder(facts: Facts) -> Check:
    needed = f"{facts.user or 'the user'} may write"
    if facts.filesystem in _WITHOUT_LINKS:
        return Check(
            "folder",
            "refused",
            f"{facts.folder} is {facts.filesystem}",
            "a file system with links",
            "root-without-links",
            "Name a folder on the robot's own disk; to carry a release on a stick pass --stick.",
        )
    if facts.writable:
        return Check("folder", "ok", str(facts.folder), needed)
    return Check(
        "folder",
        "refused",
        f"{facts.folder} is read-only",
        needed,
        "root-not-writable",
        "Make the folder once, owned by the user you log in as, or log in as its owner.",
    )


def _power(facts: Facts) -> Iterator[Check]:
    needed = f">= {LEAST_CHARGE_PERCENT} % or mains"
    if not facts.batteries:
        yield Check("power", "not readable", "no battery", needed)
        return
    emptied = [b.charge_percent for b in facts.batteries if b.discharging]
    low = bool(emptied) and min(emptied) < LEAST_CHARGE_PERCENT
    found = ", ".join(
        f"{b.charge_percent} %, {'discharging' if b.discharging else 'on mains'}"
        for b in facts.batteries
    )
    if not low:
        yield Check("power", "ok", found, needed)
        return
    remedy = "Charge the robot or put it on mains."
    yield Check("power", "refused", found, needed, "robot-power", remedy)


def _temperature(facts: Facts) -> Iterator[Check]:
    if not facts.zones:
        yield Check("temperature", "not readable", "no sensor", f"< {HOTTEST_C:.0f} °C")
        return

    limits = [zone.critical_c - COOLER_C if zone.critical_c else HOTTEST_C for zone in facts.zones]
    pairs = zip(facts.zones, limits, strict=True)
    zone, limit_c = max(pairs, key=lambda pair: pair[0].temperature_c - pair[1])
    found = f"{zone.temperature_c:.0f} °C, {zone.name}"
    needed = f"< {limit_c:.0f} °C"
    if zone.temperature_c < limit_c:
        yield Check("temperature", "ok", found, needed)
        return
    remedy = "Let the robot cool down; a self-test would heat it further."
    yield Check("temperature", "refused", found, needed, "robot-hot", remedy)
