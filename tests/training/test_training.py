from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from libra_edge.data.types import Episode
from libra_edge.errors import InputError, LibraError
from libra_edge.policy.actions import to_tokens
from libra_edge.policy.checkpoint import build_policy, load_checkpoint
from libra_edge.policy.config import RealTimeConfig
from libra_edge.policy.tokenizer import Tokenizer, word_tokenizer
from libra_edge.training.config import (
    CurriculumConfig,
    TrainingConfig,
    TrainingRecipe,
    read_training_recipe,
)
from libra_edge.training.losses import Curriculum, coarse_loss, mixed_intents
from libra_edge.training.trainer import Trainer
from libra_edge.training.windows import Track, Windows, random_shift
from tests.tiny import INSTRUCTIONS, tiny_config, tiny_statistics

FLOW = {
    "prediction_type": "velocity",
    "scheduler": "flow_euler",
    "denoise_steps": 4,
    "clip_sample": None,
}
TOKENIZER = word_tokenizer(INSTRUCTIONS).to_str()


def episodes(count: int = 3, length: int = 11) -> list[Episode]:
    random = np.random.default_rng(0)
    return [
        Episode(
            images=random.integers(0, 256, (length, 2, 16, 24, 3), dtype=np.uint8),
            states=np.stack([np.full(length, i), np.arange(length), np.zeros(length)], 1).astype(
                "f"
            ),
            actions=np.linspace([-0.4, -1.5, 0], [0.5, 1, 1], length, dtype=np.float32),
            instruction=INSTRUCTIONS[i % 3],
            task="tiny",
            success=True,
            seed=i,
        )
        for i in range(count)
    ]


def windows(tmp_path: Path, **changes: Any) -> tuple[Any, Windows]:
    policy = build_policy(tiny_config(**changes), tiny_statistics())
    (tmp_path / "tokenizer.json").write_text(TOKENIZER)
    tokenizer = Tokenizer(tmp_path / "tokenizer.json", 5)
    recorded = episodes()
    return policy, Windows(
        np.concatenate([episode.images for episode in recorded]),
        [Track(e.states, e.actions, ((0, e.instruction),)) for e in recorded],
        policy.config,
        policy.state_affine,
        policy.action_affine,
        tokenizer,
    )


def trainer(tmp_path: Path, out: str, seed: int = 0, steps: int = 6, **changes: Any) -> Trainer:
    torch.manual_seed(seed)
    policy, samples = windows(tmp_path, **changes)
    config = TrainingConfig(
        steps=steps,
        batch=8,
        precision="float32",
        save_every=3,
        log_every=1,
        learning_rate=1e-2,
        ema_decay=0.5,
        random_shift_px=1,
        curriculum=CurriculumConfig(threshold=0.05, ramp_steps=2),
    )
    return Trainer(policy, samples, config, tmp_path / out, tiny_statistics(), TOKENIZER)


def test_windows_are_what_the_engines_see_at_run_time(tmp_path: Path) -> None:
    policy, samples = windows(tmp_path)
    batch = samples.batch(200, np.random.default_rng(0))
    recorded_images = [e.images for e in episodes()]
    recorded = policy.action_affine.normalize(episodes()[0].actions)
    tokens = to_tokens(recorded, 10)
    seen, seen_late = (
        policy.state_affine.denormalize(s).round().astype(int)
        for s in (batch.states, batch.late_states)
    )
    for i in range(200):
        episode, start, _ = seen[i]
        assert batch.offset[i] in (0, 3)
        late = min(start + batch.offset[i], 10)
        assert seen_late[i, :2].tolist() == [episode, late]
        np.testing.assert_array_equal(batch.images[i], recorded_images[episode][start])
        np.testing.assert_array_equal(batch.late_images[i], recorded_images[episode][late])
        assert batch.mask[i].tolist() == [float(start + k <= 10) for k in range(6)]
        for k in range(6):
            np.testing.assert_array_equal(batch.tokens[i, k], tokens[min(start + k, 10)])
        for k in range(3):
            np.testing.assert_array_equal(batch.late_actions[i, k], recorded[min(late + k, 10)])
            assert batch.late_mask[i, k] == float(late + k <= 10)


