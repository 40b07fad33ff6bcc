"""What the GPU is, whether it is what a release is for, and what it draws."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from baseline import cpu_model

from libra_edge.bundle.compatibility import (
    CPU,
    Needs,
    device_of,
    mismatches,
    needs_of,
    this_device,
)
from libra_edge.bundle.manifest import parse_manifest
from libra_edge.catalog import load_target

_FIELDS = {
    "name": "name",
    "driver": "driver_version",
    "compute_capability": "compute_cap",
    "memory_mib": "memory.total",
    "sm_clock_mhz": "clocks.sm",
    "memory_clock_mhz": "clocks.mem",
    "largest_sm_clock_mhz": "clocks.max.sm",
    "power_limit_w": "power.limit",
    "performance_state": "pstate",
}
_EVERY_MS = 50


def gpu_facts() -> dict[str, str]:
    """What the driver says of the first GPU; empty where there is none."""
    if not torch.cuda.is_available():
        return {}
    properties = torch.cuda.get_device_properties(0)
    found = {
        "name": properties.name,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "memory_mib": str(properties.total_memory // 2**20),
        "multiprocessors": str(properties.multi_processor_count),
        "cuda_of_pytorch": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),
    }
    return found | _query(_FIELDS)


def _query(fields: dict[str, str]) -> dict[str, str]:
    command = ["nvidia-smi", "-i", "0", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(
            [*command, f"--query-gpu={','.join(fields.values())}"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    values = [value.strip() for value in said.stdout.strip().splitlines()[0].split(",")]
    return {n: v for n, v in zip(fields, values, strict=True) if not v.startswith("[")}


def host_facts() -> dict[str, str]:
    """The machine around it, and what the figures were made with."""
    return {
        "processor": cpu_model(),
        "cores": str(os.cpu_count()),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": platform.platform(),
    }


def refusal(manifest: Path | None, facts: dict[str, str]) -> dict[str, Any]:
    """How an rtx4090 release is judged on this GPU, before anything of it is loaded.

    Args:
        manifest: of such a release, or None for what the target's profile says all of them need.
        facts: of this GPU.
    """
    versions = {"driver": facts["driver"]} if "driver" in facts else {}
    device = replace(
        this_device(),
        compute_capability=facts["compute_capability"],
        memory_bytes=int(facts["memory_mib"]) * 2**20,
        versions=versions | {"cuda": facts["cuda_of_pytorch"]},
        unknown=frozenset() if versions else frozenset({"driver"}),
    )
    needs = profile_needs() if manifest is None else needs_of(parse_manifest(manifest.read_bytes()))
    found = mismatches(needs, device)
    capability = [m.sentence for m in found if m.code == "compute-capability-mismatch"]
    fits = needs.compute_capability in (None, device.compute_capability)
    return {
        "release": needs.name,
        "needs_capability": needs.compute_capability,
        "sentences": [m.sentence for m in found],
        "capability_sentences": capability,
        "met": len(capability) == (0 if fits else 1),
    }


def profile_needs() -> Needs:
    """What every rtx4090 release needs, whatever policy is in it."""
    target = device_of(load_target("rtx4090"))
    return Needs(
        "an rtx4090 release",
        target.arch,
        target.glibc,
        target.providers - {CPU},
        target.compute_capability,
        versions=target.versions,
    )


def power(call: Callable[[], object], duration_s: float) -> dict[str, float] | None:
    """Mean draw and clock while a call runs over and over; None where it cannot be read."""
    fields = "power.draw,clocks.sm,utilization.gpu"
    command = ["nvidia-smi", "-i", "0", f"--query-gpu={fields}"]
    try:
        watch = subprocess.Popen(
            [*command, "--format=csv,noheader,nounits", "-lms", str(_EVERY_MS)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
    except OSError:
        return None
    begin, calls = time.perf_counter(), 0
    while time.perf_counter() - begin < duration_s:
        call()
        calls += 1
    took = time.perf_counter() - begin
    watch.terminate()
    lines = (watch.communicate()[0] or "").strip().splitlines()
    # The first half is the card waking up.
    try:
        rows = [[float(v) for v in line.split(",")] for line in lines[len(lines) // 2 :]]
        watts, clock, busy = (sum(column) / len(rows) for column in zip(*rows, strict=True))
    except (ValueError, ZeroDivisionError):
        return None
    return {
        "watts": watts,
        "sm_clock_mhz": clock,
        "busy_percent": busy,
        "readings": len(rows),
        "calls_per_s": calls / took,
        "joules_per_call": watts * took / calls,
    }
