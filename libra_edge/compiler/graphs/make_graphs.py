"""The machine-independent half of compiling: checkpoint → ONNX graphs, through the cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from libra_edge.compiler.cache import StageCache, sha256
from libra_edge.compiler.graphs.export import export, from_bytes, to_bytes
from libra_edge.compiler.graphs.fuse import FORMS, Form, fuse
from libra_edge.compiler.quantization.assign import Precisions
from libra_edge.compiler.quantization.quantize import Quantized
from libra_edge.policy.family import Parts
from libra_edge.policy.imported import AnyCheckpoint, AnyPolicy
from libra_edge.policy.libra_vla.model import LibraVLA
from libra_edge.policy.libra_vla.split import split

OnStage = Callable[[str, str], None]


@dataclass(frozen=True)
class Front:
    """A policy as graphs.

    exported: `planner` or none, and `context` and `step` or else `coarse`; refiners: the fused
    graph in each form there is. Libra-Base has no loop to unroll: its one graph is called unrolled.
    precisions: of the layers that could be quantised, empty where none was asked for.
    """

    parts: Parts
    exported: dict[str, bytes]
    refiners: dict[Form, bytes]
    precisions: Precisions = field(default_factory=dict)

    @property
    def planner(self) -> bytes | None:
        """The planner graph, which needs no fusing; None where there is none."""
        return self.exported.get("planner")


def make_graphs(
    checkpoint: AnyCheckpoint,
    cache: StageCache,
    on_stage: OnStage,
    quantized: Quantized | None = None,
    forms: tuple[Form, ...] = FORMS,
) -> Front:
    """Parts, export and fuse a checkpoint.

    Args:
        checkpoint: what to compile.
        cache: where stage outputs are kept.
        on_stage: called with each stage's name and what is going on.
        quantized: the checkpoint's policy with quantised layers, to be compiled in its place.
        forms: of the refiner, where there is a loop.
    """
    on_stage("split", "policy into graphs")
    parts = parts_of(quantized.policy if quantized else checkpoint.policy)
    inputs = {"checkpoint": checkpoint.sha256}
    if quantized:
        inputs["quantised"] = quantized.sha256
    on_stage("export", ", ".join(graph.name for graph in parts.graphs))
    in_blocks = any(p.weights == "int4" for p in quantized.precisions.values()) if quantized else ()
    exported, _ = cache.get_or_make(
        "export",
        inputs,
        lambda: {graph.name: to_bytes(export(graph)) for graph in parts.graphs},
    )
    on_stage("fuse", "denoising steps into one graph")
    hashes = {name: sha256(content) for name, content in exported.items()}
    # Engines turn 4-bit weights that several steps of an unrolled graph share into floats.
    possible: tuple[Form, ...] = ("loop",) if in_blocks else forms
    some = {} if forms == FORMS else {"forms": ",".join(possible)}
    fused, _ = cache.get_or_make(
        "fuse", inputs | hashes | some, lambda: _fuse(parts, exported, possible)
    )
    refiners = {form: fused[form] for form in FORMS if form in fused}
    return Front(parts, exported, refiners, quantized.precisions if quantized else {})


def parts_of(policy: AnyPolicy) -> Parts:
    """The modules of a policy that become graphs."""
    return split(policy) if isinstance(policy, LibraVLA) else policy.parts()


def _fuse(parts: Parts, exported: dict[str, bytes], forms: Sequence[Form]) -> dict[str, bytes]:
    if parts.tables is None:
        return {"unrolled": exported["coarse"]}
    context, step = from_bytes(exported["context"]), from_bytes(exported["step"])
    return {form: to_bytes(fuse(context, step, parts.tables, form)) for form in forms}
