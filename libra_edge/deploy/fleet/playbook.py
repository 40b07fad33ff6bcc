"""A release on many robots, with Ansible's inventory, waves and failure budget."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from libra_edge.bundle.verify import open_release, read_signature
from libra_edge.deploy.flash import require_signed
from libra_edge.deploy.preflight import require_releasable
from libra_edge.errors import InputError, LibraError, StoppedError

WAVES = "1,30%,100%"
COLLECTIONS = Path(__file__).parent
PLAYBOOK = COLLECTIONS / "ansible_collections" / "libra" / "edge" / "playbooks" / "flash.yml"
_WAVE = re.compile(r"[1-9][0-9]{0,5}|(?:100|[1-9][0-9]?)%")


@dataclass(frozen=True)
class FleetRequest:
    """What to do with a release on a fleet.

    Args:
        release: directory or `.libra` file.
        inventory: Ansible's, file or folder.
        waves: sizes of the waves, the canary first: counts or percentages.
        max_fail_percentage: of a wave that may fail before the next one is called off.
        limit: pattern of hosts; None: all.
        root: the robots' folder; None: the inventory's `libra_root`, else /opt/libra.
        ssh_config: as `ssh -F`.
        check: plan, change nothing.
        allow_unsigned: let a release without signature through.
        mark_good: mark it good right after the switch.
        health_timeout_s: how long a robot waits for `mark-good`.
        wait_s: how long a wave waits for its robots to be marked good.
    """

    release: Path
    inventory: Path
    waves: str = WAVES
    max_fail_percentage: float = 0
    limit: str | None = None
    root: str | None = None
    ssh_config: Path | None = None
    check: bool = False
    allow_unsigned: bool = False
    mark_good: bool = False
    health_timeout_s: int | None = None
    wait_s: float | None = None


@dataclass(frozen=True)
class FleetResult:
    """What became of the robots that were reached; others were left as they are."""

    release: str
    release_id: str
    robots: Mapping[str, Mapping[str, Any]]
    complete: bool

    @property
    def failed(self) -> list[str]:
        """Robots that do not run the release."""
        return sorted(name for name, said in self.robots.items() if said["failed"])

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self) | {"failed": self.failed}


def flash_fleet(
    request: FleetRequest, on_line: Callable[[str], None] = lambda _: None
) -> FleetResult:
    """Flash a fleet wave by wave.

    Args:
        request: the release, the robots and how many at a time.
        on_line: called with each line that Ansible prints.

    Raises:
        LibraError: the release must not run, Ansible is not installed or cannot use the inventory.
        StoppedError: Ctrl-C.
    """
    release = open_release(request.release)
    require_releasable(release.manifest)
    require_signed(release, read_signature(release.path) or b"", allow=request.allow_unsigned)
    _require_usable(request)
    with tempfile.TemporaryDirectory(prefix="libra-edge-") as folder:
        results = Path(folder, "results.json")
        words = [sys.executable, "-m", "ansible", "playbook", str(PLAYBOOK)]
        words += ["-i", str(request.inventory.absolute())]
        words += ["-e", json.dumps(_variables(request, release.path))]
        words += ["--check", "--diff"] if request.check else []
        words += ["--limit", request.limit] if request.limit else []
        status = _run(words, _environment(folder, results), on_line)
        robots: dict[str, Any] = {}
        with suppress(OSError, ValueError):
            robots = json.loads(results.read_text("utf-8"))
    if not robots:
        raise LibraError(
            "no-robots",
            f"Ansible reached no robot of {request.inventory} (exit status {status}).",
            "See its words above; `ansible-inventory -i FILE --list` shows what it reads.",
        )
    manifest = release.manifest
    return FleetResult(manifest.name, manifest.release_id, robots, complete=status == 0)


def _require_usable(request: FleetRequest) -> None:
    if not request.inventory.exists():
        raise InputError(
            "no-inventory", f"{request.inventory} is not there.", "Name an Ansible inventory."
        )
    if not all(_WAVE.fullmatch(wave) for wave in request.waves.split(",")):
        raise InputError(
            "waves-invalid",
            f"{request.waves!r} are no waves.",
            f"Write counts and percentages, the canary first: {WAVES}.",
        )
    if find_spec("ansible") is None:
        raise LibraError(
            "no-ansible",
            "Fleets run on Ansible, which is not installed here.",
            "pip install 'libra-edge[fleet]'",
        )


def _variables(request: FleetRequest, release: Path) -> dict[str, Any]:
    waves = [wave if "%" in wave else int(wave) for wave in request.waves.split(",")]
    given = {
        "libra_root": request.root,
        "libra_ssh_config": str(request.ssh_config.absolute()) if request.ssh_config else None,
        "libra_health_timeout_s": request.health_timeout_s,
        "libra_health_wait_s": request.wait_s,
    }
    return {
        "libra_release": str(release.absolute()),
        "libra_waves": waves,
        "libra_max_fail_percentage": request.max_fail_percentage,
        "libra_allow_unsigned": request.allow_unsigned,
        "libra_mark_good": request.mark_good,
        **{key: value for key, value in given.items() if value is not None},
    }


def _environment(folder: str, results: Path) -> dict[str, str]:
    """The user's own, with our collection, our lines, and nothing left in the user's home."""
    mine = dict(os.environ)
    others = mine.get("ANSIBLE_COLLECTIONS_PATH", "")
    mine |= {
        "ANSIBLE_COLLECTIONS_PATH": ":".join(filter(None, (str(COLLECTIONS), others))),
        "ANSIBLE_STDOUT_CALLBACK": "libra.edge.waves",
        "ANSIBLE_LOCAL_TEMP": folder,
        "ANSIBLE_LOCALHOST_WARNING": "False",
        "LIBRA_FLEET_RESULTS": str(results),
    }
    spoken = next((mine[key] for key in ("LC_ALL", "LC_CTYPE", "LANG") if mine.get(key)), "")
    if "utf" not in spoken.lower():
        mine["LC_ALL"] = "C.UTF-8"  # Ansible starts in no other
    return mine


def _run(words: list[str], environment: Mapping[str, str], on_line: Callable[[str], None]) -> int:
    process = subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        encoding="utf-8",
        errors="replace",
    )
    try:
        for line in process.stdout or ():
            on_line(line.rstrip())
        return process.wait()
    except KeyboardInterrupt:
        process.terminate()
        with suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
            process.wait(30)
        raise StoppedError(
            "interrupted",
            "Stopped by Ctrl-C.",
            "Each robot runs the old release or the new one, whole; flash again to go on, robots "
            "that run the new one are left as they are.",
        ) from None
    finally:
        process.kill()
        process.wait()
