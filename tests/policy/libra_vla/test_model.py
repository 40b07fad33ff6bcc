from __future__ import annotations

from pathlib import Path

import pytest
import torch

from libra_edge.policy.checkpoint import build_policy, load_checkpoint
from libra_edge.policy.libra_vla.model import LibraVLA
from libra_edge.policy.libra_vla.planner import intents_and_margins
from tests.tiny import tiny_config, tiny_statistics, write_tiny_checkpoint


def observation(policy: LibraVLA, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    robot = policy.config.embodiment
    generator = torch.Generator().manual_seed(1)
    shape = (batch, policy.config.num_cameras, robot.image_height, robot.image_width, 3)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return images, torch.randn(batch, policy.config.state_dim, generator=generator)


@pytest.fixture
def policy(tmp_path: Path) -> LibraVLA:
    return load_checkpoint(write_tiny_checkpoint(tmp_path / "c")).policy


def noise_and_intent(policy: LibraVLA, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    shape = (batch, policy.config.chunk, policy.config.action_dim)
    intent = torch.randint(0, policy.config.bins, shape, generator=generator, dtype=torch.int32)
    return torch.randn(shape, generator=generator), intent


def test_shapes(policy: LibraVLA) -> None:
    images, state = observation(policy)
    instruction = torch.ones(2, policy.config.instruction_length, dtype=torch.int64)
    intent, margin = policy.plan(images, instruction, state)
    assert intent.shape == margin.shape == (2, 6, 3)
    assert intent.dtype == torch.int32
    assert (margin >= 0).all()
    noise, intent = noise_and_intent(policy)
    assert policy.refine(images, state, intent, noise).shape == (2, 3, 3)


def test_every_input_matters(policy: LibraVLA) -> None:
    images, state = observation(policy)
    noise, intent = noise_and_intent(policy)
    instruction = torch.ones(2, 5, dtype=torch.int64)
    logits = policy.planner(images, instruction, state)
    assert not torch.equal(policy.planner(images, instruction + 1, state), logits)
    assert not torch.equal(policy.planner(255 - images, instruction, state), logits)
    assert not torch.equal(policy.planner(images.flip(1), instruction, state), logits)
    assert not torch.equal(policy.planner(images, instruction, state + 1), logits)
    actions = policy.refine(images, state, intent, noise)
    for changed in (
        (255 - images, state, intent, noise),
        (images.flip(1), state, intent, noise),
        (images, state + 1, intent, noise),
        (images, state, (intent + 1) % 10, noise),
        (images, state, intent, -noise),
    ):
        assert not torch.allclose(policy.refine(*changed), actions)


def test_the_batch_does_not_mix(policy: LibraVLA) -> None:
    images, state = observation(policy)
    noise, intent = noise_and_intent(policy)
    both = policy.refine(images, state, intent, noise)
    one = policy.refine(images[1:], state[1:], intent[1:], noise[1:])
    torch.testing.assert_close(both[1:], one)


def test_the_forward_pass_is_the_sum_of_its_parts(policy: LibraVLA) -> None:
    refiner = policy.refiner
    assert refiner is not None
    images, state = observation(policy)
    noise, intent = noise_and_intent(policy)
    time = torch.tensor([3.0, 50.0])
    context = refiner.context(refiner.encode(images, state), intent)
    parts = refiner.denoise(noise, refiner.modulation(time), context)
    torch.testing.assert_close(refiner(images, state, intent, noise, time), parts)


def test_several_noises_can_share_a_context(policy: LibraVLA) -> None:
    """What training does to save encodings gives what one noise at a time gives."""
    refiner = policy.refiner
    assert refiner is not None
    images, state = observation(policy)
    _, intent = noise_and_intent(policy)
    context = refiner.context(refiner.encode(images, state), intent)
    noise = torch.randn(6, 3, 3, generator=torch.Generator().manual_seed(3))
    time = torch.arange(6.0)
    shared = context._replace(intents=context.intents.repeat_interleave(3, 0))
    together = refiner.denoise(noise, refiner.modulation(time), shared)
    repeated = type(context)(
        context.intents.repeat_interleave(3, 0),
        tuple(key.repeat_interleave(3, 0) for key in context.keys),
        tuple(value.repeat_interleave(3, 0) for value in context.values),
    )
    torch.testing.assert_close(together, refiner.denoise(noise, refiner.modulation(time), repeated))


def test_actions_are_in_physical_units_and_clipped(policy: LibraVLA) -> None:
    images, state = observation(policy)
    noise, intent = noise_and_intent(policy)
    actions = policy.refine(images, state, intent, 100 * noise)
    low, high = (torch.tensor(tiny_statistics()["action"][q]) for q in ("q01", "q99"))
    assert (actions >= low - 1e-5).all()
    assert (actions <= high + 1e-5).all()


def test_without_a_visual_encoder_images_do_not_matter(tmp_path: Path) -> None:
    refiner = tiny_config().refiner
    assert refiner is not None
    blind = refiner.model_dump() | {"visual_encoder": False}
    policy = load_checkpoint(write_tiny_checkpoint(tmp_path / "c", refiner=blind)).policy
    images, state = observation(policy)
    noise, intent = noise_and_intent(policy)
    actions = policy.refine(images, state, intent, noise)
    assert torch.equal(policy.refine(255 - images, state, intent, noise), actions)
    assert not torch.allclose(policy.refine(images, state + 1, intent, noise), actions)


def test_libra_base_executes_bin_centres(tmp_path: Path) -> None:
    policy = load_checkpoint(write_tiny_checkpoint(tmp_path / "c", refiner=None)).policy
    images, state = observation(policy)
    noise, _ = noise_and_intent(policy)
    intent = torch.full((2, 3, 3), 9, dtype=torch.int32)
    actions = policy.refine(images, state, intent, noise)
    low, high = (torch.tensor(tiny_statistics()["action"][q]) for q in ("q01", "q99"))
    expected = (low + high) / 2 + 0.9 * (high - low) / 2
    torch.testing.assert_close(actions, expected.expand(2, 3, 3))


def test_ties_go_to_the_lowest_token() -> None:
    intent, margin = intents_and_margins(torch.tensor([[1.0, 3.0, 3.0], [2.0, 0.0, 1.0]]))
    assert intent.tolist() == [1, 0]
    assert margin.tolist() == [0.0, 1.0]


def test_statistics_are_not_weights() -> None:
    policy = build_policy(tiny_config(), tiny_statistics())
    assert not [n for n in policy.state_dict() if "offset" in n or "scale" in n]
