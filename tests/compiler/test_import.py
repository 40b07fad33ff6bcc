"""LeRobot's folders to releases: the C ABI against LeRobot's own answers, and as a robot steps."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from libra_edge import Policy
from libra_edge.binding import abi
from libra_edge.binding.values import RunOptions
from libra_edge.bundle.pack import pack_release
from libra_edge.bundle.time_structure import contract_of
from libra_edge.bundle.verify import verify_integrity
from libra_edge.cli import app as program
from libra_edge.data.lerobot_writer import DatasetWriter
from libra_edge.data.types import Episode
from libra_edge.errors import ExitCode, InputError
from libra_edge.policy.executor import Blend, Executor, State
from tests.policy.lerobot_cases import Case, case, changed, edit, write_robot_file


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("import")


def compiled(found: Case, folder: Path, shop: Path, *more: str) -> Path:
    robot = write_robot_file(found.robot, shop / f"{folder.parent.name}.json")
    out = shop / f"release-{folder.parent.name}-{len(more)}"
    words = ["compile", str(folder), *found.flags(robot), "--out", str(out)]
    done = CliRunner().invoke(program.app, [*words, "--cache", str(shop / "cache"), *more])
    assert done.exit_code == 0, done.output
    return out


@pytest.fixture(scope="module")
def act(shop: Path) -> tuple[Case, Path]:
    """ACT with cameras of two sizes; 5 of its 12 steps are executed."""
    found = case("act")
    (shop / "act").mkdir()
    folder = changed(found.folder, shop / "act/folder", edit("config.json", n_action_steps=5))
    return found, compiled(found, folder, shop)


@pytest.fixture(scope="module")
def diffusion(shop: Path) -> tuple[Case, Path]:
    """Diffusion Policy: two observation steps, noise of its own shape."""
    found = case("diffusion-ddim")
    return found, compiled(found, found.folder, shop, "--form", "loop")


@pytest.fixture(scope="module")
def smolvla(shop: Path) -> tuple[Case, Path]:
    """Words, a language model and an expert; 4 of its 10 steps are executed."""
    found = case("smolvla")
    (shop / "smolvla").mkdir()
    folder = changed(found.folder, shop / "smolvla/folder", edit("config.json", n_action_steps=4))
    return found, compiled(found, folder, shop, "--form", "loop")


@pytest.fixture(scope="module")
def pi0(shop: Path) -> tuple[Case, Path]:
    """The same, with the state as the expert's first token."""
    found = case("pi0")
    return found, compiled(found, found.folder, shop, "--form", "loop")


@pytest.fixture(params=["act", "diffusion", "smolvla", "pi0"])
def release(request: pytest.FixtureRequest) -> tuple[Case, Path]:
    pair: tuple[Case, Path] = request.getfixturevalue(request.param)
    return pair


def test_the_c_abi_gives_what_lerobot_gave(release: tuple[Case, Path]) -> None:
    found, path = release
    nothing = np.empty((0, found.actions.shape[-1]), np.int32)
    with Policy(path) as policy:
        for n, (sample, wanted) in enumerate(zip(found.samples, found.actions, strict=True)):
            if found.tasks:
                policy.tell(found.tasks[n])
            actions = policy.refine(sample.images, sample.state, nothing, sample.noise)
            assert (np.abs(actions - wanted) / found.span).max() < 1e-4


@pytest.mark.parametrize("name", ["diffusion-ddim", "smolvla", "pi0"])
def test_unrolled_gives_the_same(shop: Path, name: str) -> None:
    found = case(name)
    path = compiled(found, found.folder, shop, "--form", "unrolled", "--name", "unrolled")
    nothing = np.empty((0, found.actions.shape[-1]), np.int32)
    with Policy(path) as policy:
        if found.tasks:
            policy.tell(found.tasks[0])
        actions = policy.refine(
            found.samples[0].images, found.samples[0].state, nothing, found.samples[0].noise
        )
    assert (np.abs(actions - found.actions[0]) / found.span).max() < 1e-4


def test_the_manifest_says_what_there_is_none_of(
    act: tuple[Case, Path], diffusion: tuple[Case, Path]
) -> None:
    one, other = (verify_integrity(path) for _, path in (act, diffusion))
    assert (one.policy.type, one.policy.bins, one.policy.instruction_length) == ("act", 0, 0)
    assert (one.policy.chunk, one.policy.predicted, one.policy.denoise_steps) == (5, 12, 0)
    assert one.embodiment.camera_sizes == ((64, 96), (72, 88))
    assert one.engines.planner is None
    assert {"golden/noise.npy", "tokenizer.json", "engines/planner.onnx"}.isdisjoint(one.members)
    assert (other.policy.observation_steps, other.policy.denoise_steps) == (2, 10)
    assert other.policy.predicted is None
    assert contract_of(other).noise_shape == (16, 4)
    assert "golden/noise.npy" in other.members


