"""What a release says that its layers run in: read off the engine, shown without PyTorch."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from libra_edge.catalog import load_target
from libra_edge.cli import app as program
from libra_edge.compiler.engines.plan import plan_engines
from libra_edge.compiler.engines.read_back import layer_names, running
from libra_edge.compiler.graphs.export import export, from_bytes
from libra_edge.compiler.pipeline import Compiled
from libra_edge.compiler.quantization.assign import quantizable_layers
from libra_edge.compiler.release.decisions import simulation_decisions
from libra_edge.engines.base import Product
from libra_edge.policy.checkpoint import load_checkpoint
from libra_edge.policy.family import Graph


def test_every_layer_of_a_release_is_told(compiled: Compiled) -> None:
    told = {layer.name: layer for layer in compiled.manifest.layers}
    assert len(told) == len(compiled.manifest.layers)
    for name in (
        "planner.backbone.images.stem.0",
        "planner.backbone.blocks.0.mlp.0",
        "planner.output",
        "refiner.images.stem.3",
        "refiner.blocks.1.self_attention.query",
    ):
        assert told[name].precision == "fp32"
    assert told["planner.output"].weight_bytes == 4 * 16 * 10 * 3
    steps = compiled.manifest.policy.denoise_steps
    assert told["refiner.blocks.1.mlp.0"].runs == steps
    assert told["refiner.encoder.0.mlp.0"].runs == 1
    assert told["planner.backbone.images.stem.0"].kernel == "Conv"


def test_no_layer_of_the_policy_is_missing(compiled: Compiled, checkpoint: Path) -> None:
    products = [
        Product(f"{layer.name}.weight", layer.kernel, layer.precision, 0, 1)
        for layer in compiled.manifest.layers
    ]
    assert set(running(products)) == set(quantizable_layers(load_checkpoint(checkpoint).policy))


class Memory(nn.Module):
    """Layers that read the same input, as the cross-attention of all blocks does."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8)
        self.blocks = nn.ModuleList(nn.ModuleDict({"key": nn.Linear(8, 4)}) for _ in range(3))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """X [1, S, 8] → three times [1, S, 4]."""
        memory = self.norm(x)
        return tuple(block["key"](memory) for block in self.blocks)


def test_layers_that_became_one_product_are_told_as_such() -> None:
    torch.manual_seed(0)
    outputs = ("y0", "y1", "y2")
    model = export(Graph("context", Memory().eval(), (torch.randn(1, 5, 8),), ("x",), outputs))
    (shared,) = (t.name for t in model.graph.initializer if list(t.dims) == [8, 12])
    assert shared == "blocks.{0,1,2}.key.weight"
    told = layer_names(Product(shared, "MatMul", "fp32", 0, 1))
    assert told == ("blocks.0.key", "blocks.1.key", "blocks.2.key")


def test_weights_keep_their_layers_names_in_the_graph(compiled: Compiled) -> None:
    model = from_bytes((compiled.path / "engines" / "planner.onnx").read_bytes())
    names = {tensor.name for tensor in model.graph.initializer}
    assert "policy.planner.blocks.0.mlp.2.weight" in names
    read = {name for node in model.graph.node for name in node.input}
    assert names <= read


def test_inspect_shows_precision_and_bytes_moved(
    compiled: Compiled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    result = CliRunner().invoke(program.app, ["inspect", str(compiled.path), "--layers"])
    assert result.exit_code == 0
    row = next(x for x in result.stdout.splitlines() if x.startswith("refiner.blocks.1.mlp.0"))
    # 16 x 64 weights of 4 bytes, in 4 denoising steps.
    assert row.split()[-4:] == ["4.0", "KiB", "16.0", "KiB"]
    assert "fp32" in row
    assert "moved by one plan and one chunk" in result.stdout
    shown = CliRunner().invoke(program.app, ["inspect", str(compiled.path), "--json"])
    layers = json.loads(shown.stdout)["result"]["manifest"]["layers"]
    assert len(layers) == len(compiled.manifest.layers)


def test_inspect_needs_neither_pytorch_nor_onnx(compiled: Compiled) -> None:
    script = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'onnx', 'onnxruntime')))\n"
        "from libra_edge.cli.app import main; main()"
    )
    command = [sys.executable, "-c", script, "inspect", str(compiled.path), "--layers"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "refiner.blocks.1.mlp.0" in result.stdout


def test_a_release_says_when_its_parity_was_simulated() -> None:
    target = load_target("cpu-x86_64")
    assert simulation_decisions(plan_engines(target)) == ()
    plan = plan_engines(target)
    away = plan.settings.model_copy(update={"provider": "CUDAExecutionProvider"})
    (decision,) = simulation_decisions(replace(plan, settings=away, measurable=False))
    assert decision.choice == "simulated quantisation"
    assert "CUDAExecutionProvider does not run here" in decision.reason
