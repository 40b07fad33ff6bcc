"""A release run through the C ABI, from Python: what a robot would do, in this process."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt

from libra_edge.bundle.compatibility import CPU, needs_of, require_compatible, this_device
from libra_edge.bundle.manifest import parse_manifest
from libra_edge.bundle.members import MANIFEST, MAX_BYTES
from libra_edge.errors import IncompatibleError, InputError, LibraError
from libra_edge.policy.executor import State
from libra_edge.policy.tokenizer import Tokenizer
from libra_edge.runtime import native, stats

if TYPE_CHECKING:
    from libra_edge.data.types import Observation

Floats = npt.NDArray[np.float32]
Tokens = npt.NDArray[np.int32]
Images = npt.NDArray[np.uint8]
Instruction = npt.NDArray[np.int64]


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
    """What happened in one tick: `le_tick_info`; -1 where there is no plan."""

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
    realtime_asked: frozenset[str]
    realtime_got: frozenset[str]


class Policy:
    """An open release directory; a context manager, and a `Controller` for closed loops.

    Args:
        release_dir: the release, unpacked.
        seed: seed of the refiner's noise until the first `reset`.
        threads: threads of each engine.

    Raises:
        LibraError: the release is not whole, or not for this machine.
    """

    def __init__(self, release_dir: Path, *, seed: int = 0, threads: int = 1) -> None:
        self._handle = ctypes.c_void_p()
        self._error = ctypes.create_string_buffer(native.ERROR_SIZE)
        _require_fits(release_dir)
        self._library = native.load_release_library(release_dir)
        options = native.OpenOptions(
            struct_size=ctypes.sizeof(native.OpenOptions),
            abi_version=native.ABI_VERSION,
            release_dir=os.fsencode(release_dir),
            seed=_unsigned("seed", seed, 64),
            threads=_unsigned("threads", threads, 32),
        )
        self._check(
            self._library.le_open(
                ctypes.byref(options), ctypes.byref(self._handle), *self._error_arguments
            )
        )
        self._instruction: str | None = None
        self.step_info: StepInfo | None = None
        try:
            self.info = self._read_info()
            tokenizer = release_dir / "tokenizer.json"
            self._tokenizer = Tokenizer(tokenizer, self.info.instruction_length)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the engines; harmless when repeated."""
        if self._handle:
            self._library.le_destroy(self._handle)
            self._handle = ctypes.c_void_p()

    def reset(self, seed: int, instruction: str) -> None:
        """Start an episode: step 0, nothing planned, no fault.

        Args:
            seed: seed of the refiner's noise.
            instruction: what to do, in the words the policy was trained on.
        """
        self._check(self._library.le_reset(self._open_handle, _unsigned("seed", seed, 64)))
        self.step_info = None
        self.tell(instruction)

    def act(self, observation: Observation) -> Floats:
        """One control step on the newest observation.

        Returns:
            The action float32 [D], physical units; `step_info` says how it came about.

        Raises:
            LibraError: the policy met a fault; it stays so until `reset`.
        """
        if observation.instruction != self._instruction:
            self.tell(observation.instruction)
        self.observe(observation.images, observation.state)
        action, info = self.step()
        if info.state is not State.RUNNING:
            raise LibraError(
                f"policy-{info.state.name.lower()}",
                f"Step {info.step}: {info.reason}. {info.detail}".rstrip(),
                "Find the cause, then reset the policy.",
            )
        return action

    def tell(self, instruction: str) -> None:
        """Set the instruction in words; the next plan follows it."""
        self.set_instruction(self._tokenizer.encode(instruction))
        self._instruction = instruction

    def set_instruction(self, tokens: Instruction) -> None:
        """Set the instruction as tokens, int64 [T]; the next plan follows it."""
        array = _array("instruction", tokens, np.int64, self._shapes["instruction"])
        self._instruction = None
        self._check(
            self._library.le_set_instruction(
                self._open_handle, array.ctypes.data, array.size, *self._error_arguments
            )
        )

    def observe(self, images: Images, state: Floats, timestamp_ns: int = 0) -> None:
        """Hand over an observation: images uint8 [V, h, w, 3], state float32 [P]."""
        observation = self._observation(images, state, timestamp_ns)
        self._check(
            self._library.le_observe(
                self._open_handle, ctypes.byref(observation), *self._error_arguments
            )
        )

    def step(self) -> tuple[Floats, StepInfo]:
        """One control step as the C ABI gives it: in HOLD and FAULT, the hold action.

        Returns:
            The action float32 [D], physical units, and what happened.
        """
        action = np.empty(self.info.action_dim, dtype=np.float32)
        raw = native.StepInfo(struct_size=ctypes.sizeof(native.StepInfo))
        self._check(
            self._library.le_step(
                self._open_handle,
                action.ctypes.data_as(ctypes.POINTER(ctypes.c_float)),
                action.size,
                ctypes.byref(raw),
                *self._error_arguments,
            )
        )
        self.step_info = _step_info(raw, self._error_text)
        return action, self.step_info

    def start(self, options: RunOptions | None = None) -> None:
        """Begin async mode at step 0: engines in threads of their own, `tick` for `step`."""
        if not hasattr(self._library, "le_start"):
            raise IncompatibleError(
                "release-without-async",
                "The runtime in this release is from before async mode.",
                "Compile the policy again, or use sync mode.",
            )
        raw = _run_options(options or RunOptions())
        self._check(
            self._library.le_start(self._open_handle, ctypes.byref(raw), *self._error_arguments)
        )

    def stop(self) -> None:
        """End async mode, after the engine calls in flight; harmless in sync mode."""
        if not hasattr(self._library, "le_start"):
            return
        self._check(self._library.le_stop(self._open_handle))

    def tick(self, now_ns: int) -> tuple[Floats, TickInfo]:
        """One control step in async mode; returns at once.

        Args:
            now_ns: the present time on the clock of the observations' time stamps.

        Returns:
            The action float32 [D], physical units, and what happened.
        """
        action = np.empty(self.info.action_dim, dtype=np.float32)
        raw = native.TickInfo(struct_size=ctypes.sizeof(native.TickInfo))
        status = self._library.le_tick(
            self._open_handle,
            _unsigned("now_ns", now_ns, 64),
            action.ctypes.data_as(ctypes.POINTER(ctypes.c_float)),
            action.size,
            ctypes.byref(raw),
        )
        if status != native.OK:
            raise InputError(
                "async-mode-off", "tick needs async mode, which is off.", "Call start first."
            )
        return action, _tick_info(raw)

    def work(self, piece: int) -> bool:
        """Do one piece of the threads' work here: `native.PLAN_BEGIN` and so on (`manual` only).

        Returns:
            False where there was nothing to do.
        """
        done = ctypes.c_uint32()
        self._check(self._library.le_work(self._open_handle, piece, ctypes.byref(done)))
        return bool(done.value)

    def set_chunks_per_plan(self, chunks: int) -> None:
        """Use only the first `chunks` chunks of each plan, from the next one on."""
        chunks = _unsigned("chunks", chunks, 32)
        self._check(self._library.le_set_chunks_per_plan(self._open_handle, chunks))

    def stats(self) -> dict[str, Any]:
        """The statistics of async mode since `start`: numbers, and one dict per histogram."""
        raw = native.StatsInfo(struct_size=ctypes.sizeof(native.StatsInfo))
        self._check(self._library.le_stats(self._open_handle, ctypes.byref(raw)))
        return stats.to_dict(raw)

    @property
    def fault_text(self) -> str:
        """A sentence on the latched fault, or nothing."""
        text = ctypes.create_string_buffer(native.ERROR_SIZE)
        self._check(self._library.le_fault_text(self._open_handle, text, native.ERROR_SIZE))
        return text.value.decode(errors="replace")

    def plan(
        self, images: Images, instruction: Instruction, state: Floats
    ) -> tuple[Tokens, Floats]:
        """Run the planner alone: intent int32 [L, D] and margin float32 [L, D]."""
        observation = self._observation(images, state, 0)
        tokens = _array("instruction", instruction, np.int64, self._shapes["instruction"])
        intent = np.empty(self._shapes["plan"], dtype=np.int32)
        margin = np.empty(self._shapes["plan"], dtype=np.float32)
        self._check(
            self._library.le_plan(
                self._open_handle,
                ctypes.byref(observation),
                tokens.ctypes.data,
                tokens.size,
                intent.ctypes.data,
                margin.ctypes.data,
                intent.size,
                *self._error_arguments,
            )
        )
        return intent, margin

    def refine(self, images: Images, state: Floats, intent: Tokens, noise: Floats) -> Floats:
        """Run the refiner alone: intent int32 and noise float32 [H, D] to actions [H, D]."""
        observation = self._observation(images, state, 0)
        intent = _array("intent", intent, np.int32, self._shapes["chunk"])
        noise = _array("noise", noise, np.float32, self._shapes["chunk"])
        actions = np.empty(self._shapes["chunk"], dtype=np.float32)
        self._check(
            self._library.le_refine(
                self._open_handle,
                ctypes.byref(observation),
                intent.ctypes.data,
                noise.ctypes.data,
                actions.ctypes.data,
                actions.size,
                *self._error_arguments,
            )
        )
        return actions

    def noise(self, seed: int, chunk: int) -> Floats:
        """The noise [H, D] that a step after `reset(seed, …)` uses for this chunk."""
        noise = np.empty(self._shapes["chunk"], dtype=np.float32)
        seed, chunk = _unsigned("seed", seed, 64), _unsigned("chunk", chunk, 64)
        self._check(self._library.le_noise(seed, chunk, noise.ctypes.data, noise.size))
        return noise

    def _observation(self, images: Images, state: Floats, timestamp_ns: int) -> native.Observation:
        images = _array("images", images, np.uint8, self._shapes["images"])
        state = _array("state", state, np.float32, self._shapes["state"])
        observation = native.Observation(
            struct_size=ctypes.sizeof(native.Observation),
            state_count=state.size,
            images=images.ctypes.data,
            image_bytes=images.nbytes,
            state=state.ctypes.data,
            timestamp_ns=_unsigned("timestamp_ns", timestamp_ns, 64),
        )
        # ctypes keeps addresses only; the arrays have to live as long as the structure.
        observation.keep_alive = (images, state)
        return observation

    def _read_info(self) -> PolicyInfo:
        raw = native.PolicyInfo(struct_size=ctypes.sizeof(native.PolicyInfo))
        self._check(self._library.le_info(self._handle, ctypes.byref(raw)))
        texts = ("name", "target", "recipe", "arch", "onnxruntime_version")
        skipped = ("struct_size", "abi_version", "manifest_sha256", "reserved", *texts)
        numbers = {name: getattr(raw, name) for name, *_ in raw._fields_ if name not in skipped}
        info = PolicyInfo(
            **{name: getattr(raw, name).decode() for name in texts},
            **numbers,
            library_version=self._library.le_version_string().decode(),
            manifest_sha256=bytes(raw.manifest_sha256).hex(),
        )
        self._shapes: dict[str, tuple[int, ...]] = {
            "images": (info.cameras, info.image_height, info.image_width, 3),
            "state": (info.state_dim,),
            "instruction": (info.instruction_length,),
            "plan": (info.plan_steps, info.action_dim),
            "chunk": (info.chunk, info.action_dim),
        }
        return info

    @property
    def _open_handle(self) -> ctypes.c_void_p:
        if not self._handle:
            raise ValueError("this policy is closed")
        return self._handle

    @property
    def _error_arguments(self) -> tuple[Any, int]:
        return self._error, native.ERROR_SIZE

    @property
    def _error_text(self) -> str:
        return self._error.value.decode(errors="replace")

    def _check(self, status: int) -> None:
        if status != native.OK:
            name = self._library.le_status_name(status).decode()
            native.raise_status(status, name, self._error_text)


