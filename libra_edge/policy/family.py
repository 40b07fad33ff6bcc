"""What every policy family gives the compiler: a contract, graphs, tables and a reference.

A family is a folder of this package. It reads checkpoint folders and yields `Parts`; nothing
outside the folder knows its name.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

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
