"""Records every call of a run to one file, and replays it bit by bit.

What can be replayed is what the caller decides: sync mode, and async mode with
`RunOptions(manual=True)`, where the caller says when engine calls begin and end. With threads the
operating system decides that, and no two runs are the same; such a run is refused here.
"""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from libra_edge.errors import InputError, IntegrityError
from libra_edge.runtime import native
from libra_edge.runtime.harness import Floats, Images, Instruction, Policy, RunOptions

SCHEMA_VERSION = 1
_MOST_BYTES = 1 << 34


class Recorder:
    """Passes calls on to a policy and remembers them; `save` writes the file.

    Use it in the policy's place, from a `reset` on. Each plan is recorded too, by running the
    planner once more on the observation it was made from.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._calls: list[dict[str, Any]] = []
        self._arrays: dict[str, npt.NDArray[Any]] = {}
        self._tokens: Instruction | None = None
        self._seen: tuple[Images, Floats] | None = None

    def reset(self, seed: int, instruction: str, tokens: Instruction) -> None:
        """`Policy.reset`, then the instruction as tokens int64 [T]."""
        self._policy.reset(seed, instruction)
        self._policy.set_instruction(tokens)
        self._tokens = tokens
        self._log("reset", seed=seed, instruction=instruction, tokens=self._keep(tokens))

    def start(self, options: RunOptions) -> None:
        """`Policy.start`; only with `manual`."""
        if not options.manual:
            raise InputError(
                "recording-threads",
                "A run whose engines have threads of their own cannot be replayed bit by bit.",
                "Record with RunOptions(manual=True), or in sync mode.",
            )
        self._policy.start(options)
        cpus = {name: sorted(getattr(options, name)) for name in ("planner_cpus", "refiner_cpus")}
        self._log("start", options=asdict(options) | cpus)

    def stop(self) -> None:
        """`Policy.stop`."""
        self._policy.stop()
        self._log("stop")

    def observe(self, images: Images, state: Floats, timestamp_ns: int = 0) -> None:
        """`Policy.observe`."""
        self._policy.observe(images, state, timestamp_ns)
        self._seen = images.copy(), state.copy()
        kept = {"images": self._keep(images), "state": self._keep(state)}
        self._log("observe", timestamp_ns=timestamp_ns, **kept)

    def step(self) -> tuple[Floats, Any]:
        """`Policy.step`."""
        action, info = self._policy.step()
        plan = self._plan() if info.planner_ran else None
        self._log("step", action=self._keep(action), state=int(info.state), plan=plan)
        return action, info

    def tick(self, now_ns: int) -> tuple[Floats, Any]:
        """`Policy.tick`."""
        action, info = self._policy.tick(now_ns)
        self._log("tick", now_ns=now_ns, action=self._keep(action), state=int(info.state))
        return action, info

    def work(self, piece: int) -> bool:
        """`Policy.work`."""
        done = self._policy.work(piece)
        plan = self._plan() if done and piece == native.PLAN_BEGIN else None
        self._log("work", piece=piece, done=done, plan=plan)
        return done

    def save(self, path: Path) -> None:
        """Write everything so far to one file."""
        header = {
            "schema_version": SCHEMA_VERSION,
            "release": self._policy.info.manifest_sha256,
            "calls": self._calls,
        }
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("run.json", json.dumps(header))
            for name, array in self._arrays.items():
                content = io.BytesIO()
                np.save(content, array)
                file.writestr(f"{name}.npy", content.getvalue())

    def _plan(self) -> str | None:
        if self._seen is None or self._tokens is None:
            return None
        return self._keep(self._policy.plan(self._seen[0], self._tokens, self._seen[1])[0])

    def _keep(self, array: npt.NDArray[Any]) -> str:
        name = f"a{len(self._arrays)}"
        self._arrays[name] = array.copy()
        return name

    def _log(self, call: str, **values: Any) -> None:
        self._calls.append({"call": call, **values})


@dataclass(frozen=True)
class Replay:
    """What a replay came to: `first_difference` is the index of a call, or None."""

    calls: int
    actions: int
    plans: int
    first_difference: int | None


def replay(policy: Policy, path: Path) -> Replay:
    """Repeat a recorded run on a policy of the same release and compare every bit.

    Raises:
        InputError: the file is of another release.
        IntegrityError: it is not a recording.
    """
    header, arrays = _read(path)
    if header["release"] != policy.info.manifest_sha256:
        raise InputError(
            "recording-of-another-release",
            f"{path} was recorded with release {header['release'][:12]}…, this one is "
            f"{policy.info.manifest_sha256[:12]}….",
            "Replay it on the release it was recorded with.",
        )
    policy.stop()
    again = Recorder(policy)
    actions = plans = 0
    for index, call in enumerate(header["calls"]):
        _repeat(again, call, arrays)
        same, found = _same(call, again._calls[-1], arrays, again._arrays), call["call"]
        actions += found in ("step", "tick")
        plans += call.get("plan") is not None
        if not same:
            return Replay(index + 1, actions, plans, index)
    return Replay(len(header["calls"]), actions, plans, None)


def _repeat(to: Recorder, call: dict[str, Any], arrays: dict[str, npt.NDArray[Any]]) -> None:
    match call["call"]:
        case "reset":
            to.reset(call["seed"], call["instruction"], arrays[call["tokens"]])
        case "start":
            known = {field.name for field in fields(RunOptions)}
            values = {name: value for name, value in call["options"].items() if name in known}
            for name in ("planner_cpus", "refiner_cpus"):
                values[name] = frozenset(values[name])
            to.start(RunOptions(**values))
        case "observe":
            to.observe(arrays[call["images"]], arrays[call["state"]], call["timestamp_ns"])
        case "step":
            to.step()
        case "tick":
            to.tick(call["now_ns"])
        case "work":
            to.work(call["piece"])
        case _:
            to.stop()


def _same(
    call: dict[str, Any],
    again: dict[str, Any],
    arrays: dict[str, npt.NDArray[Any]],
    arrays_again: dict[str, npt.NDArray[Any]],
) -> bool:
    if call["call"] not in ("step", "tick", "work"):
        return True
    for name in ("action", "plan"):
        if (call.get(name) is None) != (again.get(name) is None):
            return False
        if call.get(name) is not None:
            first, second = arrays[call[name]], arrays_again[again[name]]
            if first.tobytes() != second.tobytes():
                return False
    return all(call.get(name) == again.get(name) for name in ("state", "done"))


def _read(path: Path) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    try:
        with zipfile.ZipFile(path) as file:
            if sum(entry.file_size for entry in file.infolist()) > _MOST_BYTES:
                raise ValueError("too large")
            header = json.loads(file.read("run.json"))
            if header["schema_version"] != SCHEMA_VERSION or not header["calls"]:
                raise ValueError("another schema")
            arrays = {
                entry.filename.removesuffix(".npy"): np.load(
                    io.BytesIO(file.read(entry)), allow_pickle=False
                )
                for entry in file.infolist()
                if entry.filename.endswith(".npy")
            }
        return header, arrays
    except (OSError, zipfile.BadZipFile, ValueError, KeyError, TypeError) as error:
        raise IntegrityError(
            "recording-malformed",
            f"{path} is not a recording of a run ({type(error).__name__}).",
            "Record the run again.",
        ) from None
