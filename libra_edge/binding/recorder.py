"""A policy that writes down every call of a run, for `libra_edge.binding.replay`.

What cannot be repeated is the order in which threads get to work. So in async mode the recorder
runs the two engine threads itself: they take their work, hand over their results, and let the
control loop tick and observe, one at a time, and that order is written down. The engine calls
themselves run side by side, as ever.
"""

from __future__ import annotations

import json
import threading
import time
import zipfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from libra_edge.atomic import new_file
from libra_edge.binding import abi, values
from libra_edge.binding.policy import Policy
from libra_edge.binding.values import Floats, Images, Instruction, RunOptions, StepInfo, TickInfo
from libra_edge.errors import InputError, LibraError
from libra_edge.paths import StrPath

SCHEMA_VERSION = 2
MOST_BYTES = 1 << 32
_POLL_S = 0.0005
# Measured, not decided: they differ from run to run.
_TIMES = ("planner_duration_ns", "refiner_duration_ns", "realtime_asked", "realtime_got")


def outcome(info: StepInfo | TickInfo) -> dict[str, Any]:
    """What a recording keeps of an info, and a replay compares."""
    found = {name: value for name, value in asdict(info).items() if name not in _TIMES}
    if not found.get("seen_steps"):
        # Recordings from before it was told have none.
        found.pop("seen_steps", None)
    return found | {"state": int(info.state)}


