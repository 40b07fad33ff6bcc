"""`libra_edge.h` in ctypes: structures, prototypes, and the verified loading of the library."""

from __future__ import annotations

import ctypes
import hashlib
import json
import platform
from ctypes import (
    POINTER,
    c_char_p,
    c_double,
    c_float,
    c_int32,
    c_int64,
    c_uint8,
    c_uint32,
    c_uint64,
    c_void_p,
)
from pathlib import Path
from typing import Any, NoReturn

from libra_edge.errors import IncompatibleError, InputError, IntegrityError, LibraError

ABI_VERSION = 1
ERROR_SIZE = 512
LIBRARY_MEMBER = "lib/liblibra_edge.so"
_MOST_MANIFEST_BYTES = 1 << 20

OK, INVALID_ARGUMENT, ABI_MISMATCH, IO, MALFORMED, INTEGRITY = range(6)
INCOMPATIBLE, ENGINE, NOT_FINITE, NO_MEMORY, INTERNAL = range(6, 11)
WRONG_ARCHITECTURE, NO_PROVIDER = range(11, 13)

PLANNER_RAN, REFINER_RAN, CLAMPED, NO_COMMAND, SLOWED = 1, 2, 4, 8, 16
RUN_LOCK_MEMORY, RUN_MANUAL = 1, 2
PLAN_BEGIN, PLAN_END, REFINE_BEGIN, REFINE_END = range(4)
PLAN_CLAIM, PLAN_RUN, REFINE_CLAIM, REFINE_RUN = range(4, 8)
BLENDS = ("none", "linear", "freeze")
REALTIME = (
    "planner_priority",
    "refiner_priority",
    "planner_cpus",
    "refiner_cpus",
    "lock_memory",
)

REASONS = (
    "",
    "nothing observed yet",
    "no instruction yet",
    "state is not finite",
    "planner output is not finite",
    "refiner output is not finite",
    "planner failed",
    "refiner failed",
    "planner gave an intent outside its bins",
    "observation is too old",
    "engine call takes too long",
    "no valid plan",
    "action queue ran dry",
    "action is out of limits",
)


class OpenOptions(ctypes.Structure):
    """le_open_options."""

    _fields_ = (
        ("struct_size", c_uint32),
        ("abi_version", c_uint32),
        ("release_dir", c_char_p),
        ("seed", c_uint64),
        ("threads", c_uint32),
        ("flags", c_uint32),
        ("reserved", c_uint64 * 4),
    )


class PolicyInfo(ctypes.Structure):
    """le_policy_info."""

    _fields_ = (
        ("struct_size", c_uint32),
        ("abi_version", c_uint32),
        ("bins", c_uint32),
        ("chunk", c_uint32),
        ("chunks_per_plan", c_uint32),
        ("plan_steps", c_uint32),
        ("denoise_steps", c_uint32),
        ("action_dim", c_uint32),
        ("state_dim", c_uint32),
        ("cameras", c_uint32),
        ("image_height", c_uint32),
        ("image_width", c_uint32),
        ("instruction_length", c_uint32),
        ("threads", c_uint32),
        ("control_hz", c_double),
        ("name", c_char_p),
        ("target", c_char_p),
        ("recipe", c_char_p),
        ("arch", c_char_p),
        ("onnxruntime_version", c_char_p),
        ("manifest_sha256", c_uint8 * 32),
        ("reserved", c_uint64 * 4),
    )


class Observation(ctypes.Structure):
    """le_observation."""

    _fields_ = (
        ("struct_size", c_uint32),
        ("state_count", c_uint32),
        ("images", c_void_p),
        ("image_bytes", c_uint64),
        ("state", c_void_p),
        ("timestamp_ns", c_uint64),
        ("reserved", c_uint64 * 4),
    )


class StepInfo(ctypes.Structure):
    """le_step_info."""

    _fields_ = (
        ("struct_size", c_uint32),
        ("state", c_uint32),
        ("reason", c_uint32),
        ("flags", c_uint32),
        ("step", c_uint64),
        ("chunk", c_uint64),
        ("plan_step", c_int64),
        ("plan_age_steps", c_int64),
        ("observation_timestamp_ns", c_uint64),
        ("planner_duration_ns", c_uint64),
        ("refiner_duration_ns", c_uint64),
        ("clamped_mask", c_uint64),
        ("clamped_count", c_uint32),
        ("reserved0", c_uint32),
        ("reserved", c_uint64 * 4),
    )


