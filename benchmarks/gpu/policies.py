"""The policies that are measured: the demo's, one four times as wide, one of the paper's size."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from baseline import ROOT

from libra_edge.evaluation.torch_controller import TorchEngines
from libra_edge.parity.gates import Outputs, run_engines
from libra_edge.parity.samples import Sample, synthetic_samples
from libra_edge.policy.checkpoint import Statistics, build_policy, load_checkpoint
from libra_edge.policy.config import PolicyConfig, read_config
from libra_edge.policy.libra_vla.model import LibraVLA

DEMO = ROOT / "examples/metaworld/checkpoint"
PAPER = ROOT / "examples/paper-size/config.json"
TIMES_WIDER = 4


@dataclass(frozen=True)
class Case:
    """A float32 policy on the CPU, observations, and what it gives on them.

    trained: whether the gates of a recipe say anything about it.
    """

    name: str
    policy: LibraVLA
    samples: Sequence[Sample]
    reference: Outputs
    trained: bool

    @property
    def parameters(self) -> list[int]:
        """Of planner and refiner."""
        parts = (self.policy.planner, self.policy.refiner)
        return [sum(p.numel() for p in part.parameters()) for part in parts if part is not None]


@dataclass(frozen=True)
class Words:
    """What made-up instructions have to know of a tokenizer."""

    vocabulary: int
    length: int


def make_case(name: str, samples: int, device: str) -> Case:
    """One of `demo`, `wide` and `paper`; the weights of the last two are drawn on the device."""
    if name == "demo":
        policy = load_checkpoint(DEMO).policy
    else:
        policy = draw(widened(read_config(DEMO / "config.json")), device)
        if name == "paper":
            policy = draw(read_config(PAPER), device)
    config = policy.config
    words = Words(config.vocabulary, config.instruction_length)
    seen = synthetic_samples(config.embodiment, config, words, samples, seed=0)
    return Case(name, policy, seen, run_engines(TorchEngines(policy), seen), name == "demo")


def widened(config: PolicyConfig) -> PolicyConfig:
    """The same architecture, `TIMES_WIDER` times as wide."""
    assert config.refiner is not None
    backbone = config.planner.backbone
    backbone = backbone.model_copy(update={"width": TIMES_WIDER * backbone.width})
    planner = config.planner.model_copy(update={"backbone": backbone})
    refiner = config.refiner.model_copy(update={"width": TIMES_WIDER * config.refiner.width})
    return config.model_copy(update={"planner": planner, "refiner": refiner})


def draw(config: PolicyConfig, device: str) -> LibraVLA:
    """Random weights, for measuring alone; statistics that change nothing."""
    torch.manual_seed(0)
    statistics: Statistics = {}
    for feature, dims in (("observation.state", config.state_dim), ("action", config.action_dim)):
        low, high = [-1.0] * dims, [1.0] * dims
        names = {"q01": low, "q99": high, "min": low, "max": high, "mean": [0.0] * dims}
        statistics[feature] = {**names, "std": high}
    with torch.device(device):
        policy = build_policy(config, statistics)
    policy = policy.cpu().eval().requires_grad_(False)
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
    return policy


def graph_file(kit: Path, precision: str, part: str) -> Path:
    """Where a kit keeps a graph of the demo policy."""
    return kit / precision / f"{part}.onnx"
