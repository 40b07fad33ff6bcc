"""What is looked at before the first byte, on robots laid out in files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from libra_edge.bundle.compatibility import Device
from libra_edge.bundle.manifest import ReleaseFacts
from libra_edge.bundle.verify import open_release
from libra_edge.deploy import preflight
from libra_edge.deploy.probe import Battery, Facts, Zone, probe
from libra_edge.deploy.robot import Robot
from libra_edge.deploy.transport import Line
from libra_edge.errors import IncompatibleError, LibraError, NotMeasuredError, ParityError
from tests.bundle.examples import facts_body
from tests.deploy.robots import write

GOOD = Facts(
    Device("the robot", "x86_64-linux-gnu", "2.36"),
    "Linux",
    "libra",
    PurePosixPath("/opt"),
    True,
    10**10,
    8 * 10**9,
    4 * 10**9,
    (),
    (),
    "",
)


def lay(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def test_a_robot_is_read_from_its_own_files(tmp_path: Path) -> None:
    lay(
        tmp_path,
        {
            "proc/meminfo": "MemTotal:  8000000 kB\nMemFree: 1 kB\nMemAvailable:  4000000 kB\n",
            "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX Kernel Module  570.86\n",
            "etc/nv_tegra_release": "# R36 (release), REVISION: 4.0\n",
            "sys/class/power_supply/BAT0/type": "Battery\n",
            "sys/class/power_supply/BAT0/capacity": "37\n",
            "sys/class/power_supply/BAT0/status": "Discharging\n",
            "sys/class/power_supply/AC/type": "Mains\n",
            "sys/class/power_supply/mouse/type": "Battery\n",
            "sys/class/power_supply/mouse/scope": "Device\n",
            "sys/class/power_supply/mouse/capacity": "1\n",
            "sys/class/thermal/thermal_zone0/temp": "51500\n",
            "sys/class/thermal/thermal_zone0/type": "cpu = thermal\n",
            "sys/class/thermal/thermal_zone0/trip_point_0_type": "passive\n",
            "sys/class/thermal/thermal_zone0/trip_point_0_temp": "80000\n",
            "sys/class/thermal/thermal_zone0/trip_point_1_type": "critical\n",
            "sys/class/thermal/thermal_zone0/trip_point_1_temp": "104500\n",
            "sys/class/thermal/thermal_zone1/temp": "-256000\n",
            "sys/class/thermal/thermal_zone2/temp": "40000\n",
        },
    )
    root = PurePosixPath(tmp_path / "not" / "yet")
    facts = probe(Line(Robot("here", None, root)), str(tmp_path))
    assert (facts.memory_bytes, facts.available_bytes) == (8000000 * 1024, 4000000 * 1024)
    assert facts.device.versions == {"driver": "570.86", "jetpack": "6.0"}
    assert facts.batteries == (Battery(37, True),)
    assert facts.zones == (Zone("cpu = thermal", 51.5, 104.5), Zone("a sensor", 40.0, None))
    assert facts.folder == PurePosixPath(tmp_path)
    assert facts.writable
    assert facts.free_bytes


def test_an_empty_machine_is_no_error(tmp_path: Path) -> None:
    facts = probe(Line(Robot("here", None, PurePosixPath("/nowhere/at/all"))), str(tmp_path))
    assert (facts.memory_bytes, facts.batteries, facts.zones) == (None, (), ())
    assert facts.folder == PurePosixPath("/")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"system": "Darwin"}, "robot-system"),
        ({"writable": False}, "root-not-writable"),
        ({"batteries": (Battery(80, True), Battery(19, True))}, "robot-power"),
        ({"zones": (Zone("a", 30, None), Zone("b", 90, None))}, "robot-hot"),
        ({"zones": (Zone("a", 89, 120.0), Zone("b", 75, 85.0))}, "robot-hot"),
    ],
)
def test_a_robot_that_takes_nothing_now(changes: dict[str, Any], code: str) -> None:
    checks = preflight.machine_checks(replace(GOOD, **changes))
    with pytest.raises(LibraError) as raised:
        preflight.require_passed(checks)
    assert raised.value.code == code
    assert raised.value.remedy


@pytest.mark.parametrize(
    "changes",
    [
        {"batteries": (Battery(20, True),)},
        {"batteries": (Battery(3, False),)},
        {"zones": (Zone("a", 89.9, None), Zone("b", 74.9, 85.0))},
    ],
)
def test_a_robot_at_its_limits(changes: dict[str, Any]) -> None:
    preflight.require_passed(preflight.machine_checks(replace(GOOD, **changes)))


def device(**changes: Any) -> Facts:
    return replace(GOOD, device=replace(GOOD.device, **changes))


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        (device(arch="aarch64-linux-gnu"), "arch-mismatch"),
        (device(glibc="2.31"), "glibc-too-old"),
        (replace(GOOD, available_bytes=10), "robot-memory"),
    ],
)
def test_a_release_that_does_not_fit(tmp_path: Path, facts: Facts, code: str) -> None:
    manifest = open_release(write(tmp_path)).manifest
    preflight.require_passed(preflight.release_checks(manifest, GOOD))
    kind = LibraError if code == "robot-memory" else IncompatibleError
    with pytest.raises(kind) as raised:
        preflight.require_passed(preflight.release_checks(manifest, facts))
    assert raised.value.code == code


@pytest.mark.parametrize(
    ("versions", "unknown", "code"),
    [
        ({"jetpack": "6.2"}, {"compute_capability", "memory"}, None),
        ({"jetpack": "5.0"}, {"compute_capability", "memory"}, "jetpack-mismatch"),
        ({}, set(), "compute-capability-mismatch"),
    ],
)
def test_engines_that_the_robot_is_to_build(
    tmp_path: Path, versions: dict[str, str], unknown: set[str], code: str | None
) -> None:
    provision = {"kind": "tensorrt", "provider": "TensorrtExecutionProvider", "options": {}}
    needs = {"compute_capability": "8.7", "memory_bytes": 0, "versions": {"jetpack": "6.0"}}
    manifest = open_release(write(tmp_path, provision=provision, device=needs)).manifest
    robot = device(versions=versions, unknown=frozenset(unknown))
    checks = preflight.release_checks(manifest, robot)
    assert [c.code for c in checks if c.status == "refused"] == ([code] if code else [])


@pytest.mark.parametrize(("free", "status"), [(None, "not readable"), (100, "refused")])
def test_space(free: int | None, status: str) -> None:
    assert preflight.space_check(1000, free).status == status
    enough = 1000 + preflight.SPARE_BYTES
    assert preflight.space_check(1000, enough).status == "ok"
    assert preflight.space_check(1000, enough - 1).status == "refused"


def test_releases_that_must_not_move_a_robot() -> None:
    def manifest(**changes: Any) -> Any:
        return ReleaseFacts.model_validate(facts_body() | changes)

    def parity(verdict: str) -> dict[str, Any]:
        check = {"stage": "fuse", "metric": "actions", "threshold": 1e-4, "verdict": verdict}
        return {"verdict": verdict, "samples": 8, "checks": [check]}

    preflight.require_releasable(manifest())
    for kind, code, changes in (
        (ParityError, "parity-failed", {"parity": parity("fail")}),
        (NotMeasuredError, "parity-not-measured", {"parity": parity("not measured")}),
        (IncompatibleError, "random-weights", {"random_weights": True}),
    ):
        with pytest.raises(kind) as raised:
            preflight.require_releasable(manifest(**changes))
        assert raised.value.code == code


def test_sizes_read_well() -> None:
    shown = [preflight.size(n) for n in (0, 999, 1000, 1_500_000, 2_340_000_000, 10**13)]
    assert shown == ["0 B", "999 B", "1.0 kB", "1.5 MB", "2.3 GB", "10000.0 GB"]
