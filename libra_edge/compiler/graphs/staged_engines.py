"""The output of every stage behind one interface, so that each can be held against the last."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch

from libra_edge.compiler.graphs.fuse import Form
from libra_edge.compiler.graphs.make_graphs import Front
from libra_edge.engines.onnxruntime import ENGINE
from libra_edge.engines.session import Array, EnginePair, Session
from libra_edge.evaluation.half import products_of
from libra_edge.evaluation.torch_controller import torch_engines
from libra_edge.parity.gates import FUSED, POLICY
from libra_edge.parity.on_demand import OnDemand
from libra_edge.policy.executor import Engines
from libra_edge.policy.family import Graph, Parts, Tables
from libra_edge.policy.imported import AnyPolicy

Run = Callable[[Mapping[str, Array]], Mapping[str, Array]]


class StagedEngines:
    """A policy in parts, with the denoising loop on the host.

    Args:
        parts: how to run `planner`, and `context` and `step` or else `coarse`, by name.
        tables: the loop's tables; None for Libra-Base.
    """

    def __init__(self, parts: Mapping[str, Run], tables: Tables | None) -> None:
        self._parts = parts
        self._tables = tables

    def plan(self, images: Array, instruction: Array, state: Array) -> tuple[Array, Array]:
        """See `libra_edge.policy.executor.Engines.plan`."""
        if "planner" not in self._parts:
            return np.empty((0, 0), np.int32), np.empty((0, 0), np.float32)
        feeds = {"images": images, "instruction": instruction, "state": state}
        result = self._parts["planner"](feeds)
        return result["intent"], result["margin"]

    def refine(
        self,
        images: Array,
        state: Array,
        intent: Array,
        noise: Array,
        instruction: Array | None = None,
    ) -> Array:
        """See `libra_edge.policy.executor.Engines.refine`."""
        observed = {"images": images, "state": state}
        if "planner" in self._parts:
            observed["intent"] = intent
        elif instruction is not None and instruction.size:
            observed["instruction"] = instruction
        if self._tables is None:
            return self._parts["coarse"](observed | ({"noise": noise} if noise.size else {}))[
                "actions"
            ]
        context = self._parts["context"](observed)
        x, previous = noise, np.zeros_like(noise)
        rows = zip(self._tables.modulation, self._tables.coefficients, strict=True)
        for modulation, coefficients in rows:
            feeds = {"x": x, "modulation": modulation, "coefficients": coefficients, **context}
            if self._tables.remembers:
                feeds["previous"] = previous
            result = self._parts["step"](feeds)
            x, previous = result["x_next"], result.get("clean", previous)
        end = None if self._tables.rows is None else self._tables.first_row + self._tables.rows
        kept = x[self._tables.first_row : end, : len(self._tables.scale)]
        return np.asarray(kept * self._tables.scale + self._tables.offset)


def stages(
    front: Front, form: Form, policy: AnyPolicy, quantized: AnyPolicy | None
) -> list[tuple[str, Engines]]:
    """Every stage by name, in the order the data flows: what each one is held against.

    Args:
        front: the graphs.
        form: the refiner's.
        policy: as trained.
        quantized: the same with quantised layers, where the recipe has them.
    """
    return [
        (POLICY, torch_engines(policy)),
        *([("quantised", torch_engines(quantized))] if quantized is not None else []),
        ("split", split_engines(front.parts)),
        ("exported", OnDemand(lambda: exported_engines(front.exported, front.parts.tables))),
        (FUSED, OnDemand(lambda: fused_engines(front.planner, front.refiners[form]))),
    ]


def split_engines(split: Parts) -> StagedEngines:
    """The split modules, run by PyTorch."""
    return StagedEngines({graph.name: _torch_run(graph) for graph in split.graphs}, split.tables)


def exported_engines(graphs: Mapping[str, bytes], tables: Tables | None) -> StagedEngines:
    """The exported ONNX graphs, run as written."""
    return StagedEngines({name: as_written(model).run for name, model in graphs.items()}, tables)


def fused_engines(planner: bytes | None, refiner: bytes) -> EnginePair:
    """The final graphs, run as written."""
    return EnginePair(None if planner is None else as_written(planner), as_written(refiner))


def as_written(model: bytes) -> Session:
    """An ONNX graph on the CPU without any optimisation."""
    return ENGINE.load(model, "CPUExecutionProvider", {}, optimize=False)


def _torch_run(graph: Graph) -> Run:
    def run(feeds: Mapping[str, Array]) -> dict[str, Array]:
        arguments = [torch.from_numpy(np.ascontiguousarray(feeds[name])) for name in graph.inputs]
        with torch.inference_mode(), products_of(graph.module):
            results = graph.module(*arguments)
        tensors = results if isinstance(results, tuple) else (results,)
        return {name: t.numpy() for name, t in zip(graph.outputs, tensors, strict=True)}

    return run