@pytest.mark.parametrize(
    ("age", "offsets", "pairs"),
    [
        (3, True, {(o, d) for o in range(4) for d in range(o + 1)}),
        (1, True, {(o, d) for o in range(4) for d in range(min(o, 1) + 1)}),
        (0, True, {(o, 0) for o in range(4)}),
        (3, False, {(0, 0), *((3, d) for d in range(4))}),
        (0, False, {(0, 0), (3, 0)}),
    ],
)
def test_windows_of_real_time_are_what_async_mode_shows(
    tmp_path: Path, age: int, offsets: bool, pairs: set[tuple[int, int]]
) -> None:
    shown = {"observation_age_steps": age, "plan_offsets": offsets}
    policy, samples = windows(tmp_path, real_time=shown)
    batch = samples.batch(600, np.random.default_rng(0))
    recorded = policy.action_affine.normalize(episodes()[0].actions)
    seen, seen_late = (
        policy.state_affine.denormalize(s).round().astype(int)
        for s in (batch.states, batch.late_states)
    )
    found = set()
    for i, (offset, (episode, start, _)) in enumerate(zip(batch.offset, seen, strict=True)):
        first, looked = min(start + offset, 10), seen_late[i, 1]
        assert seen_late[i, 0] == episode
        assert start <= looked <= first, "no refiner call begins before its plan"
        np.testing.assert_array_equal(batch.late_images[i], episodes()[episode].images[looked])
        for k in range(3):
            np.testing.assert_array_equal(batch.late_actions[i, k], recorded[min(first + k, 10)])
            assert batch.late_mask[i, k] == float(first + k <= 10)
        if start + offset <= 10:
            found.add((int(offset), int(first - looked)))
    assert found == pairs


def test_the_refiner_gets_the_intents_from_the_offset_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_time = {"observation_age_steps": 3, "plan_offsets": True}
    run = trainer(tmp_path, "run", real_time=real_time)
    refiner = run._policy.refiner
    given: list[torch.Tensor] = []
    context = refiner.context
    monkeypatch.setattr(refiner, "context", lambda m, i: (given.append(i), context(m, i))[1])
    drawn: list[Any] = []
    batch = run._windows.batch
    monkeypatch.setattr(run._windows, "batch", lambda *a: (drawn.append(batch(*a)), drawn[-1])[1])
    run._train_step()
    for row, offset, intent in zip(drawn[0].tokens, drawn[0].offset, given[0], strict=True):
        np.testing.assert_array_equal(intent.numpy(), row[offset : offset + 3])


def test_new_policies_are_trained_for_real_time_and_say_so() -> None:
    robot = tiny_config().embodiment
    plain = TrainingRecipe(policy={"chunk": 4}).policy_config(9, robot)
    assert plain.real_time == RealTimeConfig(observation_age_steps=4, plan_offsets=True)
    off = TrainingRecipe.model_validate(
        {"training": {"real_time": {"observation_age_steps": 0, "plan_offsets": False}}}
    ).policy_config(9, robot)
    assert off.real_time == RealTimeConfig(observation_age_steps=0, plan_offsets=False)
    # What is from before this says nothing, and its bytes are as they were.
    assert "real_time" not in tiny_config().to_json()


def test_random_shift_moves_whole_views_and_repeats_edges() -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 2, 16, 24, 3), dtype=np.uint8)
    moved = random_shift(images, 3, np.random.default_rng(1))
    assert moved.shape == images.shape
    assert not np.array_equal(moved, images)
    assert np.array_equal(random_shift(images, 0, np.random.default_rng(1)), images)
    padded = np.pad(images[0, 0], ((3, 3), (3, 3), (0, 0)), mode="edge")
    crops = [padded[r : r + 16, c : c + 24] for r in range(7) for c in range(7)]
    assert any(np.array_equal(crop, moved[0, 0]) for crop in crops)


def test_masked_steps_do_not_count() -> None:
    logits = torch.zeros(1, 2, 1, 3)
    logits[0, 0, 0, 1] = 20.0
    tokens = torch.tensor([[[1], [2]]])
    loss, accuracy = coarse_loss(logits, tokens, torch.tensor([[1.0, 0.0]]))
    assert accuracy == 1.0
    assert loss < 1e-6
    _, accuracy = coarse_loss(logits, tokens, torch.tensor([[1.0, 1.0]]))
    assert accuracy == 0.5


def test_curriculum_switches_over_by_accuracy() -> None:
    curriculum = Curriculum(CurriculumConfig(threshold=0.5, ramp_steps=10))
    for step in range(100):
        assert curriculum.own_share(step) == 0.0
        curriculum.observe(step, 0.4)
    curriculum.accuracy = 0.6
    curriculum.observe(100, 0.6)
    assert [curriculum.own_share(s) for s in (100, 105, 110, 500)] == [0.0, 0.5, 1.0, 1.0]
    curriculum.observe(101, 0.0)
    assert curriculum.own_share(105) == 0.5, "the switch is not taken back"