def _require_fits(release_dir: Path) -> None:
    """Refuse a release that is not for this machine in a plain sentence, before anything is loaded.

    Raises:
        IncompatibleError: it is not; names every mismatch.
    """
    try:
        with (release_dir / MANIFEST).open("rb") as stream:
            manifest = parse_manifest(stream.read(MAX_BYTES[MANIFEST] + 1))
    except (OSError, LibraError):
        return  # what is wrong with the release, the library says
    # The library in a release runs what ONNX Runtime's own library does.
    require_compatible(needs_of(manifest), this_device(frozenset({CPU})))


def _run_options(options: RunOptions) -> native.RunOptions:
    def nanoseconds(name: str) -> int:
        return _unsigned(name, round((getattr(options, name) or 0) * 1e9), 64)

    def mask(name: str) -> int:
        return _unsigned(name, sum(1 << cpu for cpu in getattr(options, name)), 64)

    numbers = ["chunks_per_plan", "refill_at", "refine_ahead_steps", "max_plan_age_steps"]
    numbers += ["blend_steps", "frozen_steps", "planner_priority", "refiner_priority"]
    return native.RunOptions(
        struct_size=ctypes.sizeof(native.RunOptions),
        flags=native.RUN_LOCK_MEMORY * options.lock_memory | native.RUN_MANUAL * options.manual,
        blend=native.BLENDS.index(options.blend),
        max_observation_age_ns=nanoseconds("max_observation_age_s"),
        engine_timeout_ns=nanoseconds("engine_timeout_s"),
        poll_ns=nanoseconds("poll_s"),
        planner_cpus=mask("planner_cpus"),
        refiner_cpus=mask("refiner_cpus"),
        **{name: _unsigned(name, getattr(options, name) or 0, 32) for name in numbers},
    )


