"""Repeats a recorded run on the release it was made with, and compares every bit."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from libra_edge.binding import abi
from libra_edge.binding.policy import Policy
from libra_edge.binding.recorder import MOST_BYTES, SCHEMA_VERSION, outcome
from libra_edge.binding.values import RunOptions
from libra_edge.errors import InputError, IntegrityError, LibraError
from libra_edge.paths import StrPath

Arrays = dict[str, npt.NDArray[Any]]
_KINDS = ("images", "state", "instruction", "plan", "action")
_RUNS = {abi.PLAN_CLAIM: abi.PLAN_RUN, abi.REFINE_CLAIM: abi.REFINE_RUN}


@dataclass(frozen=True)
class Replay:
    """What a replay came to: `first_difference` is the index of a call, or None."""

    calls: int
    actions: int
    plans: int
    first_difference: int | None

    def in_words(self) -> str:
        """One sentence."""
        made = f"{self.actions} actions and {self.plans} plans"
        if self.first_difference is None:
            return f"{made} came out bit by bit as recorded"
        return f"call {self.first_difference} differs from the recording, after {made}"


def is_recording(path: StrPath) -> bool:
    """Whether the path is a recording rather than a dataset or a release."""
    path = Path(path)
    if not path.is_file() or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return "run.json" in archive.namelist()


def replay(release_dir: StrPath, path: StrPath) -> Replay:
    """Repeat a recorded run.

    Args:
        release_dir: the release that it was recorded with.
        path: what a `Recorder` wrote.

    Raises:
        InputError: the file is of another release.
        IntegrityError: it is not a recording.
    """
    path = Path(path)
    header, arrays = _read(path)
    try:
        with Policy(release_dir, seed=header["seed"], threads=header["threads"]) as policy:
            if header["release"] != policy.info.manifest_sha256:
                raise InputError(
                    "recording-of-another-release",
                    f"{path} was recorded with release {str(header['release'])[:12]}…, this one "
                    f"is {policy.info.manifest_sha256[:12]}….",
                    "Replay it on the release it was recorded with.",
                )
            return _repeat_all(policy, header["calls"], arrays)
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise _malformed(path, error) from None


def _repeat_all(policy: Policy, calls: list[dict[str, Any]], arrays: Arrays) -> Replay:
    actions = plans = 0
    for index, call in enumerate(calls):
        try:
            found, error = _repeat(policy, call, arrays), None
        except LibraError as raised:
            found, error = {}, raised.code
        kept = [name for name in ("plan", "action") if name in call]
        expected: Arrays = {name: arrays[name][call[name]] for name in kept}
        if error != call.get("error") or not _same(expected, call.get("info"), found):
            return Replay(index + 1, actions, plans, index)
        actions += "action" in call
        plans += "plan" in call
    return Replay(len(calls), actions, plans, None)


def _repeat(policy: Policy, call: dict[str, Any], arrays: Arrays) -> dict[str, Any]:
    """Make one call again; what it gave."""

    def recorded(kind: str) -> npt.NDArray[Any]:
        return np.asarray(arrays[kind][call[kind]])

    match call["call"]:
        case "reset":
            policy.restart(call["seed"])
        case "instruction":
            policy.set_instruction(recorded("instruction"))
        case "chunks":
            policy.set_chunks_per_plan(call["chunks"])
        case "start":
            cpus = {"planner_cpus": frozenset[int](), "refiner_cpus": frozenset[int]()}
            policy.start(RunOptions(**(call["options"] | cpus)))
        case "stop":
            policy.stop()
        case "observe":
            policy.observe(recorded("images"), recorded("state"), call["timestamp_ns"])
        case "step":
            action, step = policy.step()
            plan = {"plan": policy.last_plan()} if step.planner_ran else {}
            return {"action": action, "info": outcome(step), **plan}
        case "tick":
            action, tick = policy.tick(call["now_ns"])
            return {"action": action, "info": outcome(tick)}
        case "work":
            return _work(policy, call["piece"])
        case other:
            raise ValueError(f"unknown call {other!r}")
    return {}


def _work(policy: Policy, piece: int) -> dict[str, Any]:
    done = policy.work(piece)
    if done and piece in _RUNS:
        policy.work(_RUNS[piece])
    if not done:
        return {"info": "nothing to do"}
    return {"plan": policy.last_plan()} if piece == abi.PLAN_END else {}


def _same(expected: Arrays, info: Any, found: dict[str, Any]) -> bool:
    if found.get("info") != info or set(expected) != set(found) - {"info"}:
        return False
    return all(found[name].tobytes() == array.tobytes() for name, array in expected.items())


def _read(path: Path) -> tuple[dict[str, Any], Arrays]:
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > 2 * MOST_BYTES:
                raise ValueError("too large")
            header = json.loads(archive.read("run.json"))
            if header["schema_version"] != SCHEMA_VERSION or not header["calls"]:
                raise ValueError("another schema")
            arrays = {}
            for kind in _KINDS:
                if f"{kind}.npy" in archive.namelist():
                    with archive.open(f"{kind}.npy") as member:
                        arrays[kind] = np.lib.format.read_array(member, allow_pickle=False)
        return header, arrays
    except (OSError, zipfile.BadZipFile, ValueError, KeyError, TypeError, EOFError) as error:
        raise _malformed(path, error) from None


def _malformed(path: Path, error: Exception) -> IntegrityError:
    return IntegrityError(
        "recording-malformed",
        f"{path} is not a recording of a run ({type(error).__name__}).",
        "Record the run again.",
    )