def observations(found: Case, count: int) -> Iterator[tuple[Any, Any]]:
    """One for each control step; every fourth step there is none."""
    random = np.random.default_rng(5)
    for i in range(count):
        sample = found.samples[int(random.integers(len(found.samples)))]
        images, state = sample.images, sample.state
        if state.ndim == 2:
            images, state = images[-1], state[-1]
        yield (None, None) if i % 4 == 3 else (images, state)


def test_sync_steps_as_the_reference_executor_does(release: tuple[Case, Path]) -> None:
    found, path = release
    contract = contract_of(verify_integrity(path))
    with Policy(path) as policy, Policy(path) as engines:
        executor = Executor(engines, contract)
        for seed in (3, 2**63 + 1):
            executor.reset(seed, found.samples[0].instruction)
            policy.restart(seed)
            if found.tasks:
                policy.set_instruction(found.samples[0].instruction)
            ran = 0
            for images, state in observations(found, 40):
                wanted, told = executor.step(images, state)
                if images is not None:
                    policy.observe(images, state)
                action, info = policy.step()
                np.testing.assert_array_equal(action, wanted)
                assert (info.state, info.refiner_ran) == (told.state, told.refiner_ran)
                assert not info.planner_ran
                ran += info.refiner_ran
            assert ran == -(-40 // contract.chunk)


@pytest.mark.parametrize("steps", [0, 3, 6])
def test_async_steps_as_the_reference_executor_does(act: tuple[Case, Path], steps: int) -> None:
    found, path = act
    contract = contract_of(verify_integrity(path))
    options = RunOptions(
        manual=True, blend="linear" if steps else "none", blend_steps=steps, refine_ahead_steps=4
    )
    period_ns = round(1e9 / contract.embodiment.control_hz)
    with Policy(path) as policy, Policy(path) as engines:
        executor = Executor(engines, contract, "async", blend=Blend(steps), refine_ahead_steps=4)
        executor.reset(7, np.empty(0, np.int64))
        policy.restart(7)
        policy.start(options)
        running, last = 0, (np.empty(0), np.empty(0))
        for tick, (images, state) in enumerate(observations(found, 60)):
            last = (images, state) if images is not None else last
            images, state = last
            wanted, told = executor.step(images, state)
            policy.observe(images, state, tick * period_ns)
            while policy.work(abi.REFINE_BEGIN):
                assert policy.work(abi.REFINE_END)
            action, info = policy.tick(tick * period_ns)
            assert info.state == told.state
            np.testing.assert_array_equal(action, wanted)
            running += info.state is State.RUNNING
            assert not policy.work(abi.PLAN_BEGIN)
        assert running == 60
        policy.stop()


def test_async_looks_back_as_sync_does(diffusion: tuple[Case, Path]) -> None:
    found, path = diffusion
    contract = contract_of(verify_integrity(path))
    period_ns = round(1e9 / contract.embodiment.control_hz)
    with Policy(path) as policy, Policy(path) as engines:
        executor = Executor(engines, contract, "async", refine_ahead_steps=2)
        executor.reset(1, np.empty(0, np.int64))
        policy.restart(1)
        policy.start(RunOptions(manual=True, refine_ahead_steps=2))
        last = (np.empty(0), np.empty(0))
        for tick, (images, state) in enumerate(observations(found, 40)):
            last = (images, state) if images is not None else last
            images, state = last
            wanted, _ = executor.step(images, state)
            policy.observe(images, state, tick * period_ns)
            while policy.work(abi.REFINE_BEGIN):
                assert policy.work(abi.REFINE_END)
            action, _ = policy.tick(tick * period_ns)
            np.testing.assert_array_equal(action, wanted)


def test_threads_run_it(act: tuple[Case, Path]) -> None:
    found, path = act
    with Policy(path) as policy:
        policy.start()
        images, state = found.samples[0].images, found.samples[0].state
        states = set()
        for _ in range(60):
            policy.observe(images, state, time.monotonic_ns())
            states.add(policy.tick(time.monotonic_ns())[1].state)
            time.sleep(0.02)
        assert State.RUNNING in states
        assert policy.stats()["plans"] == 0
        policy.stop()


def test_what_a_policy_has_not_is_refused(act: tuple[Case, Path]) -> None:
    found, path = act
    with Policy(path) as policy:
        sample, nothing = found.samples[0], np.empty((0, 6), np.int32)
        with pytest.raises(InputError, match="no instruction"):
            policy.set_instruction(np.empty(0, np.int64))
        with pytest.raises(InputError):
            policy.last_plan()
        with pytest.raises(InputError):
            policy.refine(sample.images[:-1], sample.state, nothing, sample.noise)
        intents, margins = policy.plan(sample.images, np.empty(0, np.int64), sample.state)
        assert intents.size == margins.size == 0
        assert policy.info.predicted == 12


def test_verify_passes_and_finds_other_weights(act: tuple[Case, Path], shop: Path) -> None:
    found, path = act
    robot = shop / "act.json"
    words = ["verify", str(path), "--robot", str(robot), "--samples", "6", "--json"]
    words += ["--cache", str(shop / "cache"), "--checkpoint"]
    done = CliRunner().invoke(program.app, [*words, str(shop / "act/folder")])
    assert done.exit_code == 0, done.output
    other = CliRunner().invoke(program.app, [*words, str(found.folder)])
    assert other.exit_code == int(ExitCode.PARITY), other.output


def test_verify_holds_the_tokenizer_against_what_is_given(
    smolvla: tuple[Case, Path], shop: Path
) -> None:
    found, path = smolvla
    words = ["verify", str(path), *found.flags(shop / "smolvla.json"), "--samples", "4", "--json"]
    words += ["--cache", str(shop / "cache"), "--checkpoint", str(shop / "smolvla/folder")]
    done = CliRunner().invoke(program.app, words)
    assert done.exit_code == 0, done.output
    at = words.index("--tokenizer") + 1
    (shop / "other").mkdir()
    body = json.loads(found.words.read_text())
    body["model"]["merges"] = body["model"]["merges"][:-1]
    words[at] = str(shop / "other/tokenizer.json")
    Path(words[at]).write_text(json.dumps(body))
    other = CliRunner().invoke(program.app, words)
    assert other.exit_code == int(ExitCode.PARITY), other.output
    assert "tokenizer" in other.output


def test_it_packs_and_opens_as_one_file(diffusion: tuple[Case, Path], shop: Path) -> None:
    pack_release(diffusion[1], shop / "one.libra")
    done = CliRunner().invoke(program.app, ["inspect", str(shop / "one.libra")])
    assert done.exit_code == 0, done.output
    assert "diffusion" in done.output


@pytest.mark.parametrize(
    ("name", "more", "word"),
    [
        ("diffusion-ddim", ("--recipe", "int8", "--calibrate", "nowhere"), "recipe-unsupported"),
        ("act", ("--recipe", "int8"), "calibration-data-missing"),
        ("act", ("--recipe", "int8", "--calibrate", "x", "--auto-precision"), "recipe-unsupported"),
        ("act", ("--random-weights",), "usage"),
        ("act", ("--recipe", "fp16"), "recipe"),
    ],
)
def test_what_is_not_there_yet_is_refused_before_work(
    shop: Path, name: str, more: tuple[str, ...], word: str
) -> None:
    found = case(name)
    robot = write_robot_file(found.robot, shop / "refused.json")
    words = ["compile", str(found.folder), "--robot", str(robot), "--out", str(shop / "no"), *more]
    done = CliRunner().invoke(program.app, words)
    assert done.exit_code != 0
    assert word in done.output
    assert not (shop / "no").exists()


def test_a_robot_is_refused_for_our_own_checkpoint(tmp_path: Path) -> None:
    from tests.tiny import write_tiny_checkpoint

    own = write_tiny_checkpoint(tmp_path / "own")
    words = ["compile", str(own), "--robot", str(tmp_path / "r.json"), "--out", str(tmp_path / "o")]
    done = CliRunner().invoke(program.app, words)
    assert done.exit_code != 0
    assert "--robot" in done.output


def test_a_dataset_of_cameras_of_two_sizes_verifies_it(
    act: tuple[Case, Path], shop: Path, tmp_path: Path
) -> None:
    """Recorded at one size, as cameras mostly are; each picture comes at its camera's own."""
    found, release = act
    robot = found.robot.model_copy(update={"camera_sizes": None})
    size = (len(robot.cameras), robot.image_height, robot.image_width, 3)
    random, steps = np.random.default_rng(0), 12
    with DatasetWriter(tmp_path / "set", robot, "lossless") as writer:
        for number in range(2):
            writer.add(
                Episode(
                    images=random.integers(0, 256, (steps, *size), dtype=np.uint8),
                    states=random.normal(size=(steps, len(robot.state))).astype(np.float32),
                    actions=random.normal(size=(steps, len(robot.actions))).astype(np.float32),
                    instruction="move",
                    task="move",
                    success=True,
                    seed=number,
                )
            )
    words = ["verify", str(release), "--checkpoint", str(shop / "act/folder"), "--samples", "8"]
    words += ["--robot", str(shop / "act.json"), "--data", str(tmp_path / "set")]
    done = CliRunner().invoke(program.app, [*words, "--cache", str(shop / "cache"), "--json"])
    body = json.loads(done.stdout)
    assert done.exit_code == 0, body
    # Those of the dataset, and made-up ones beside them.
    assert body["result"]["samples"] > 8
