"""The C ABI as it is, call by call: statuses and structures, nothing checked on the way."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

import numpy as np

from libra_edge.binding import abi
from libra_edge.verification.native.async_parts import Options
from libra_edge.verification.native.counters import Counters
from libra_edge.verification.native.probe import Contract, Floats, Images, Numbers
from libra_edge.verification.native.reference import Outcome

# What an output holds before a call; one that fails has to leave it.
UNTOUCHED = np.float32(-12345.5)


class Refused(Exception):
    """`le_open` gave another status than LE_OK."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"status {status}: {text}")
        self.status, self.text = status, text


class Native:
    """One open release.

    Args:
        library: the release's, loaded.
        release: its folder.
        contract: sizes of arrays.
        options: fields of `le_open_options`, over the usual ones.

    Raises:
        Refused: the library does not open it.
    """

    def __init__(
        self, library: ctypes.CDLL, release: Path, contract: Contract, **options: Any
    ) -> None:
        self.library, self._contract = library, contract
        self._handle = ctypes.c_void_p()
        self._text = ctypes.create_string_buffer(abi.ERROR_SIZE)
        usual = {"abi_version": abi.ABI_VERSION, "threads": 1}
        raw = abi.OpenOptions(**{"release_dir": os.fsencode(release), **usual, **options})
        status = library.le_open(ctypes.byref(raw), ctypes.byref(self._handle), *self._error)
        if status != abi.OK:
            raise Refused(status, self.text)

    def close(self) -> None:
        """Destroy it; harmless when repeated."""
        self.library.le_destroy(self._handle)
        self._handle = ctypes.c_void_p()

    @property
    def handle(self) -> ctypes.c_void_p:
        """For calls that are not here."""
        return self._handle

    @property
    def text(self) -> str:
        """The error text of the last call that takes one."""
        return self._text.value.decode(errors="replace")

    @property
    def _error(self) -> tuple[Any, int]:
        return self._text, abi.ERROR_SIZE

    def observe(self, images: Images, state: Floats, stamp: int) -> Outcome:
        """le_observe."""
        # Copies, changed afterwards: the library must not keep the pointers.
        seen, place = images.copy(), state.copy()
        raw = observation(seen, place, stamp)
        status = self.library.le_observe(self._handle, ctypes.byref(raw), *self._error)
        seen[:], place[:] = 255 - seen, -place
        return {"status": status}

    def set_instruction(self, tokens: Numbers) -> Outcome:
        """le_set_instruction."""
        words = np.ascontiguousarray(tokens, dtype=np.int64).copy()
        status = self.library.le_set_instruction(
            self._handle, words.ctypes.data, words.size, *self._error
        )
        words[:] = 0
        return {"status": status}

    def reset(self, seed: int) -> Outcome:
        """le_reset."""
        return {"status": self.library.le_reset(self._handle, seed)}

    def step(self) -> Outcome:
        """le_step."""
        action, raw = self._action(), abi.StepInfo()
        status = self.library.le_step(
            self._handle, _floats(action), action.size, ctypes.byref(raw), *self._error
        )
        outcome = _fields(raw) | {"status": status, "action": action}
        outcome["planned"] = raw.planner_duration_ns > 0
        outcome["refined"] = raw.refiner_duration_ns > 0
        return outcome | {"met a fault": bool(self.text) and status == abi.OK}

    def start(self, options: Options) -> Outcome:
        """le_start, manual."""
        raw = abi.RunOptions(flags=abi.RUN_MANUAL, **vars(options))
        return {"status": self.library.le_start(self._handle, ctypes.byref(raw), *self._error)}

    def stop(self) -> Outcome:
        """le_stop."""
        return {"status": self.library.le_stop(self._handle)}

    def tick(self, now_ns: int) -> Outcome:
        """le_tick."""
        action, raw = self._action(), abi.TickInfo()
        status = self.library.le_tick(
            self._handle, now_ns, _floats(action), action.size, ctypes.byref(raw)
        )
        return _fields(raw) | {"status": status, "action": action}

    def work(self, piece: int) -> Outcome:
        """le_work."""
        done = ctypes.c_uint32(7)
        status = self.library.le_work(self._handle, piece, ctypes.byref(done))
        return {"status": status, "done": done.value}

    def set_chunks_per_plan(self, chunks: int) -> Outcome:
        """le_set_chunks_per_plan."""
        return {"status": self.library.le_set_chunks_per_plan(self._handle, chunks)}

    def last_plan(self) -> Outcome:
        """le_last_plan."""
        intent = np.full((self._contract.plan_steps, self._contract.dims), -7, dtype=np.int32)
        status = self.library.le_last_plan(self._handle, intent.ctypes.data, intent.size)
        return {"status": status, "intent": intent}

    def fault_text(self) -> Outcome:
        """le_fault_text."""
        text = ctypes.create_string_buffer(b"?", abi.ERROR_SIZE)
        status = self.library.le_fault_text(self._handle, text, abi.ERROR_SIZE)
        return {"status": status, "a sentence": len(text.value) > 1}

    def stats(self, counters: Counters) -> Outcome:
        """le_stats, as `counters` reads it."""
        raw = abi.StatsInfo()
        status = self.library.le_stats(self._handle, ctypes.byref(raw))
        return {"status": status, **counters.found(raw)}

    def _action(self) -> Floats:
        return np.full(self._contract.dims, UNTOUCHED, dtype=np.float32)


def observation(images: Images, state: Floats, stamp: int) -> abi.Observation:
    """le_observation; the arrays have to outlive it."""
    return abi.Observation(
        state_count=state.size,
        images=images.ctypes.data,
        image_bytes=images.nbytes,
        state=state.ctypes.data,
        timestamp_ns=stamp,
    )


def _floats(array: Floats) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_float))


def _fields(raw: ctypes.Structure) -> Outcome:
    return {field[0]: getattr(raw, field[0]) for field in raw._fields_}
