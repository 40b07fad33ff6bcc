"""What every policy family gives the compiler: a contract, graphs, tables and a reference.

A family is a folder of this package. It reads checkpoint folders and yields `Parts`; nothing
outside the folder knows its name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from libra_edge.catalog import PartName
from libra_edge.policy.config import Embodiment
from libra_edge.policy.tokenizer import Tokenizer

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Graph:
    """One module to export: example arguments, and the names of its inputs and outputs.

    No tensor has a batch axis, but for those that only the family's own step graph reads.
    """

    name: str
    module: nn.Module
    arguments: tuple[Tensor, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class Named(nn.Module):
    """A part of a policy under the name it has there: so are its weights called in every graph."""

    def __init__(self, name: str, part: nn.Module) -> None:
        super().__init__()
        self.add_module(name, part)
        self._name = name

    def forward(self, *arguments: Tensor) -> Any:
        """What the part gives."""
        return self.get_submodule(self._name)(*arguments)


@dataclass(frozen=True)
class Tables:
    """What the denoising loop knows before any observation.

    modulation: what depends on the step alone, float32 [K, W]; coefficients: of the sampler,
    float32 [K, 5] or, where the network's output itself has a part in the next sample, [K, 6];
    remembers: whether the fifth is ever used; scale, offset: normalised to physical actions,
    float32 [D]; first_row, rows: the steps of the sample [., A] that are the chunk, None for all;
    of its A columns the first D are the action.
    """

    modulation: Floats
    coefficients: Floats
    remembers: bool
    scale: Floats
    offset: Floats
    first_row: int = 0
    rows: int | None = None

    def finish(self, sample: Tensor) -> Tensor:
        """The clean sample [., A] to the chunk in physical units, [rows, D]."""
        end = None if self.rows is None else self.first_row + self.rows
        kept = sample[self.first_row : end, : len(self.scale)]
        return kept * torch.from_numpy(self.scale) + torch.from_numpy(self.offset)


@dataclass(frozen=True)
class Parts:
    """A policy in parts: `planner` or none; `context`, `step` and `tables`, or else `coarse`."""

    planner: Graph | None = None
    context: Graph | None = None
    step: Graph | None = None
    tables: Tables | None = None
    coarse: Graph | None = None

    @property
    def graphs(self) -> tuple[Graph, ...]:
        """The graphs there are, in the order the data flows."""
        parts = (self.planner, self.context, self.step, self.coarse)
        return tuple(part for part in parts if part is not None)


@dataclass(frozen=True)
class Contract:
    """What a policy without a planner asks of a robot and of what runs it.

    chunk: H, control steps executed of the `rows` that one call gives; noise_shape: (0,) where it
    takes no noise, and then `denoise_steps` is 0 and the last two are "none".
    """

    embodiment: Embodiment
    family: str
    chunk: int
    rows: int
    observation_steps: int = 1
    instruction_length: int = 0
    vocabulary: int = 0
    denoise_steps: int = 0
    noise_shape: tuple[int, ...] = (0,)
    prediction_type: str = "none"
    scheduler: str = "none"

    bins: ClassVar[int] = 0
    chunks_per_plan: ClassVar[int] = 1
    plans: ClassVar[bool] = False

    @property
    def plan_steps(self) -> int:
        """Control steps that one decision covers."""
        return self.chunk

    @property
    def num_cameras(self) -> int:
        """V."""
        return len(self.embodiment.cameras)

    @property
    def state_dim(self) -> int:
        """P."""
        return len(self.embodiment.state)

    @property
    def action_dim(self) -> int:
        """D."""
        return len(self.embodiment.actions)


class Policy(Protocol):
    """The reference of a family's policy in PyTorch, in eval mode, float32.

    images, state, instruction and noise have the engine's own shapes, without a batch axis.
    """

    def refine(self, images: Tensor, state: Tensor, instruction: Tensor, noise: Tensor) -> Tensor:
        """Actions float32 [rows, D] in physical units."""
        ...

    def refine_steps(
        self, images: Tensor, state: Tensor, instruction: Tensor, noise: Tensor
    ) -> Iterator[Tensor]:
        """The noisy sample after each denoising step; nothing where there is none."""
        ...

    def parts(self) -> Parts:
        """The modules that become graphs."""
        ...


@dataclass(frozen=True)
class ReadOptions:
    """What a folder may not say itself.

    robot: limits, kinds, units and rate; tokenizer: a `tokenizer.json`; vlm_config: a folder with
    the configuration of the vision-language model.
    """

    robot: Embodiment | None = None
    tokenizer: Path | None = None
    vlm_config: Path | None = None


@dataclass(frozen=True)
class Loaded:
    """A folder that a family has read.

    sha256: of every file that defines the policy, and of the robot's description; notes: what was
    read how, in sentences.
    """

    contract: Contract
    policy: Policy
    sha256: str
    tokenizer: Tokenizer | None = None
    notes: tuple[str, ...] = ()


class Family(Protocol):
    """One kind of policy: what `libra_edge.policy.<folder>.family.FAMILY` has to be.

    parts: what a recipe calls the layers below a name of the policy's; None for layers that are
    none of a graph. The longest name that matches decides; layers that none matches stay as they
    are. Names of different families never meet. takes: fields of `ReadOptions` that it has a use
    for, beside the robot.
    """

    name: str
    takes: tuple[str, ...]
    parts: Mapping[str, PartName | None]

    def recognises(self, config: Mapping[str, Any]) -> bool:
        """Whether a folder with this `config.json` holds one."""
        ...

    def read(self, folder: Path, options: ReadOptions) -> Loaded:
        """Read one.

        Raises:
            InputError: anything that does not fit, by name, before weights are read if it can be.
        """
        ...
