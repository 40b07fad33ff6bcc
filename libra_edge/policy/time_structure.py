"""What execution has to know of a policy of any family."""

from __future__ import annotations

from typing import Protocol

from libra_edge.policy.config import Embodiment


class TimeStructure(Protocol):
    """What execution has to know of a policy; `PolicyConfig` has it, and every family's contract.

    chunk: H executed steps of the `rows` that a refiner call gives; plans: whether there is a
    planner; noise_shape: of one refiner call, (0,) where it takes none.
    """

    @property
    def embodiment(self) -> Embodiment: ...  # noqa: D102
    @property
    def bins(self) -> int: ...  # noqa: D102
    @property
    def chunk(self) -> int: ...  # noqa: D102
    @property
    def chunks_per_plan(self) -> int: ...  # noqa: D102
    @property
    def plan_steps(self) -> int: ...  # noqa: D102
    @property
    def instruction_length(self) -> int: ...  # noqa: D102
    @property
    def plans(self) -> bool: ...  # noqa: D102
    @property
    def rows(self) -> int: ...  # noqa: D102
    @property
    def observation_steps(self) -> int: ...  # noqa: D102
    @property
    def noise_shape(self) -> tuple[int, ...]: ...  # noqa: D102
