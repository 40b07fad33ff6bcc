"""The film of a closed loop: one picture a step, marked where a chunk begins and where it held."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from libra_edge.errors import InputError
from libra_edge.evaluation.closed_loop import EpisodeSpec, plan_episodes, run
from libra_edge.evaluation.film import Film
from libra_edge.evaluation.motion import Moment
from libra_edge.policy.executor import State
from tests.evaluation.fake_simulator import LineWorld, Obedient

GREY = 128


def frames(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


def film(path: Path, moments: list[Moment], success: bool = True) -> np.ndarray:
    world = LineWorld()
    observation = world.reset("left", 0)
    observation.images[:] = GREY
    with Film(path, world.embodiment()) as made:
        made.begin(EpisodeSpec("left", 0), observation)
        for moment in moments:
            made.step(observation, np.zeros(1, np.float32), moment)
        made.end(success)
    return frames(path)


def test_borders_tell_boundaries_and_holds(tmp_path: Path) -> None:
    held = Moment(state=State.HOLD)
    found = film(tmp_path / "a.mp4", [Moment(0), Moment(0), held, Moment(0), Moment(1)])
    # 10 Hz: the last picture stays for half a second.
    assert len(found) == 5 + 5
    red, green, _ = found[:5, 1, 1].astype(int).T
    assert [(r > 150, g > 60) for r, g in zip(red, green, strict=True)] == [
        (True, True), (False, True), (True, False), (False, True), (True, True),
    ]  # fmt: skip
    # Cameras are shown large, as they are.
    assert np.abs(found[0, 20:180, 20:180].astype(int) - GREY).max() < 12


def test_lines_below_the_picture_change_with_what_they_say(tmp_path: Path) -> None:
    fresh, old = Moment(0, seen_steps=0, plan_age_steps=1), Moment(0, 4, 9)
    a, b = (film(tmp_path / f"{i}.mp4", [Moment(0), m]) for i, m in enumerate((fresh, old)))
    below = slice(200, None)
    assert (a[1, below].max(axis=(0, 1)) > 150).all(), "something is written"
    assert np.abs(a[1, below].astype(int) - b[1, below]).max() > 60
    failed = film(tmp_path / "failed.mp4", [Moment(0)], success=False)
    assert np.abs(failed[-1, :30].astype(int) - failed[0, :30]).max() > 60


def test_a_film_of_a_closed_loop_has_every_step(tmp_path: Path) -> None:
    world, path = LineWorld(), tmp_path / "loop.mp4"
    with Film(path, world.embodiment()) as made:
        results = run(Obedient, LineWorld, plan_episodes(world, ("left",), 3), watcher=made)
    assert len(frames(path)) == sum(result.steps for result in results) + 3 * 5


def test_what_cannot_be_filmed_is_said_before(tmp_path: Path) -> None:
    for name, code in (("a.avi", "video-format"), ("no/a.mp4", "folder-missing")):
        with pytest.raises(InputError) as caught:
            Film(tmp_path / name, LineWorld().embodiment())
        assert caught.value.code == code


def test_a_run_that_fails_leaves_the_film_of_before(tmp_path: Path) -> None:
    path, world = tmp_path / "a.mp4", LineWorld()
    path.write_bytes(b"old")
    made = Film(path, world.embodiment())
    observation = world.reset("left", 0)
    made.begin(EpisodeSpec("left", 0), observation)
    made.step(observation, np.zeros(1, np.float32), Moment(0))
    made.__exit__(RuntimeError, RuntimeError(), None)
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]
    assert path.read_bytes() == b"old"


def test_a_run_without_a_step_leaves_nothing(tmp_path: Path) -> None:
    with Film(tmp_path / "a.mp4", LineWorld().embodiment()):
        pass
    assert not list(tmp_path.iterdir())
