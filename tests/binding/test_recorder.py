"""A recorded run replays bit by bit, and a changed one does not."""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from libra_edge.binding import abi
from libra_edge.binding.abi import PLAN_BEGIN, REFINE_BEGIN
from libra_edge.binding.live_policy import LivePolicy
from libra_edge.binding.recorder import Recorder
from libra_edge.binding.replay import is_recording, replay
from libra_edge.binding.values import RunOptions
from libra_edge.data.types import Observation
from libra_edge.errors import InputError, IntegrityError, LibraError
from libra_edge.policy.executor import State
from tests.runtime import tiny_release as tiny
from tests.runtime.tiny_release import L

STEPS = 3 * L


def record_by_hand(recorder: Recorder, asynchronous: bool) -> None:
    rng = np.random.default_rng(1)
    recorder.reset(7, "open the tap")
    if asynchronous:
        recorder.start(RunOptions(manual=True, refill_at=2, blend="linear", blend_steps=1))
    for step in range(STEPS):
        recorder.observe(*tiny.observation(rng), 1000 + step)
        if asynchronous:
            for begin in (PLAN_BEGIN, REFINE_BEGIN):
                if rng.random() < 0.8 and recorder.work(begin):
                    recorder.work(begin + 1)
            recorder.tick(1000 + step)
        else:
            recorder.step()
    if asynchronous:
        recorder.stop()


def recorded(release: Path, path: Path, asynchronous: bool = False) -> Path:
    with Recorder(release, path, seed=3) as recorder:
        record_by_hand(recorder, asynchronous)
    return path


@pytest.mark.parametrize("asynchronous", [False, True])
def test_replays(release: Path, tmp_path: Path, asynchronous: bool) -> None:
    path = recorded(release, tmp_path / "run.zip", asynchronous)
    assert is_recording(path)
    result = replay(release, path)
    assert result.first_difference is None, result
    assert result.actions == STEPS
    assert result.plans >= 3
    assert result.in_words().endswith("as recorded")


def test_a_run_with_threads_in_real_time_replays(release: Path, tmp_path: Path) -> None:
    """Two episodes, engines side by side, one reset amid calls, stale observations, M lowered."""
    rng, path, states = np.random.default_rng(2), tmp_path / "run.zip", []
    options = RunOptions(
        refill_at=2, blend="freeze", blend_steps=2, frozen_steps=1, max_observation_age_s=0.03
    )
    with Recorder(release, path) as recorder:
        recorder.reset(1, "open the tap")
        recorder.start(options)
        for step in range(240):
            if step == 100:
                recorder.reset(2, "close the drawer")
            if step == 180:
                recorder.set_chunks_per_plan(1)
            if step % 50 < 42:
                recorder.observe(*tiny.observation(rng), time.monotonic_ns())
            states.append(recorder.tick(time.monotonic_ns())[1].state)
            time.sleep(0.005)
        stats = recorder.stats()
    assert states.count(State.RUNNING) > 60
    assert states.count(State.HOLD) > 5
    result = replay(release, path)
    assert result.first_difference is None, result
    assert result.actions == 240
    assert 0 < result.plans <= stats["planner_ns"]["count"]


def test_a_live_policy_can_be_recorded(release: Path, tmp_path: Path) -> None:
    images, state = tiny.observation(np.random.default_rng(1))
    path = tmp_path / "run.zip"
    with LivePolicy(release, record=path) as policy:
        policy.reset(1, "open the tap")
        for step in range(12):
            told = "open the tap" if step < 6 else "close the drawer"
            policy.act(Observation(images=images, state=state, instruction=told))
    result = replay(release, path)
    assert result.first_difference is None
    assert result.actions == 12


def test_a_fault_is_recorded_and_replayed(release: Path, tmp_path: Path) -> None:
    path = tmp_path / "run.zip"
    images, state = tiny.observation(np.random.default_rng(1))
    with Recorder(release, path) as recorder:
        recorder.reset(1, "open the tap")
        recorder.observe(images, state)
        recorder.step()
        with pytest.raises(LibraError, match="not-finite"):
            recorder.observe(images, np.full_like(state, np.nan))
        with pytest.raises(InputError, match="array-mismatch"):
            recorder.observe(images, state[:-1])
        assert recorder.step()[1].state is State.FAULT
    assert replay(release, path).first_difference is None


def rewritten(path: Path, to: Path, change: Callable[[Any, dict[str, Any]], None]) -> Path:
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(to, "w") as new:
        header = json.loads(old.read("run.json"))
        names = [name for name in old.namelist() if name != "run.json"]
        arrays = {name[:-4]: np.load(io.BytesIO(old.read(name))) for name in names}
        change(header, arrays)
        new.writestr("run.json", json.dumps(header))
        for name, array in arrays.items():
            content = io.BytesIO()
            np.save(content, array)
            new.writestr(f"{name}.npy", content.getvalue())
    return to


@pytest.mark.parametrize("kind", ["action", "plan"])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_sees_one_changed_number(
    release: Path, tmp_path: Path, kind: str, asynchronous: bool
) -> None:
    def change(_: Any, arrays: dict[str, Any]) -> None:
        arrays[kind][-1].reshape(-1)[-1] += 1

    path = recorded(release, tmp_path / "run.zip", asynchronous)
    result = replay(release, rewritten(path, tmp_path / "changed.zip", change))
    assert result.first_difference
    assert "differs" in result.in_words()


def test_sees_another_order(release: Path, tmp_path: Path) -> None:
    def change(header: Any, _: Any) -> None:
        calls = header["calls"]
        ends = [i for i, call in enumerate(calls) if call.get("piece") == abi.REFINE_END]
        begins = [i for i, call in enumerate(calls) if call.get("piece") == abi.REFINE_BEGIN]
        begin, end = begins[-2], min(i for i in ends if i > begins[-2])
        calls[begin], calls[end] = calls[end], calls[begin]

    path = recorded(release, tmp_path / "run.zip", asynchronous=True)
    result = replay(release, rewritten(path, tmp_path / "changed.zip", change))
    assert result.first_difference


def broken(key: str, value: Any) -> Callable[[Any, dict[str, Any]], None]:
    def change(header: Any, _: Any) -> None:
        call = next(call for call in header["calls"] if key in call)
        call[key] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        broken("call", "sing"),
        broken("images", 10**6),
        broken("images", "first"),
        broken("seed", None),
        lambda header, _: header.update(schema_version=1),
        lambda header, _: header.update(calls={"a": 1}),
        lambda header, arrays: arrays.pop("action"),
    ],
)
def test_refuses_what_is_no_recording(
    release: Path, tmp_path: Path, change: Callable[[Any, dict[str, Any]], None]
) -> None:
    path = recorded(release, tmp_path / "run.zip")
    with pytest.raises(IntegrityError, match="recording-malformed"):
        replay(release, rewritten(path, tmp_path / "changed.zip", change))


def test_refuses_what_it_cannot_replay(
    release: Path, tmp_path: Path, copy: Callable[[], Path]
) -> None:
    with (
        Recorder(release, tmp_path / "none.zip") as recorder,
        pytest.raises(InputError, match="recording-priorities"),
    ):
        recorder.start(RunOptions(planner_priority=5))
    path = recorded(release, tmp_path / "run.zip")
    other = copy()
    tiny.seal(other, {**tiny.manifest(), "name": "another"})
    with pytest.raises(InputError, match="another-release"):
        replay(other, path)
    path.write_bytes(path.read_bytes()[:-40])
    assert not is_recording(path)
    with pytest.raises(IntegrityError, match="recording-malformed"):
        replay(release, path)
