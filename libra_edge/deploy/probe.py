"""What a robot is and in what state: asked with a POSIX shell, before anything is sent."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from libra_edge.bundle.compatibility import CPU, Device, driver_of, jetpack_of
from libra_edge.deploy.transport import Line, no_shell, not_reached

_KIB = 1024
# Nothing but a shell and the words that busybox has too; $2 stands before /sys and /proc in tests.
_SCRIPT = r"""
root=$1 sys=$2
say() { printf '%s=%s\n' "$1" "$(printf '%s' "$2" | tr '\n' ' ')"; }
read_file() { [ -r "$1" ] && cat "$1" 2>/dev/null; }
echo 'libra-probe=begin'
say machine "$(uname -m)"
say system "$(uname -s)"
say user "$(id -un 2>/dev/null)"
say glibc "$(getconf GNU_LIBC_VERSION 2>/dev/null || ldd --version 2>/dev/null | head -n 1)"
folder=$root
while [ ! -d "$folder" ] && [ "$folder" != / ]; do folder=$(dirname "$folder"); done
say folder "$folder"
[ -w "$folder" ] && [ -x "$folder" ] && say writable yes
say filesystem "$(stat -f -c %T "$folder" 2>/dev/null)"
say disk "$(df -Pk "$folder" 2>/dev/null | tail -n 1)"
for name in MemTotal MemAvailable; do
  say $name "$(sed -n "s/^$name: *\([0-9]*\).*/\1/p" "$sys/proc/meminfo" 2>/dev/null)"
done
for supply in "$sys"/sys/class/power_supply/*; do
  [ "$(read_file "$supply/scope")" = Device ] && continue
  [ "$(read_file "$supply/type")" = Battery ] || continue
  say battery "$(read_file "$supply/capacity") $(read_file "$supply/status")"
done
for zone in "$sys"/sys/class/thermal/thermal_zone*; do
  trip=
  for kind in "$zone"/trip_point_*_type; do
    [ "$(read_file "$kind")" = critical ] && trip=$(read_file "${kind%_type}_temp")
  done
  temperature=$(read_file "$zone/temp")
  [ -n "$temperature" ] && say zone "$temperature ${trip:-0} $(read_file "$zone/type")"
done
say driver "$(read_file "$sys/proc/driver/nvidia/version")"
say tegra "$(read_file "$sys/etc/nv_tegra_release")"
if command -v nvidia-smi >/dev/null 2>&1; then
  say gpu "$(timeout 10 nvidia-smi --query-gpu=compute_cap,memory.total \
    --format=csv,noheader,nounits 2>/dev/null | head -n 1)"
fi
say current "$(readlink "$root/current" 2>/dev/null)"
echo 'libra-probe=end'
"""


@dataclass(frozen=True)
class Battery:
    """One battery: charge in percent, and whether it is being emptied."""

    charge_percent: int
    discharging: bool


@dataclass(frozen=True)
class Zone:
    """One temperature; critical_c: where the machine switches itself off, if it says so."""

    name: str
    temperature_c: float
    critical_c: float | None


@dataclass(frozen=True)
class Facts:
    """What a robot said of itself. None and empty: it has none, or does not tell.

    Args:
        device: architecture, C library, driver, JetPack, GPU.
        user: who is logged in there.
        folder: the part of the robot's folder that exists already.
        writable: whether that user may write there.
        filesystem: its kind, as `stat -f` names it.
        current: what `current` points to; empty without a release.
    """

    device: Device
    system: str
    user: str
    folder: PurePosixPath
    writable: bool
    free_bytes: int | None
    memory_bytes: int | None
    available_bytes: int | None
    batteries: tuple[Battery, ...]
    zones: tuple[Zone, ...]
    current: str
    filesystem: str = ""


def probe(line: Line, system_root: str = "") -> Facts:
    """Ask a robot what it is.

    Args:
        line: to the robot.
        system_root: stands before `/proc`, `/sys` and `/etc`, for tests.

    Raises:
        UnreachableError: the line broke, or there is no shell that answers.
    """
    words = ["sh", "-s", "--", str(line.robot.root), system_root or "/"]
    answer = line.run(words, [_SCRIPT.encode()])
    if answer.lost:
        raise not_reached(line.robot, answer.stderr)
    said = answer.stdout.decode("utf-8", "replace")
    # A login shell may print what it likes before and after.
    found = re.search(r"^libra-probe=begin\n(.*?)^libra-probe=end$", said, re.M | re.S)
    if found is None:
        raise no_shell(line.robot, answer.stderr or f"status {answer.status}")
    return _facts([(key, value) for key, _, value in map(_split, found[1].splitlines())])


def _split(text: str) -> tuple[str, str, str]:
    return text.partition("=")


def _facts(lines: list[tuple[str, str]]) -> Facts:
    said = {key: value.strip() for key, value in lines}
    return Facts(
        _device(said),
        said.get("system", ""),
        said.get("user", ""),
        PurePosixPath(said.get("folder") or "/"),
        "writable" in said,
        _free(said.get("disk", "")),
        _kib(said.get("MemTotal")),
        _kib(said.get("MemAvailable")),
        tuple(b for key, value in lines if key == "battery" and (b := _battery(value))),
        tuple(z for key, value in lines if key == "zone" and (z := _zone(value))),
        said.get("current", ""),
        said.get("filesystem", ""),
    )


def _device(said: dict[str, str]) -> Device:
    driver, jetpack = driver_of(said.get("driver", "")), jetpack_of(said.get("tegra", ""))
    gpu = re.fullmatch(r"(\d+\.\d+), *(\d+)", said.get("gpu", ""))
    versions = {"driver": driver} if driver else {}
    versions |= {"jetpack": jetpack} if jetpack else {}
    unknown = {"cuda", "tensorrt"} if driver or jetpack else set()
    if jetpack and not driver:
        unknown.add("driver")
    if (driver or jetpack) and gpu is None:
        unknown |= {"compute_capability", "memory"}
    glibc = re.findall(r"\d+\.\d+", said.get("glibc", ""))
    return Device(
        "the robot",
        f"{said.get('machine', 'unknown')}-{said.get('system', 'unknown').lower()}-gnu",
        glibc[-1] if glibc else "",
        compute_capability=gpu[1] if gpu else None,
        memory_bytes=int(gpu[2]) * 1024 * _KIB if gpu else None,
        versions=versions,
        providers=frozenset({CPU}),
        unknown=frozenset(unknown),
    )


def _kib(text: str | None) -> int | None:
    return int(text) * _KIB if text and text.isdecimal() and len(text) < 16 else None


def _free(line: str) -> int | None:
    """Of a line of `df -Pk`: the number before the share in use, whatever the device is called."""
    found = re.search(r"\s(\d+)\s+\d+%\s", line)
    return _kib(found[1]) if found else None


def _battery(text: str) -> Battery | None:
    found = re.fullmatch(r"(\d{1,3}) *(.*)", text.strip())
    return Battery(int(found[1]), found[2].strip() == "Discharging") if found else None


def _zone(text: str) -> Zone | None:
    """Millidegrees; what no sensor can mean (a zone that is switched off) is left out."""
    found = re.fullmatch(r"(-?\d{1,7}) (-?\d{1,7}) ?(.*)", text.strip())
    if not found or not -60_000 <= int(found[1]) <= 200_000:
        return None
    critical_c = int(found[2]) / 1000
    return Zone(
        found[3] or "a sensor", int(found[1]) / 1000, critical_c if 40 <= critical_c < 200 else None
    )