def _realtime(bits: int) -> frozenset[str]:
    return frozenset(name for bit, name in enumerate(native.REALTIME) if bits >> bit & 1)


def _tick_info(raw: native.TickInfo) -> TickInfo:
    return TickInfo(
        step=raw.step,
        chunk=raw.chunk,
        state=State(raw.state),
        reason=native.REASONS[raw.reason],
        plan_step=raw.plan_step,
        plan_age_steps=raw.plan_age_steps,
        clamped=bool(raw.flags & native.CLAMPED),
        clamped_mask=raw.clamped_mask,
        clamped_count=raw.clamped_count,
        slowed=bool(raw.flags & native.SLOWED),
        slowed_mask=raw.slowed_mask,
        no_command=bool(raw.flags & native.NO_COMMAND),
        observation_timestamp_ns=raw.observation_timestamp_ns,
        observation_age_ns=raw.observation_age_ns,
        queue_steps=raw.queue_steps,
        chunks_seen=raw.chunks_seen,
        realtime_asked=_realtime(raw.realtime_asked),
        realtime_got=_realtime(raw.realtime_got),
    )


def _step_info(raw: native.StepInfo, detail: str) -> StepInfo:
    return StepInfo(
        step=raw.step,
        chunk=raw.chunk,
        state=State(raw.state),
        reason=native.REASONS[raw.reason],
        detail=detail,
        plan_step=raw.plan_step,
        plan_age_steps=raw.plan_age_steps,
        planner_ran=bool(raw.flags & native.PLANNER_RAN),
        refiner_ran=bool(raw.flags & native.REFINER_RAN),
        clamped=bool(raw.flags & native.CLAMPED),
        clamped_mask=raw.clamped_mask,
        clamped_count=raw.clamped_count,
        slowed=bool(raw.flags & native.SLOWED),
        no_command=bool(raw.flags & native.NO_COMMAND),
        observation_timestamp_ns=raw.observation_timestamp_ns,
        planner_duration_ns=raw.planner_duration_ns,
        refiner_duration_ns=raw.refiner_duration_ns,
    )


def _array(name: str, value: Any, dtype: Any, shape: tuple[int, ...]) -> npt.NDArray[Any]:
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


def _unsigned(name: str, value: int, bits: int) -> int:
    if not 0 <= value < 2**bits:
        raise InputError(
            "number-out-of-range",
            f"{name} is {value}; it has to fit an unsigned {bits}-bit number.",
            f"Choose {name} from 0 to 2^{bits} - 1.",
        )
    return value
