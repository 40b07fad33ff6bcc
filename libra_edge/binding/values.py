"""What goes in and out of `Policy` besides arrays, and how it maps to `libra_edge.h`."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from libra_edge.binding import abi
from libra_edge.bundle.manifest import Manifest
from libra_edge.bundle.time_structure import contract_of
from libra_edge.errors import InputError
from libra_edge.policy.executor import State

Floats = npt.NDArray[np.float32]
Tokens = npt.NDArray[np.int32]
Images = npt.NDArray[np.uint8]
Instruction = npt.NDArray[np.int64]
_FLAGS = {
    "planner_ran": abi.PLANNER_RAN,
    "refiner_ran": abi.REFINER_RAN,
    "clamped": abi.CLAMPED,
    "slowed": abi.SLOWED,
    "no_command": abi.NO_COMMAND,
}


@dataclass(frozen=True)
class PolicyInfo:
    """What a release is; sizes as in `libra_edge.h`."""

    name: str
    target: str
    recipe: str
    arch: str
    library_version: str
    onnxruntime_version: str
    manifest_sha256: str
    bins: int
    chunk: int
    chunks_per_plan: int
    plan_steps: int
    denoise_steps: int
    action_dim: int
    state_dim: int
    cameras: int
    image_height: int
    image_width: int
    instruction_length: int
    threads: int
    control_hz: float
    predicted: int
    observation_steps: int
    noise_count: int
    vocabulary: int
    parity_failed: bool
    parity_not_measured: bool
    random_weights: bool


@dataclass(frozen=True)
class EngineInfo:
    """One engine of an open release, and what it runs on.

    status: of `abi.ENGINES`; provider: ONNX Runtime's name of it; device, driver,
    device_memory_bytes: of the GPU, where it runs on one.
    """

    status: str
    provider: str
    device: str
    driver: str
    device_memory_bytes: int


@dataclass(frozen=True)
class StepInfo:
    """What happened in one control step; `plan_step` and `plan_age_steps` are -1 without a plan."""

    step: int
    chunk: int
    state: State
    reason: str
    detail: str
    plan_step: int
    plan_age_steps: int
    planner_ran: bool
    refiner_ran: bool
    clamped: bool
    clamped_mask: int
    clamped_count: int
    slowed: bool
    no_command: bool
    observation_timestamp_ns: int
    observation_age_ns: int
    planner_duration_ns: int
    refiner_duration_ns: int


@dataclass(frozen=True)
class RunOptions:
    """How async mode runs: `le_run_options`. None chooses the library's default.

    `manual` starts no threads: the caller runs the engines through `Policy.work`.
    """

    chunks_per_plan: int | None = None
    refill_at: int | None = None
    refine_ahead_steps: int | None = None
    max_plan_age_steps: int | None = None
    blend: Literal["none", "linear", "freeze"] = "none"
    blend_steps: int = 0
    frozen_steps: int = 0
    max_observation_age_s: float | None = None
    engine_timeout_s: float | None = None
    poll_s: float | None = None
    planner_priority: int | None = None
    refiner_priority: int | None = None
    planner_cpus: frozenset[int] = frozenset()
    refiner_cpus: frozenset[int] = frozenset()
    lock_memory: bool = False
    manual: bool = False


@dataclass(frozen=True)
class TickInfo:
    """What happened in one tick: `le_tick_info`; -1 where there is no plan.

    `seen_steps`: control steps since the observation that the action's chunk was made from, counted
    with its own; 0 where there is none, or the library does not tell.
    """

    step: int
    chunk: int
    state: State
    reason: str
    plan_step: int
    plan_age_steps: int
    clamped: bool
    clamped_mask: int
    clamped_count: int
    slowed: bool
    slowed_mask: int
    no_command: bool
    observation_timestamp_ns: int
    observation_age_ns: int
    queue_steps: int
    chunks_seen: int
    seen_steps: int
    realtime_asked: frozenset[str]
    realtime_got: frozenset[str]


def open_options(release_dir: Path, seed: int, threads: int) -> abi.OpenOptions:
    """`le_open_options` that every library takes."""
    return abi.OpenOptions(
        abi_version=abi.ABI_VERSION,
        release_dir=os.fsencode(release_dir),
        seed=unsigned("seed", seed, 64),
        threads=unsigned("threads", threads, 32),
    )


def set_limits(
    options: abi.OpenOptions, failed: bool, random_weights: bool, max_age_s: float | None
) -> None:
    """What may be opened all the same, and how old an observation may be in sync mode."""
    options.flags = abi.ALLOW_FAILED * failed | abi.ALLOW_RANDOM_WEIGHTS * random_weights
    age_ns = round((max_age_s or 0) * 1e9)
    options.max_observation_age_ns = unsigned("max_observation_age_s", age_ns, 63)


def shapes(manifest: Manifest) -> dict[str, tuple[int, ...]]:
    """Shapes of the arrays that a policy takes and gives, by name.

    images, state: of one observation; seen images, seen state: what an engine looks at; without a
    planner, plan and intent are [0, D].
    """
    policy, robot = manifest.policy, manifest.embodiment
    dims, steps = len(robot.actions), policy.observation_steps
    back = (steps,) if steps > 1 else ()
    return {
        "images": robot.image_shape,
        "state": (len(robot.state),),
        "seen images": (*back, *robot.image_shape),
        "seen state": (*back, len(robot.state)),
        "instruction": (policy.instruction_length,),
        "plan": (policy.plan_steps if policy.plans else 0, dims),
        "intent": (policy.chunk if policy.plans else 0, dims),
        "noise": contract_of(manifest).noise_shape,
        "actions": (policy.rows, dims),
    }


def policy_info(raw: abi.PolicyInfo, library_version: str) -> PolicyInfo:
    """The structure as the library filled it in."""
    names = {field.name for field in fields(PolicyInfo)}
    found = {name: getattr(raw, name) for name, *_ in raw._fields_ if name in names}
    found |= {name: text.decode() for name, text in found.items() if isinstance(text, bytes)}
    return PolicyInfo(
        **found | {"manifest_sha256": bytes(raw.manifest_sha256).hex()},
        library_version=library_version,
        parity_failed=bool(raw.flags & abi.PARITY_FAILED),
        parity_not_measured=bool(raw.flags & abi.PARITY_NOT_MEASURED),
        random_weights=bool(raw.flags & abi.RANDOM_WEIGHTS),
    )


def engine_info(raw: abi.EngineInfo) -> EngineInfo:
    """The structure as the library filled it in."""
    texts = {name: getattr(raw, name).decode() for name in ("provider", "device", "driver")}
    memory = raw.device_memory_bytes
    return EngineInfo(abi.ENGINES[raw.status], **texts, device_memory_bytes=memory)


def run_options(options: RunOptions) -> abi.RunOptions:
    """`le_run_options`; its 0 means the default."""

    def nanoseconds(name: str) -> int:
        return unsigned(name, round((getattr(options, name) or 0) * 1e9), 64)

    def mask(name: str) -> int:
        return unsigned(name, sum(1 << cpu for cpu in getattr(options, name)), 64)

    numbers = ["chunks_per_plan", "refill_at", "refine_ahead_steps", "max_plan_age_steps"]
    numbers += ["blend_steps", "frozen_steps", "planner_priority", "refiner_priority"]
    return abi.RunOptions(
        flags=abi.RUN_LOCK_MEMORY * options.lock_memory | abi.RUN_MANUAL * options.manual,
        blend=abi.BLENDS.index(options.blend),
        max_observation_age_ns=nanoseconds("max_observation_age_s"),
        engine_timeout_ns=nanoseconds("engine_timeout_s"),
        poll_ns=nanoseconds("poll_s"),
        planner_cpus=mask("planner_cpus"),
        refiner_cpus=mask("refiner_cpus"),
        **{name: unsigned(name, getattr(options, name) or 0, 32) for name in numbers},
    )


def _realtime(bits: int) -> frozenset[str]:
    return frozenset(name for bit, name in enumerate(abi.REALTIME) if bits >> bit & 1)


def tick_info(raw: abi.TickInfo) -> TickInfo:
    """The structure as the library filled it in."""
    asked, got = _realtime(raw.realtime_asked), _realtime(raw.realtime_got)
    return TickInfo(**_common(TickInfo, raw) | {"realtime_asked": asked, "realtime_got": got})


def step_info(raw: abi.StepInfo, detail: str) -> StepInfo:
    """The structure as the library filled it in, and its error text."""
    return StepInfo(**_common(StepInfo, raw), detail=detail)


def _common(kind: type[StepInfo | TickInfo], raw: Any) -> dict[str, Any]:
    names = {field.name for field in fields(kind)}
    numbers = {name: getattr(raw, name) for name, *_ in raw._fields_ if name in names}
    flags = {name: bool(raw.flags & bit) for name, bit in _FLAGS.items() if name in names}
    words = {"state": State(raw.state), "reason": abi.REASONS[raw.reason]}
    return {**numbers, **flags, **words}


def array(name: str, value: Any, dtype: Any, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """The array, C-contiguous; nothing is cast or reshaped on the way."""
    if not isinstance(value, np.ndarray) or value.dtype != dtype or value.shape != shape:
        found = (
            f"{value.dtype} {list(value.shape)}"
            if isinstance(value, np.ndarray)
            else type(value).__name__
        )
        raise InputError(
            "array-mismatch",
            f"{name} is {found}; this release takes {np.dtype(dtype)} {list(shape)}.",
            "Hand over what the release was compiled for; `libra-edge inspect` shows it.",
        )
    return np.ascontiguousarray(value)


def unsigned(name: str, value: int, bits: int) -> int:
    """The value, where it fits."""
    if not 0 <= value < 2**bits:
        raise InputError(
            "number-out-of-range",
            f"{name} is {value}; it has to fit an unsigned {bits}-bit number.",
            f"Choose {name} from 0 to 2^{bits} - 1.",
        )
    return value
