"""A release run through the C ABI, from Python: what a robot would do, in this process."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import numpy as np

from libra_edge.binding import abi, stats, values
from libra_edge.binding.handle import Handle
from libra_edge.binding.values import (
    EngineInfo,
    Floats,
    Images,
    Instruction,
    RunOptions,
    StepInfo,
    TickInfo,
    Tokens,
)
from libra_edge.errors import IncompatibleError, InputError, LibraError
from libra_edge.policy.executor import State

if TYPE_CHECKING:
    from libra_edge.data.types import Observation


class Policy(Handle):
    """An open release; a context manager, and a `Controller` for closed loops.

    Args:
        release_dir: the release: a directory, or a `.libra` file, which is unpacked into the cache.
        seed: seed of the refiner's noise until the first `reset`.
        threads: threads of each engine.
        allow_failed: open a release that failed its parity checks; `info.parity_failed` tells.
        allow_random_weights: open one that was never trained; `info.random_weights` tells.
        max_observation_age_s: an older observation means HOLD in sync mode; default: 0.5.
        engines_dir: engines that were built on this machine (`libra-edge provision`), to run in the
            place of the release's own.
        cache_dir: folder in which a GPU's provider may keep what the driver compiles here.

    Raises:
        LibraError: the release is not whole, not proven, or not for this machine.
    """

    def engine(self, name: str) -> EngineInfo:
        """What runs `planner` or `refiner`, and on what.

        Raises:
            IncompatibleError: the library of the release does not tell.
        """
        if not hasattr(self._library, "le_engine"):
            raise IncompatibleError(
                "engine-not-told",
                "The library in this release does not tell what its engines run on.",
                "Compile the policy again with this libra-edge.",
            )
        raw = abi.EngineInfo()
        number = abi.PLANNER if name == "planner" else abi.REFINER
        self._check(self._library.le_engine(self._open_handle, number, ctypes.byref(raw)))
        return values.engine_info(raw)

    def reset(self, seed: int, instruction: str) -> None:
        """Start an episode: step 0, nothing planned, no fault.

        Args:
            seed: seed of the refiner's noise.
            instruction: what to do, in the words the policy was trained on.
        """
        self.restart(seed)
        self.tell(instruction)

    def restart(self, seed: int) -> None:
        """`reset` that keeps the instruction."""
        self._check(self._library.le_reset(self._open_handle, values.unsigned("seed", seed, 64)))
        self.step_info = None

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
        """Set the instruction in words; the next plan follows it.

        A policy that takes no instruction does the one thing that it was trained for.
        """
        if self._tokenizer is not None:
            self.set_instruction(self._tokenizer.encode(instruction))
        self._instruction = instruction

    def set_instruction(self, tokens: Instruction) -> None:
        """Set the instruction as tokens, int64 [T]; the next plan follows it."""
        array = values.array("instruction", tokens, np.int64, self._shapes["instruction"])
        self._instruction = None
        self._check(
            self._library.le_set_instruction(
                self._open_handle, array.ctypes.data, array.size, *self._error_arguments
            )
        )

    def observe(self, images: Images, state: Floats, timestamp_ns: int = 0) -> None:
        """Hand over an observation: images uint8 [V, h, w, 3], state float32 [P].

        Where cameras differ in size, images [bytes] holds them one after another.
        """
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
        raw = abi.StepInfo()
        self._check(
            self._library.le_step(
                self._open_handle,
                action.ctypes.data_as(ctypes.POINTER(ctypes.c_float)),
                action.size,
                ctypes.byref(raw),
                *self._error_arguments,
            )
        )
        self.step_info = values.step_info(raw, self._error_text)
        return action, self.step_info

    def start(self, options: RunOptions | None = None) -> None:
        """Begin async mode at step 0: engines in threads of their own, `tick` for `step`."""
        if not hasattr(self._library, "le_start"):
            raise IncompatibleError(
                "release-without-async",
                "The runtime in this release is from before async mode.",
                "Compile the policy again, or use sync mode.",
            )
        raw = values.run_options(options or RunOptions())
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
        raw = abi.TickInfo()
        status = self._library.le_tick(
            self._open_handle,
            values.unsigned("now_ns", now_ns, 64),
            action.ctypes.data_as(ctypes.POINTER(ctypes.c_float)),
            action.size,
            ctypes.byref(raw),
        )
        if status != abi.OK:
            raise InputError(
                "async-mode-off", "tick needs async mode, which is off.", "Call start first."
            )
        return action, values.tick_info(raw)

    def work(self, piece: int) -> bool:
        """Do one piece of the threads' work here: `abi.PLAN_BEGIN` and so on (`manual` only).

        Returns:
            False where there was nothing to do.
        """
        done = ctypes.c_uint32()
        self._check(self._library.le_work(self._open_handle, piece, ctypes.byref(done)))
        return bool(done.value)

    def last_plan(self) -> Tokens:
        """The intents int32 [L, D] of the newest planner call, in sync mode or by `work`.

        Raises:
            IncompatibleError: the release is from before this function.
            InputError: there was no such call.
        """
        if not hasattr(self._library, "le_last_plan"):
            raise IncompatibleError(
                "release-without-last-plan",
                "The runtime in this release cannot tell its plans.",
                "Compile the policy again.",
            )
        intent = np.empty(self._shapes["plan"], dtype=np.int32)
        self._check(self._library.le_last_plan(self._open_handle, intent.ctypes.data, intent.size))
        return intent

    def set_chunks_per_plan(self, chunks: int) -> None:
        """Use only the first `chunks` chunks of each plan, from the next one on."""
        chunks = values.unsigned("chunks", chunks, 32)
        self._check(self._library.le_set_chunks_per_plan(self._open_handle, chunks))

    def stats(self) -> dict[str, Any]:
        """The statistics of async mode since `start`: numbers, and one dict per histogram."""
        raw = abi.StatsInfo()
        self._check(self._library.le_stats(self._open_handle, ctypes.byref(raw)))
        return stats.to_dict(raw)

    @property
    def fault_text(self) -> str:
        """A sentence on the latched fault, or nothing."""
        text = ctypes.create_string_buffer(abi.ERROR_SIZE)
        self._check(self._library.le_fault_text(self._open_handle, text, abi.ERROR_SIZE))
        return text.value.decode(errors="replace")

    def plan(
        self, images: Images, instruction: Instruction, state: Floats
    ) -> tuple[Tokens, Floats]:
        """Run the planner alone: intent int32 [L, D] and margin float32 [L, D].

        Without a planner both are [0, D].
        """
        if self.info.bins == 0:
            return np.empty(self._shapes["plan"], np.int32), np.empty(self._shapes["plan"], "f4")
        observation = self._observation(images, state, 0)
        tokens = values.array("instruction", instruction, np.int64, self._shapes["instruction"])
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

    def refine(
        self,
        images: Images,
        state: Floats,
        intent: Tokens,
        noise: Floats,
        instruction: Instruction | None = None,
    ) -> Floats:
        """Run the refiner alone: intent int32 and noise float32 [H, D] to actions [H, D].

        Without a planner: images [S, ...] and state [S, P] of the last S control steps (no such
        axis where S = 1), intent [0, D], noise in its own shape, and the instruction int64 [T] if
        there is one, which is then the policy's.
        """
        if self.info.bins == 0 and self.info.instruction_length and instruction is not None:
            self.set_instruction(instruction)
        observation = self._observation(images, state, 0, "seen ")
        if self.info.bins:
            intent = values.array("intent", intent, np.int32, self._shapes["intent"])
        noise = values.array("noise", noise, np.float32, self._shapes["noise"])
        actions = np.empty(self._shapes["actions"], dtype=np.float32)
        self._check(
            self._library.le_refine(
                self._open_handle,
                ctypes.byref(observation),
                intent.ctypes.data if self.info.bins else None,
                noise.ctypes.data if noise.size else None,
                actions.ctypes.data,
                actions.size,
                *self._error_arguments,
            )
        )
        return actions

    def noise(self, seed: int, chunk: int) -> Floats:
        """The noise [H, D] that a step after `reset(seed, …)` uses for this chunk."""
        noise = np.empty(self._shapes["noise"], dtype=np.float32)
        seed, chunk = values.unsigned("seed", seed, 64), values.unsigned("chunk", chunk, 64)
        self._check(self._library.le_noise(seed, chunk, noise.ctypes.data, noise.size))
        return noise

    def _observation(
        self, images: Images, state: Floats, timestamp_ns: int, which: str = ""
    ) -> abi.Observation:
        images = values.array("images", images, np.uint8, self._shapes[f"{which}images"])
        state = values.array("state", state, np.float32, self._shapes[f"{which}state"])
        observation = abi.Observation(
            state_count=state.size,
            images=images.ctypes.data,
            image_bytes=images.nbytes,
            state=state.ctypes.data,
            timestamp_ns=values.unsigned("timestamp_ns", timestamp_ns, 64),
        )
        # ctypes keeps addresses only; the arrays have to live as long as the structure.
        observation.keep_alive = (images, state)
        return observation
