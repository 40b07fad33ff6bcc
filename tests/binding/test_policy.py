"""Policy as Python sees it: a controller, its info, and arguments that do not fit."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from libra_edge.binding.policy import Policy
from libra_edge.data.types import Observation
from libra_edge.errors import InputError, LibraError
from tests.runtime.test_sync import bad, drive, some_observations, start
from tests.runtime.tiny_release import BAD_ACTION, D, H, L, T


def test_is_a_controller(policy: Policy, release: Path) -> None:
    observations = some_observations(L + H)
    policy.reset(5, "open the tap")
    found = [policy.act(Observation(i, s, "open the tap")) for i, s in observations]
    with Policy(release, seed=5) as other:
        other.set_instruction(policy._tokenizer.encode("open the tap"))
        expected = [action for action, _ in drive(other, observations)]
    np.testing.assert_array_equal(found, expected)
    assert policy.step_info is not None
    assert policy.step_info.step == L + H - 1
    images, state = bad(BAD_ACTION)
    with pytest.raises(LibraError) as caught:
        policy.act(Observation(images, state, "open the tap"))
    assert caught.value.code == "policy-fault"


def test_act_follows_the_observation_s_instruction(policy: Policy) -> None:
    images, state = some_observations(1)[0]
    actions = {}
    for instruction in ("open the tap", "close the drawer"):
        policy.reset(5, "open the tap")
        actions[instruction] = policy.act(Observation(images, state, instruction))
    assert not np.array_equal(*actions.values())


def test_info_describes_the_release(policy: Policy, release: Path) -> None:
    info = policy.info
    assert (info.bins, info.chunk, info.chunks_per_plan, info.plan_steps) == (10, H, 2, L)
    assert (info.denoise_steps, info.action_dim, info.state_dim, info.cameras) == (4, D, 3, 2)
    assert (info.image_height, info.image_width, info.instruction_length) == (4, 6, T)
    assert (info.name, info.target, info.recipe) == ("tiny", "cpu-x86_64", "fp32")
    assert (info.arch, info.threads, info.control_hz) == ("x86_64-linux-gnu", 1, 20.0)
    digest = hashlib.sha256((release / "manifest.json").read_bytes()).hexdigest()
    assert info.manifest_sha256 == digest


@pytest.mark.parametrize(
    "change",
    [
        lambda images, state: (images.astype(np.int8), state),
        lambda images, state: (images[:1], state),
        lambda images, state: (images, state.astype(np.float64)),
        lambda images, state: (images, state[:-1]),
        lambda images, state: (images, list(state)),
    ],
)
def test_arrays_of_another_kind_are_refused(policy: Policy, change: Any) -> None:
    with pytest.raises(InputError) as caught:
        policy.observe(*change(*some_observations(1)[0]))
    assert caught.value.code == "array-mismatch"


def test_views_are_made_contiguous(policy: Policy) -> None:
    images, state = some_observations(1)[0]
    start(policy)
    expected, _ = drive(policy, [(images, state)])[0]
    start(policy)
    strided = np.ascontiguousarray(images[:, :, ::-1])[:, :, ::-1]
    assert not strided.flags.c_contiguous
    found, _ = drive(policy, [(strided, state)])[0]
    np.testing.assert_array_equal(found, expected)


def test_a_closed_policy_is_refused(release: Path) -> None:
    policy = Policy(release)
    policy.close()
    policy.close()
    with pytest.raises(ValueError, match="closed"):
        policy.step()


def test_numbers_out_of_range_are_refused(release: Path) -> None:
    with pytest.raises(InputError, match="seed is -1"):
        Policy(release, seed=-1)
    with pytest.raises(InputError, match="threads is 0"):
        Policy(release, threads=0)
