"""The two graphs of a policy as `torch.export` programs, for engine kinds that start from one."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from libra_edge.engines.base import Program
from libra_edge.policy.family import Graph, Parts, Tables


class UnrolledRefiner(nn.Module):
    """images, state [P], intent [H, D], noise [H, D] → actions [H, D]: what `fuse` makes in ONNX.

    The context once, then a step per row of the tables.
    """

    def __init__(self, context: nn.Module, step: nn.Module, tables: Tables) -> None:
        super().__init__()
        self.context, self.step, self.remembers = context, step, tables.remembers
        for name in ("modulation", "coefficients", "scale", "offset"):
            self.register_buffer(name, torch.from_numpy(getattr(tables, name).copy()))

    def forward(self, images: Tensor, state: Tensor, intent: Tensor, noise: Tensor) -> Tensor:
        """See the class."""
        context = self.context(images, state, intent)
        x, previous = noise, torch.zeros_like(noise)
        modulation, coefficients = (
            cast(Tensor, self.modulation).unbind(0),
            cast(Tensor, self.coefficients).unbind(0),
        )
        for rows in zip(modulation, coefficients, strict=True):
            carried = (x, previous) if self.remembers else (x,)
            x, *clean = self.step(*carried, *rows, *context)
            previous = clean[0] if clean else previous
        return x * cast(Tensor, self.scale) + cast(Tensor, self.offset)


def programs(split: Parts) -> Mapping[str, Program]:
    """What makes the program of `planner`, where there is one, and of `refiner`."""
    refiner: dict[str, Program] = {"refiner": partial(_refiner, split)}
    if split.planner is None:
        return refiner
    return {"planner": partial(_export, split.planner), **refiner}


def _refiner(split: Parts) -> ExportedProgram:
    if split.coarse is not None:
        return _export(split.coarse)
    assert split.context is not None
    assert split.step is not None
    assert split.tables is not None
    module = UnrolledRefiner(split.context.module, split.step.module, split.tables).eval()
    # Not the step's own arguments: their first is x, as is the noise.
    arguments = (*split.context.arguments, split.step.arguments[0].clone())
    return _export(Graph("refiner", module, arguments, (), ()))


def _export(graph: Graph) -> ExportedProgram:
    with torch.no_grad():
        return torch.export.export(graph.module, graph.arguments)