@pytest.mark.parametrize(("mode", "share"), [("teacher", 0.0), ("own", 1.0)])
def test_curriculum_can_be_pure(mode: Any, share: float) -> None:
    curriculum = Curriculum(CurriculumConfig(mode=mode))
    curriculum.observe(0, 1.0)
    assert curriculum.own_share(10_000) == share


def test_mixed_intents_are_sampled_from_the_planner() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.full((400, 2, 3, 10), -30.0)
    logits[..., 4] = 0.0
    logits[..., 5] = 0.0
    tokens = torch.zeros(400, 2, 3, dtype=torch.int32)
    mixed = mixed_intents(logits, tokens, 0.5, generator)
    own = (mixed != 0).any(-1).any(-1)
    assert 0.4 < own.float().mean() < 0.6
    assert set(mixed[own].flatten().tolist()) == {4, 5}
    assert torch.equal(mixed_intents(logits, tokens, 0.0, generator), tokens)


@pytest.mark.parametrize("changes", [{}, {"schedule": FLOW}, {"refiner": None}])
def test_training_lowers_the_losses_and_gives_a_checkpoint(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    run = trainer(tmp_path, "run", steps=100, **changes)
    run.run()
    rows = [json.loads(x) for x in (tmp_path / "run/training_log.jsonl").read_text().splitlines()]
    first, last = rows[:5], rows[-5:]
    for name in ("loss/coarse", "loss/refine"):
        before, after = (sum(r[name] for r in part) for part in (first, last))
        assert after < 0.7 * before or (before == after == 0)
    assert rows[-1]["curriculum/own_share"] == 1.0
    assert load_checkpoint(tmp_path / "run").config.chunk == 3
    assert list((tmp_path / "run/events").iterdir())


def test_a_resumed_run_is_the_same_run(tmp_path: Path) -> None:
    whole = trainer(tmp_path, "whole")
    whole.run()
    stopped = trainer(tmp_path, "stopped")

    class Stop(Exception):
        pass

    def stop(step: int, _: object) -> None:
        if step == 4:
            raise Stop

    with pytest.raises(Stop):
        stopped.run(stop)
    resumed = trainer(tmp_path, "stopped", seed=99)
    resumed.resume()
    assert resumed.step == 3
    resumed.run()
    weights = [(tmp_path / n / "model.safetensors").read_bytes() for n in ("whole", "stopped")]
    assert weights[0] == weights[1]


def test_resume_needs_the_same_recipe(tmp_path: Path) -> None:
    trainer(tmp_path, "run", steps=3).run()
    with pytest.raises(InputError, match="resume-mismatch"):
        trainer(tmp_path, "run", steps=4).resume()
    with pytest.raises(InputError, match="nothing-to-resume"):
        trainer(tmp_path, "nowhere").resume()


def test_a_diverged_run_stops_and_says_so(tmp_path: Path) -> None:
    run = trainer(tmp_path, "run")
    with torch.no_grad():
        run._policy.planner.queries.fill_(float("nan"))
    with pytest.raises(LibraError, match="training-diverged"):
        run.run()
    assert not (tmp_path / "run/model.safetensors").exists()


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("[training]\nstepz = 3\n", "recipe-invalid"),
        ("[training]\nsteps = 0\n", "recipe-invalid"),
        ("not toml", "recipe-invalid"),
    ],
)
def test_bad_recipes(tmp_path: Path, text: str, code: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=code):
        read_training_recipe(path)
    with pytest.raises(InputError, match="recipe-missing"):
        read_training_recipe(tmp_path / "nowhere.toml")


@contextmanager
def files_no_larger_than(size_bytes: int) -> Iterator[None]:
    """A disk that is full once a file has this size."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# The log and events, weights, or the state to resume from are what does not fit.
@pytest.mark.parametrize("size_bytes", [50, 300, 1_000, 20_000, 150_000])
def test_a_full_disk_is_told_and_harms_nothing(tmp_path: Path, size_bytes: int) -> None:
    trainer(tmp_path, "run", steps=3).run()
    kept = {
        path.name: path.read_bytes() for path in (tmp_path / "run").glob("*.*") if path.is_file()
    }
    again = trainer(tmp_path, "run", steps=3, seed=1)
    with files_no_larger_than(size_bytes), pytest.raises(LibraError) as caught:
        again.run()
    assert caught.value.code == "disk-full"
    assert str(tmp_path / "run") in caught.value.fact
    left = {path.name: path for path in (tmp_path / "run").glob("*.*")}
    assert left.keys() == kept.keys()
    load_checkpoint(tmp_path / "run")
    assert left["training_state.pt"].read_bytes() == kept["training_state.pt"]


def test_a_place_that_may_not_be_written_to_is_told(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(InputError, match="cannot-write"):
        trainer(tmp_path, "run").run()
