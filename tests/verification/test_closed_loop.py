"""`verify --simulate`: the release drives the simulated robot from a process of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from libra_edge.binding.policy import Policy
from libra_edge.bundle.verify import open_release
from libra_edge.catalog import list_recipes
from libra_edge.data.types import Observation
from libra_edge.errors import CrashedError
from libra_edge.evaluation import closed_loop, non_inferiority
from libra_edge.evaluation.non_inferiority import STAGE, ClosedLoop
from libra_edge.parity.gates import Check
from libra_edge.policy.config import Embodiment
from libra_edge.verification import verify
from libra_edge.verification.isolation.remote import RemoteDriver
from libra_edge.verification.recompile import Trained
from libra_edge.verification.request import Request
from libra_edge.verification.subject import Subject
from tests.evaluation.fake_simulator import LineWorld
from tests.runtime import native_build
from tests.runtime import tiny_release as tiny
from tests.verification.test_crashes import library

WORDS = "open the tap"


class TinyWorld(LineWorld):
    """A camera that sees noise, and something bright from a step on."""

    max_steps = 8

    def __init__(self, robot: Embodiment, bright_from: int) -> None:
        super().__init__()
        self._robot, self._bright_from, self._steps = robot, bright_from, 0

    @property
    def tasks(self) -> tuple[str, ...]:
        return ("tap",)

    def embodiment(self) -> Embodiment:
        return self._robot

    def instructions(self, task: str) -> tuple[str, ...]:
        return (WORDS,)

    def reset(self, task: str, seed: int, instruction: str | None = None) -> Observation:
        self._rng, self._steps = np.random.default_rng(seed), 0
        return self._observe()

    def step(self, action: np.ndarray) -> tuple[Observation, bool]:
        self._steps += 1
        return self._observe(), bool(action[0] > 0.3)

    def _observe(self) -> Observation:
        images, state = tiny.observation(self._rng)
        images[:] = 255 if self._steps >= self._bright_from else images
        return Observation(images, state, WORDS)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("closed-loop") / "release"
    return tiny.make_release(folder, native_build.cached_library())


class Steady:
    """Does the same whatever it sees."""

    def reset(self, seed: int, instruction: str) -> None:
        pass

    def act(self, observation: Observation) -> np.ndarray:
        return np.full(tiny.D, 0.4, np.float32)


def checks(
    release: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, bright_from: int = 100
) -> list[Check]:
    """The closed loop of a release beside a policy that never fails."""
    opened = open_release(release)
    world = TinyWorld(opened.manifest.embodiment, bright_from)
    monkeypatch.setattr(non_inferiority, "open_simulator", lambda name, split: world)
    monkeypatch.setattr(closed_loop, "open_controller", lambda path: Steady())
    asked = ClosedLoop("tiny", 3)
    request = Request(release, cache / "none", closed_loop=asked, cache=cache, time_limit_s=5)
    subject = Subject(request, opened, None, list_recipes()["fp32"].gates, Trained(()), print)
    return verify._examined(subject, {STAGE: verify._closed_loop})


def test_it_drives_as_in_this_process(release: Path) -> None:
    rng = np.random.default_rng(3)
    driver = RemoteDriver(release, 60.0)
    with Policy(release) as policy, driver:
        for seed in (3, 2**64 - 1):
            policy.reset(seed, WORDS)
            driver.reset(seed, WORDS)
            for _ in range(tiny.L + 1):
                seen = Observation(*tiny.observation(rng), WORDS)
                np.testing.assert_array_equal(driver.act(seen), policy.act(seen))
    with pytest.raises(CrashedError):
        driver.act(seen)


def test_the_verifier_never_loads_the_library(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tiny.link_release(release, tmp_path / "release")
    found = checks(here, tmp_path / "cache", monkeypatch)
    assert {check.samples for check in found} == {3}
    assert not [check for check in found if check.metric == "runs to its end"]
    maps = Path("/proc/self/maps").read_text()
    assert str(here) not in maps


@pytest.mark.parametrize(
    ("body", "words"), [("abort();", "SIGABRT"), ("sleep(60);", "no answer"), ("", "not open")]
)
def test_a_library_that_ends_its_process(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, words: str
) -> None:
    here = tiny.link_release(release, tmp_path / "release")
    tiny.replace(here / "lib/liblibra_edge.so", library(tmp_path, body))
    tiny.seal(here, tiny.manifest())
    (check,) = checks(here, tmp_path / "cache", monkeypatch)
    assert (check.metric, check.verdict) == ("runs to its end", "fail")
    assert words in check.note


def test_a_fault_in_an_episode(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (check,) = checks(release, tmp_path, monkeypatch, bright_from=2)
    assert (check.metric, check.verdict) == ("runs to its end", "fail")
    assert "during an episode" in check.note
