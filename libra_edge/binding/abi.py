"""`libra_edge.h` in ctypes: numbers, structures and prototypes."""

from __future__ import annotations

import ctypes
import re
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
from typing import Any

ABI_VERSION = 1
ERROR_SIZE = 512

OK, INVALID_ARGUMENT, ABI_MISMATCH, IO, MALFORMED, INTEGRITY = range(6)
INCOMPATIBLE, ENGINE, NOT_FINITE, NO_MEMORY, INTERNAL = range(6, 11)
WRONG_ARCHITECTURE, NO_PROVIDER, UNPROVEN = range(11, 14)
NO_DRIVER, DRIVER_TOO_OLD, NO_DEVICE, SEVERAL_DEVICES = range(14, 18)
WRONG_DEVICE, DEVICE_TOO_SMALL, ENGINE_MISMATCH, ENGINE_REFUSED = range(18, 22)
ALLOW_FAILED, ALLOW_RANDOM_WEIGHTS = 1, 2
PARITY_FAILED, RANDOM_WEIGHTS, PARITY_NOT_MEASURED = 1, 2, 4
PLANNER, REFINER = 0, 1
ENGINES = ("none", "graph", "compiled", "built here")
KINDS = ("none", "absolute", "delta", "gripper")
DIM_FAULTS = 1

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

# Why `refine_ahead_steps` is what it is.
AHEAD_REASONS = (
    "not told by this library",
    "asked for",
    "no refiner call measured yet",
    "the refiner's p99",
    "the refiner's p99 with the planner beside it",
    "the refiner's p99 is more than a chunk",
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


_TYPES: dict[str, Any] = {
    "u8": c_uint8,
    "u32": c_uint32,
    "u64": c_uint64,
    "i64": c_int64,
    "f32": c_float,
    "f64": c_double,
    "text": c_char_p,
    "address": c_void_p,
}


def _fields(*groups: str) -> tuple[tuple[str, Any], ...]:
    """Fields as ctypes takes them, from groups like `u32: one two` and `u64: three[4]`."""
    found = []
    for group in groups:
        kind, names = group.split(":")
        for name, count in re.findall(r"(\w+)(?:\[(\d+)\])?", names):
            found.append((name, _TYPES[kind] * int(count) if count else _TYPES[kind]))
    return tuple(found)


class _Sized(ctypes.Structure):
    """A structure that begins with its own size."""

    def __init__(self, **values: Any) -> None:
        super().__init__(**{"struct_size": ctypes.sizeof(self), **values})


class OpenOptions(_Sized):
    """le_open_options."""

    _fields_ = _fields(
        "u32: struct_size abi_version",
        "text: release_dir",
        "u64: seed",
        "u32: threads flags",
        "text: engines_dir cache_dir",
        "u64: reserved[1] max_observation_age_ns",
    )


class PolicyInfo(_Sized):
    """le_policy_info."""

    _fields_ = _fields(
        "u32: struct_size abi_version bins chunk chunks_per_plan plan_steps denoise_steps",
        "u32: action_dim state_dim cameras image_height image_width instruction_length",
        "u32: threads",
        "f64: control_hz",
        "text: name target recipe arch onnxruntime_version",
        "u8: manifest_sha256[32]",
        "u32: predicted observation_steps",
        "u64: noise_count",
        "u32: flags vocabulary pad_token unknown_token",
    )


class EngineInfo(_Sized):
    """le_engine_info."""

    _fields_ = _fields(
        "u32: struct_size status",
        "text: provider device driver",
        "u64: device_memory_bytes reserved[4]",
    )


class DimInfo(_Sized):
    """le_dim_info."""

    _fields_ = _fields(
        "u32: struct_size kind",
        "text: name unit",
        "f32: lower upper max_step_change max_acceleration",
        "u32: flags reserved0",
        "u64: reserved[3]",
        "f32: max_jerk",
        "u32: reserved1",
    )


class Observation(_Sized):
    """le_observation."""

    _fields_ = _fields(
        "u32: struct_size state_count",
        "address: images",
        "u64: image_bytes",
        "address: state",
        "u64: timestamp_ns reserved[4]",
    )


class StepInfo(_Sized):
    """le_step_info."""

    _fields_ = _fields(
        "u32: struct_size state reason flags",
        "u64: step chunk",
        "i64: plan_step plan_age_steps",
        "u64: observation_timestamp_ns planner_duration_ns refiner_duration_ns clamped_mask",
        "u32: clamped_count reserved0",
        "u64: reserved[3] observation_age_ns",
    )


class RunOptions(_Sized):
    """le_run_options."""

    _fields_ = _fields(
        "u32: struct_size flags chunks_per_plan refill_at refine_ahead_steps",
        "u32: max_plan_age_steps blend blend_steps frozen_steps planner_priority",
        "u32: refiner_priority reserved0",
        "u64: planner_cpus refiner_cpus max_observation_age_ns engine_timeout_ns poll_ns",
        "u64: reserved[4]",
    )


class TickInfo(_Sized):
    """le_tick_info."""

    _fields_ = _fields(
        "u32: struct_size state reason flags",
        "u64: step chunk",
        "i64: plan_step plan_age_steps",
        "u64: observation_timestamp_ns observation_age_ns clamped_mask slowed_mask",
        "u32: clamped_count queue_steps realtime_asked realtime_got",
        "u64: chunks_seen reserved[3] seen_steps",
    )


class Histogram(ctypes.Structure):
    """le_histogram."""

    _fields_ = _fields(
        "u64: count sum max p50 p90 p99 p999 octaves[64]",
    )


_TYPES["histogram"] = Histogram


class StatsInfo(_Sized):
    """le_stats_info."""

    _fields_ = _fields(
        "u32: struct_size reserved0",
        "histogram: tick_ns planner_ns refiner_ns plan_age_steps queue_steps",
        "u64: ticks running_ticks hold_ticks fault_ticks holds faults underruns clamped_ticks",
        "u64: slowed_ticks plans dropped_plans chunks dropped_chunks hold_reason_ticks[16]",
        "u64: reserved[2]",
        "u32: refine_ahead_steps refine_ahead_reason",
        "u64: refiner_p99_steps",
    )


_ERROR = (c_char_p, c_uint32)
_TOKENS = (c_void_p, c_uint32)
PROTOTYPES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "le_abi_version": (c_uint32, ()),
    "le_version_string": (c_char_p, ()),
    "le_status_name": (c_char_p, (c_int32,)),
    "le_open": (c_int32, (POINTER(OpenOptions), POINTER(c_void_p), *_ERROR)),
    "le_build_engines": (c_int32, (POINTER(OpenOptions), *_ERROR)),
    "le_info": (c_int32, (c_void_p, POINTER(PolicyInfo))),
    "le_engine": (c_int32, (c_void_p, c_uint32, POINTER(EngineInfo))),
    "le_camera_name": (c_char_p, (c_void_p, c_uint32)),
    "le_camera_size": (c_int32, (c_void_p, c_uint32, POINTER(c_uint32), POINTER(c_uint32))),
    "le_state_dim": (c_int32, (c_void_p, c_uint32, POINTER(DimInfo))),
    "le_action_dim": (c_int32, (c_void_p, c_uint32, POINTER(DimInfo))),
    "le_tokenize": (c_int32, (c_void_p, c_char_p, *_TOKENS, *_ERROR)),
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
ADDED_LATER = frozenset(
    {
        "le_build_engines",
        "le_camera_name",
        "le_camera_size",
        "le_engine",
        "le_state_dim",
        "le_action_dim",
        "le_tokenize",
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