class RunOptions(ctypes.Structure):
    """le_run_options."""

    _fields_ = (
        ("struct_size", c_uint32),
        ("flags", c_uint32),
        ("chunks_per_plan", c_uint32),
        ("refill_at", c_uint32),
        ("refine_ahead_steps", c_uint32),
        ("max_plan_age_steps", c_uint32),
        ("blend", c_uint32),
        ("blend_steps", c_uint32),
        ("frozen_steps", c_uint32),
        ("planner_priority", c_uint32),
        ("refiner_priority", c_uint32),
        ("reserved0", c_uint32),
        ("planner_cpus", c_uint64),
        ("refiner_cpus", c_uint64),
        ("max_observation_age_ns", c_uint64),
        ("engine_timeout_ns", c_uint64),
        ("poll_ns", c_uint64),
        ("reserved", c_uint64 * 4),
    )


class TickInfo(ctypes.Structure):
    """le_tick_info."""

    _fields_ = (
        ("struct_size", c_uint32),
        ("state", c_uint32),
        ("reason", c_uint32),
        ("flags", c_uint32),
        ("step", c_uint64),
        ("chunk", c_uint64),
        ("plan_step", c_int64),
        ("plan_age_steps", c_int64),
        ("observation_timestamp_ns", c_uint64),
        ("observation_age_ns", c_uint64),
        ("clamped_mask", c_uint64),
        ("slowed_mask", c_uint64),
        ("clamped_count", c_uint32),
        ("queue_steps", c_uint32),
        ("realtime_asked", c_uint32),
        ("realtime_got", c_uint32),
        ("chunks_seen", c_uint64),
        ("reserved", c_uint64 * 4),
    )


class Histogram(ctypes.Structure):
    """le_histogram."""

    _fields_ = (
        ("count", c_uint64),
        ("sum", c_uint64),
        ("max", c_uint64),
        ("p50", c_uint64),
        ("p90", c_uint64),
        ("p99", c_uint64),
        ("p999", c_uint64),
        ("octaves", c_uint64 * 64),
    )


class StatsInfo(ctypes.Structure):
    """le_stats_info."""

    _fields_ = (
        ("struct_size", c_uint32),
        ("reserved0", c_uint32),
        ("tick_ns", Histogram),
        ("planner_ns", Histogram),
        ("refiner_ns", Histogram),
        ("plan_age_steps", Histogram),
        ("queue_steps", Histogram),
        ("ticks", c_uint64),
        ("running_ticks", c_uint64),
        ("hold_ticks", c_uint64),
        ("fault_ticks", c_uint64),
        ("holds", c_uint64),
        ("faults", c_uint64),
        ("underruns", c_uint64),
        ("clamped_ticks", c_uint64),
        ("slowed_ticks", c_uint64),
        ("plans", c_uint64),
        ("dropped_plans", c_uint64),
        ("chunks", c_uint64),
        ("dropped_chunks", c_uint64),
        ("hold_reason_ticks", c_uint64 * 16),
        ("reserved", c_uint64 * 4),
    )


_ERROR = (c_char_p, c_uint32)
_TOKENS = (c_void_p, c_uint32)
_PROTOTYPES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "le_abi_version": (c_uint32, ()),
    "le_version_string": (c_char_p, ()),
    "le_status_name": (c_char_p, (c_int32,)),
    "le_open": (c_int32, (POINTER(OpenOptions), POINTER(c_void_p), *_ERROR)),
    "le_info": (c_int32, (c_void_p, POINTER(PolicyInfo))),
    "le_set_instruction": (c_int32, (c_void_p, *_TOKENS, *_ERROR)),
    "le_observe": (c_int32, (c_void_p, POINTER(Observation), *_ERROR)),
    "le_step": (c_int32, (c_void_p, POINTER(c_float), c_uint32, POINTER(StepInfo), *_ERROR)),
    "le_reset": (c_int32, (c_void_p, c_uint64)),
    "le_plan": (
        c_int32,
        (c_void_p, POINTER(Observation), *_TOKENS, c_void_p, c_void_p, c_uint64, *_ERROR),
    ),
    "le_refine": (
        c_int32,
        (c_void_p, POINTER(Observation), c_void_p, c_void_p, c_void_p, c_uint64, *_ERROR),
    ),
    "le_noise": (c_int32, (c_uint64, c_uint64, c_void_p, c_uint64)),
    "le_start": (c_int32, (c_void_p, POINTER(RunOptions), *_ERROR)),
    "le_stop": (c_int32, (c_void_p,)),
    "le_tick": (c_int32, (c_void_p, c_uint64, POINTER(c_float), c_uint32, POINTER(TickInfo))),
    "le_set_chunks_per_plan": (c_int32, (c_void_p, c_uint32)),
    "le_work": (c_int32, (c_void_p, c_uint32, POINTER(c_uint32))),
    "le_last_plan": (c_int32, (c_void_p, c_void_p, c_uint64)),
    "le_stats": (c_int32, (c_void_p, POINTER(StatsInfo))),
    "le_fault_text": (c_int32, (c_void_p, c_char_p, c_uint32)),
    "le_destroy": (None, (c_void_p,)),
}

