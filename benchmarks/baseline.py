"""What the benchmarks share: the naive baseline, and how a page of figures is written."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from libra_edge.engines.session import EnginePair, Session
from libra_edge.parity.samples import Sample
from libra_edge.policy.checkpoint import Checkpoint
from libra_edge.policy.family import Graph
from libra_edge.policy.libra_vla.model import LibraVLA

ROOT = Path(__file__).resolve().parents[1]
NAIVE_INPUTS = ("images", "state", "intent", "x", "timestep")


class NaiveStep(nn.Module):
    """The model's forward pass: observation, intent, noisy action, time step → prediction."""

    def __init__(self, policy: LibraVLA) -> None:
        super().__init__()
        assert policy.refiner is not None
        self.state, self.refiner = policy.state, policy.refiner

    def forward(
        self, images: Tensor, state: Tensor, intent: Tensor, x: Tensor, timestep: Tensor
    ) -> Tensor:
        """All with a batch axis."""
        return self.refiner(images, self.state.normalize(state), intent, x, timestep)


def naive_export(policy: LibraVLA, sample: Sample) -> bytes:
    """The forward pass exported as it stands."""
    # Not at the top: a machine that only measures has no exporter.
    from libra_edge.compiler.graphs.export import export, to_bytes

    intent = np.zeros((policy.config.chunk, policy.config.action_dim), np.int32)
    arguments = tuple(
        torch.from_numpy(np.ascontiguousarray(a))[None]
        for a in (sample.images, sample.state, intent, sample.noise)
    )
    module = NaiveStep(policy).eval()
    graph = Graph("naive", module, (*arguments, torch.zeros(1)), NAIVE_INPUTS, ("prediction",))
    return to_bytes(export(graph))


def host_loop(policy: LibraVLA, predict: Callable[..., Any], sample: Sample, intent: Any) -> Any:
    """The sampler in NumPy around any model evaluation."""
    x, previous = sample.noise[None], np.zeros_like(sample.noise)[None]
    table = policy.table
    for time, row in zip(table.timesteps, table.coefficients, strict=True):
        output = predict(sample.images[None], sample.state[None], intent[None], x, time[None])
        clean = row[0] * x + row[1] * output
        if table.clip_sample is not None:
            clean = np.clip(clean, -table.clip_sample, table.clip_sample)
        x, previous = row[2] * x + row[3] * clean + row[4] * previous, clean
    return x[0] * policy.action.scale.numpy() + policy.action.offset.numpy()


def conditions(loaded: Checkpoint, load_before: tuple[float, ...]) -> list[str]:
    """What the figures hold for."""
    from libra_edge.compiler.cache import tool_versions

    policy, config = loaded.policy, loaded.config
    counts = [
        sum(p.numel() for p in module.parameters()) / 1e6
        for module in (policy.planner, policy.refiner)
        if module is not None
    ]
    loads = [f"{load:.1f}" for load in (load_before[0], os.getloadavg()[0])]
    tools = ", ".join(f"{name} {value}" for name, value in tool_versions().items())
    robot = config.embodiment
    return [
        f"- Policy: checkpoint {loaded.sha256[:12]}, "
        f"planner {counts[0]:.1f} M, refiner {counts[1]:.1f} M parameters, "
        f"K = {config.schedule.denoise_steps} ({config.schedule.scheduler}), "
        f"{config.num_cameras} × {robot.image_width} × {robot.image_height} px",
        f"- Machine: {cpu_model()}, {os.cpu_count()} cores, "
        f"load average {loads[0]} before and {loads[1]} after",
        f"- Python {platform.python_version()}, {tools}",
    ]


def cpu_model() -> str:
    """The processor's name, as Linux gives it."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def write_page(
    out: Path,
    head: Sequence[str],
    lines: Sequence[str],
    results: Sequence[tuple[bool, str]],
    conditions: Sequence[str],
) -> int:
    """Write a page of figures and print it.

    Args:
        out: the page.
        head: its title and what it is.
        lines: the tables.
        results: of every bound whether it was met, in words.
        conditions: what the figures hold for.

    Returns:
        The exit code: 1 if a bound was missed.
    """
    body = [
        *lines,
        "",
        *(f"- {'met' if met else '**missed**'}: {words}" for met, words in results),
        "",
        "## Conditions",
        "",
        *conditions,
    ]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("\n".join([*head, "", *body]) + "\n", encoding="utf-8")
    sys.stdout.write("\n".join(body) + f"\n\nwritten: {out}\n")
    return 0 if all(met for met, _ in results) else 1


class NaiveEngines:
    """The refiner exported as it stands, looped on the host; the planner of another pair."""

    def __init__(self, policy: LibraVLA, session: Session, planner: EnginePair) -> None:
        self._policy, self._session = policy, session
        self.plan = planner.plan

    def refine(self, images: Any, state: Any, intent: Any, noise: Any) -> Any:
        """See `libra_edge.policy.executor.Engines.refine`."""

        def predict(*arguments: Any) -> Any:
            return self._session.run(dict(zip(NAIVE_INPUTS, arguments, strict=True)))["prediction"]

        sample = Sample(images, np.zeros(1, np.int64), state, noise, 0)
        return host_loop(self._policy, predict, sample, intent)
