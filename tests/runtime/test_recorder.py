"""A recorded run replays bit by bit, and a changed one does not."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from libra_edge.errors import InputError, IntegrityError
from libra_edge.runtime import Policy
from libra_edge.runtime.harness import RunOptions
from libra_edge.runtime.native import PLAN_BEGIN, REFINE_BEGIN
from libra_edge.runtime.recorder import Recorder, replay
from tests.runtime import tiny_release as tiny
from tests.runtime.tiny_release import L, T

STEPS = 3 * L


def record(policy: Policy, path: Path, asynchronous: bool) -> list[Any]:
    recorder, rng, actions = Recorder(policy), np.random.default_rng(1), []
    recorder.reset(7, "open the tap", np.arange(T))
    if asynchronous:
        recorder.start(RunOptions(manual=True, refill_at=2, blend="linear", blend_steps=1))
    for step in range(STEPS):
        recorder.observe(*tiny.observation(rng), 1000 + step)
        if asynchronous:
            for begin in (PLAN_BEGIN, REFINE_BEGIN):
                if rng.random() < 0.8 and recorder.work(begin):
                    recorder.work(begin + 1)
        actions.append((recorder.tick(1000 + step) if asynchronous else recorder.step())[0])
    if asynchronous:
        recorder.stop()
    recorder.save(path)
    return actions


@pytest.mark.parametrize("asynchronous", [False, True])
def test_replays_in_another_policy(
    policy: Policy, release: Path, tmp_path: Path, asynchronous: bool
) -> None:
    path = tmp_path / "run.zip"
    record(policy, path, asynchronous)
    with Policy(release, seed=99) as other:
        result = replay(other, path)
    assert result.first_difference is None
    assert result.actions == STEPS
    assert result.plans >= 3


def changed(path: Path, prefix: tuple[int, ...], to: Path) -> Path:
    """The recording with one number of the last array of this shape changed."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(to, "w") as new:
        arrays = {n: np.load(io.BytesIO(old.read(n))) for n in old.namelist() if n.endswith("npy")}
        victim = [name for name, array in arrays.items() if array.shape == prefix][-1]
        arrays[victim].reshape(-1)[-1] += 1
        new.writestr("run.json", old.read("run.json"))
        for name, array in arrays.items():
            content = io.BytesIO()
            np.save(content, array)
            new.writestr(name, content.getvalue())
    return to


@pytest.mark.parametrize("shape", [(tiny.D,), (L, tiny.D)], ids=["action", "plan"])
def test_sees_one_changed_number(policy: Policy, tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = tmp_path / "run.zip"
    record(policy, path, asynchronous=False)
    assert replay(policy, changed(path, shape, tmp_path / "changed.zip")).first_difference


def test_refuses_what_it_cannot_replay(
    policy: Policy, release: Path, tmp_path: Path, copy: Any
) -> None:
    with pytest.raises(InputError, match="recording-threads"):
        Recorder(policy).start(RunOptions())
    path = tmp_path / "run.zip"
    record(policy, path, asynchronous=False)
    other = copy()
    tiny.seal(other, {**tiny.manifest(), "name": "another"})
    with Policy(other) as opened, pytest.raises(InputError, match="another-release"):
        replay(opened, path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(IntegrityError, match="recording-malformed"):
        replay(policy, path)