# Not in the libraries of the first releases, which have the same ABI version.
ADDED_WITH_ASYNC = frozenset(
    {
        "le_start",
        "le_stop",
        "le_tick",
        "le_set_chunks_per_plan",
        "le_work",
        "le_last_plan",
        "le_stats",
        "le_fault_text",
    }
)


def load_library(path: Path) -> ctypes.CDLL:
    """Load a library that is known to be the right one, and declare its functions.

    Raises:
        IncompatibleError: it cannot be loaded here, or has another ABI version.
    """
    try:
        library = ctypes.CDLL(str(path.resolve()))
    except OSError as error:
        raise IncompatibleError(
            "library-not-loadable",
            f"{path} cannot be loaded on this machine: {error}.",
            "Compile the policy for a target of this machine's architecture and glibc.",
        ) from None
    for name, (result, arguments) in _PROTOTYPES.items():
        function = getattr(library, name, None)
        if function is None and name in ADDED_WITH_ASYNC:
            continue  # a release from before still runs in sync mode
        if function is None:
            raise IncompatibleError(
                "library-not-loadable",
                f"{path} has no {name}: it is not the runtime of a release.",
                "Compile the policy again.",
            )
        function.restype, function.argtypes = result, arguments
    if library.le_abi_version() != ABI_VERSION:
        raise IncompatibleError(
            "abi-mismatch",
            f"{path} has ABI version {library.le_abi_version()}, this program {ABI_VERSION}.",
            "Use the libra-edge version that made the release.",
        )
    return library


def load_release_library(release_dir: Path) -> ctypes.CDLL:
    """Load a release's own library, after checking its SHA-256 against the manifest.

    Raises:
        InputError: the folder is not a release.
        IntegrityError: the manifest is damaged, or the library is not the one it names.
        IncompatibleError: the release is for another architecture or ABI version.
    """
    runtime, sha256 = _read_manifest(release_dir)
    here = f"{platform.machine()}-linux-gnu"
    if runtime.get("arch") != here:
        raise IncompatibleError(
            "arch-mismatch",
            f"{release_dir} is compiled for {runtime.get('arch')}, this machine is {here}.",
            "Compile the policy for a target of this architecture.",
        )
    library = release_dir / LIBRARY_MEMBER
    found = hashlib.sha256(library.read_bytes()).hexdigest() if library.is_file() else "missing"
    if found != sha256:
        raise IntegrityError(
            "member-changed",
            f"{LIBRARY_MEMBER} of {release_dir} is not the file its manifest names.",
            "Copy the release again; do not run this one.",
        )
    return load_library(library)


def _read_manifest(release_dir: Path) -> tuple[dict[str, Any], str]:
    """The `runtime` section, and the library's SHA-256."""
    path = release_dir / "manifest.json"
    if not path.is_file():
        raise InputError(
            "not-a-release",
            f"{release_dir} has no manifest.json.",
            "Name a release directory; unpack a .libra file first.",
        )
    try:
        with path.open("rb") as file:
            manifest = json.loads(file.read(_MOST_MANIFEST_BYTES))
        return dict(manifest["runtime"]), str(manifest["members"][LIBRARY_MEMBER]["sha256"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise IntegrityError(
            "manifest-malformed",
            f"{path} is not a release manifest ({type(error).__name__}).",
            "Copy the release again.",
        ) from None


_INCOMPATIBLE = {
    ABI_MISMATCH: "Use the libra-edge version that made the release, or compile the policy again.",
    INCOMPATIBLE: "Compile the policy for this target and version.",
    WRONG_ARCHITECTURE: "Compile the policy for a target of this machine's architecture.",
    NO_PROVIDER: "Compile the policy for a target whose execution provider this machine has.",
}


def raise_status(status: int, name: str, text: str) -> NoReturn:
    """Turn a status of the C ABI into the Python error of the same meaning."""
    code = name.removeprefix("LE_").lower().replace("_", "-")
    if status == INVALID_ARGUMENT:
        raise InputError(code, text, "Match the sizes and ranges that the release names.")
    if status in _INCOMPATIBLE:
        raise IncompatibleError(code, text, _INCOMPATIBLE[status])
    if status in (IO, MALFORMED, INTEGRITY):
        raise IntegrityError(code, text, "Copy the release again; do not run this one.")
    if status == INTERNAL:
        raise RuntimeError(f"liblibra_edge: {text}")
    remedies = {
        ENGINE: "Run `libra-edge verify` on the release and compile it again.",
        NOT_FINITE: "Find where the NaN or infinity comes from, then reset the policy.",
        NO_MEMORY: "Free memory, or use a smaller policy.",
    }
    raise LibraError(code, text, remedies.get(status, "Report this as a bug."))
