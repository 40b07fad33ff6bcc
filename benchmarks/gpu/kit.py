"""What a GPU machine without our exporter needs of us: graphs, golden vectors, a manifest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from baseline import ROOT

from gpu.policies import DEMO, graph_file
from libra_edge.parity.gates import Outputs
from libra_edge.parity.samples import Sample

RECIPES = ("fp32", "fp16")
MANIFEST = "rtx4090.manifest.json"
GOLDEN_DATA = ROOT / "examples/metaworld/heldout"


def prepare(kit: Path, release: Path | None) -> None:
    """Export the demo policy's graphs and record golden vectors of them on the CPU.

    Args:
        kit: the folder to fill.
        release: an rtx4090 release, whose manifest comes along; None leaves it out.
    """
    from libra_edge.compiler.cache import StageCache, default_cache
    from libra_edge.compiler.graphs.make_graphs import make_graphs
    from libra_edge.compiler.graphs.staged_engines import fused_engines
    from libra_edge.compiler.quantization.quantize import in_half
    from libra_edge.parity.golden import golden_members
    from libra_edge.parity.samples import choose_samples
    from libra_edge.policy.checkpoint import load_checkpoint

    demo, cache = load_checkpoint(DEMO), StageCache(default_cache())
    robot = demo.config.embodiment
    samples = choose_samples(robot, demo.config, demo.tokenizer, 8, 0, GOLDEN_DATA)
    for recipe in RECIPES:
        quantized = in_half(demo) if recipe == "fp16" else None
        front = make_graphs(demo, cache, lambda *_: None, quantized)
        graphs = {"planner": front.planner}
        graphs |= {f"refiner-{form}": graph for form, graph in front.refiners.items()}
        for part, graph in graphs.items():
            file = graph_file(kit, recipe, part)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(graph)
        engines = fused_engines(front.planner, front.refiners["loop"])
        for name, content in golden_members(engines, samples).items():
            file = kit / recipe / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
    if release is not None:
        (kit / MANIFEST).write_bytes((release / "manifest.json").read_bytes())


def golden_of(kit: Path, recipe: str) -> tuple[list[Sample], Outputs]:
    """The inputs and the answers to them that a kit holds."""
    inputs_of = ("images", "instruction", "state", "noise")
    names = (*inputs_of, "intent", "margin", "actions")
    arrays = {name: np.load(kit / recipe / "golden" / f"{name}.npy") for name in names}
    inputs = zip(*(arrays[name] for name in inputs_of), strict=True)
    samples = [Sample(*values, part=0) for values in inputs]
    used = arrays["intent"][:, : arrays["noise"].shape[1]]
    return samples, Outputs(arrays["intent"], arrays["margin"], arrays["actions"], used)
