"""The PyTorch policy behind the interfaces that engines and closed loops use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from libra_edge.data.types import Observation
from libra_edge.evaluation.half import products_of
from libra_edge.paths import StrPath
from libra_edge.policy.checkpoint import load_checkpoint
from libra_edge.policy.executor import (
    Engines,
    ExecutedStep,
    Executor,
    Floats,
    Images,
    Instruction,
    Tokens,
)
from libra_edge.policy.family import Policy
from libra_edge.policy.imported import AnyPolicy, module_of
from libra_edge.policy.libra_vla.model import LibraVLA


class TorchEngines:
    """`Engines` over a PyTorch policy, one observation at a time."""

    def __init__(self, policy: LibraVLA) -> None:
        self._policy = policy

    @torch.inference_mode()
    def plan(
        self, images: Images, instruction: Instruction, state: Floats
    ) -> tuple[Tokens, npt.NDArray[np.float32]]:
        """See `libra_edge.policy.executor.Engines.plan`."""
        batch = (torch.from_numpy(a)[None] for a in (images, instruction, state))
        intent, margin = self._policy.plan(*batch)
        return intent[0].numpy(), margin[0].numpy()

    @torch.inference_mode()
    def refine(
        self,
        images: Images,
        state: Floats,
        intent: Tokens,
        noise: Floats,
        instruction: Instruction | None = None,
    ) -> Floats:
        """See `libra_edge.policy.executor.Engines.refine`."""
        batch = (torch.from_numpy(a)[None] for a in (images, state, intent, noise))
        actions: Floats = self._policy.refine(*batch)[0].numpy()
        return actions


class FamilyEngines:
    """`Engines` over the policy of another family, which has no planner."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def plan(
        self, images: Images, instruction: Instruction, state: Floats
    ) -> tuple[Tokens, npt.NDArray[np.float32]]:
        """Nothing."""
        return np.empty((0, 0), np.int32), np.empty((0, 0), np.float32)

    @torch.inference_mode()
    def refine(
        self,
        images: Images,
        state: Floats,
        intent: Tokens,
        noise: Floats,
        instruction: Instruction | None = None,
    ) -> Floats:
        """See `libra_edge.policy.executor.Engines.refine`."""
        words = np.empty(0, np.int64) if instruction is None else instruction
        inputs = (torch.from_numpy(a) for a in (images, state, words, noise))
        with products_of(module_of(self._policy)):
            actions: Floats = self._policy.refine(*inputs).numpy()
        return actions


def torch_engines(policy: AnyPolicy) -> Engines:
    """`Engines` over a policy of any family."""
    return TorchEngines(policy) if isinstance(policy, LibraVLA) else FamilyEngines(policy)


class ShuffledIntents(TorchEngines):
    """Replaces every plan by uniformly random intents: how much does the refiner need them?"""

    def __init__(self, policy: LibraVLA) -> None:
        super().__init__(policy)
        self._bins = policy.config.bins
        self.seed(0)

    def seed(self, seed: int) -> None:
        """Start the random intents of one episode."""
        self._random = np.random.default_rng([seed, 1])

    def plan(
        self, images: Images, instruction: Instruction, state: Floats
    ) -> tuple[Tokens, npt.NDArray[np.float32]]:
        """Plan as usual, then keep only the margins."""
        intent, margin = super().plan(images, instruction, state)
        return self._random.integers(0, self._bins, intent.shape, dtype=np.int32), margin


class TorchController:
    """Drives a closed loop with a checkpoint, in sync mode.

    Args:
        checkpoint_dir: the checkpoint folder.
        shuffle_intents: feed the refiner random intents (an ablation).
        threads: PyTorch's intra-op threads, for the whole process.
    """

    def __init__(
        self, checkpoint_dir: StrPath, *, shuffle_intents: bool = False, threads: int = 1
    ) -> None:
        checkpoint_dir = Path(checkpoint_dir)
        torch.set_num_threads(threads)
        checkpoint = load_checkpoint(Path(checkpoint_dir))
        self._tokenizer = checkpoint.tokenizer
        self._engines = (ShuffledIntents if shuffle_intents else TorchEngines)(checkpoint.policy)
        self._executor = Executor(self._engines, checkpoint.config)
        self.step_info: ExecutedStep | None = None
        self._told: str | None = None

    def reset(self, seed: int, instruction: str) -> None:
        """Start an episode; `seed` fixes the refiner's noise."""
        if isinstance(self._engines, ShuffledIntents):
            self._engines.seed(seed)
        self._executor.reset(seed, self._tokenizer.encode(instruction))
        self._told = instruction

    def act(self, observation: Observation) -> Floats:
        """One control step: the action float32 [D] in physical units."""
        if observation.instruction != self._told:
            self._executor.instruction = self._tokenizer.encode(observation.instruction)
            self._told = observation.instruction
        action, self.step_info = self._executor.step(observation.images, observation.state)
        return action