class Recorder(Policy):
    """`Policy`, with a file written at `close`: observations, plans, actions and their order.

    Args:
        release_dir: the release, as for `Policy`.
        path: the recording, one file.
        seed: seed of the refiner's noise until the first `reset`.
        threads: threads of each engine.

    Raises:
        LibraError: the release is not whole, or not for this machine.
    """

    def __init__(
        self, release_dir: StrPath, path: StrPath, *, seed: int = 0, threads: int = 1
    ) -> None:
        path = Path(path)
        self._path, self._seed = path, seed
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._workers: list[threading.Thread] = []
        self._failure: LibraError | None = None
        self._calls: list[dict[str, Any]] = []
        self._rows: dict[str, list[npt.NDArray[Any]]] = {}
        self._bytes = 0
        super().__init__(release_dir, seed=seed, threads=threads)

    def close(self) -> None:
        """Stop the threads, write the file, release the engines; harmless when repeated."""
        self._join()
        if self._handle and self._calls:
            self._save()
        super().close()

    def restart(self, seed: int) -> None:
        """`Policy.restart`."""
        self._do("reset", lambda: super(Recorder, self).restart(seed), seed=seed)

    def set_instruction(self, tokens: Instruction) -> None:
        """`Policy.set_instruction`."""
        values.array("instruction", tokens, np.int64, self._shapes["instruction"])
        kept = self._kept("instruction", tokens)
        self._do("instruction", lambda: super(Recorder, self).set_instruction(tokens), **kept)

    def observe(self, images: Images, state: Floats, timestamp_ns: int = 0) -> None:
        """`Policy.observe`."""
        values.array("images", images, np.uint8, self._shapes["images"])
        values.array("state", state, np.float32, self._shapes["state"])
        kept = self._kept("images", images) | self._kept("state", state)
        self._do(
            "observe",
            lambda: super(Recorder, self).observe(images, state, timestamp_ns),
            timestamp_ns=timestamp_ns,
            **kept,
        )

    def step(self) -> tuple[Floats, StepInfo]:
        """`Policy.step`."""
        with self._lock:
            action, info = self._do("step", super().step)
            kept = self._kept("plan", self.last_plan()) if info.planner_ran else {}
            self._calls[-1] |= {"info": outcome(info), **kept, **self._kept("action", action)}
        return action, info

    def tick(self, now_ns: int) -> tuple[Floats, TickInfo]:
        """`Policy.tick`; waits while an engine thread takes its work or hands it over."""
        if self._failure is not None:
            raise self._failure
        with self._lock:
            action, info = self._do(
                "tick", lambda: super(Recorder, self).tick(now_ns), now_ns=now_ns
            )
            self._calls[-1] |= {"info": outcome(info), **self._kept("action", action)}
        return action, info

    def set_chunks_per_plan(self, chunks: int) -> None:
        """`Policy.set_chunks_per_plan`."""
        self._do("chunks", lambda: super(Recorder, self).set_chunks_per_plan(chunks), chunks=chunks)

    def work(self, piece: int) -> bool:
        """`Policy.work`."""
        if piece in (abi.PLAN_RUN, abi.REFINE_RUN):
            return super().work(piece)  # a replay runs an engine as soon as its work is taken
        with self._lock:
            done = super().work(piece)
            if done:
                handed_over = piece == abi.PLAN_END
                kept = self._kept("plan", self.last_plan()) if handed_over else {}
                self._calls.append({"call": "work", "piece": piece, **kept})
        return done

    def start(self, options: RunOptions | None = None) -> None:
        """`Policy.start`; the engine threads are this object's."""
        chosen = options or RunOptions()
        manual = replace(chosen, manual=True)
        settings = ("planner_priority", "refiner_priority", "planner_cpus", "refiner_cpus")
        if any(getattr(chosen, name) for name in settings):
            raise InputError(
                "recording-priorities",
                "Priorities and processors are for the library's own threads; a recorded run has "
                "the recorder's.",
                "Record without them.",
            )
        plain = asdict(manual) | {"planner_cpus": [], "refiner_cpus": []}
        self._do("start", lambda: super(Recorder, self).start(manual), options=plain)
        if not chosen.manual:
            self._begin_threads(chosen.poll_s or _POLL_S)

    def stop(self) -> None:
        """`Policy.stop`, after the engine calls in flight."""
        self._join()
        self._do("stop", super().stop)

    def _begin_threads(self, poll_s: float) -> None:
        self._ended.clear()
        for claim, run, end in (
            (abi.PLAN_CLAIM, abi.PLAN_RUN, abi.PLAN_END),
            (abi.REFINE_CLAIM, abi.REFINE_RUN, abi.REFINE_END),
        ):
            worker = threading.Thread(target=self._engine, args=(claim, run, end, poll_s))
            worker.start()
            self._workers.append(worker)

    def _engine(self, claim: int, run: int, end: int, poll_s: float) -> None:
        try:
            while not self._ended.is_set():
                if self.work(claim):
                    self.work(run)
                    self.work(end)
                else:
                    time.sleep(poll_s)
        except LibraError as error:
            self._failure = error

    def _join(self) -> None:
        self._ended.set()
        for worker in self._workers:
            worker.join()
        self._workers.clear()

    def _do(self, call: str, function: Callable[[], Any], **inputs: Any) -> Any:
        """Make the call and write it down, with the error that it may have raised."""
        with self._lock:
            entry = {"call": call, **inputs}
            self._calls.append(entry)
            try:
                return function()
            except LibraError as error:
                entry["error"] = error.code
                raise

    def _kept(self, kind: str, value: npt.NDArray[Any]) -> dict[str, int]:
        """Keep a copy; its number under its kind."""
        with self._lock:
            self._bytes += value.nbytes
            if self._bytes > MOST_BYTES:
                raise LibraError(
                    "recording-full",
                    f"The recording has reached {MOST_BYTES >> 30} GiB.",
                    "Record fewer episodes.",
                )
            rows = self._rows.setdefault(kind, [])
            rows.append(value.copy())
            return {kind: len(rows) - 1}

    def _save(self) -> None:
        header = {
            "schema_version": SCHEMA_VERSION,
            "release": self.info.manifest_sha256,
            "seed": self._seed,
            "threads": self.info.threads,
            "calls": self._calls,
        }
        with (
            new_file(self._path) as file,
            zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        ):
            archive.writestr("run.json", json.dumps(header))
            for kind, rows in self._rows.items():
                with archive.open(f"{kind}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.stack(rows), allow_pickle=False)
