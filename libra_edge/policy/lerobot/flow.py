"""Flow matching with an action expert beside a language model (pi0, arXiv 2410.24164).

The context is the language model's keys and values, computed once per chunk; each Euler step runs
the expert alone. SmolVLA (arXiv 2506.01844) and pi0 differ in what the expert's layers attend to.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from libra_edge.catalog import PartName
from libra_edge.policy.family import Graph, Named, Parts, Tables
from libra_edge.policy.lerobot.decoder import HIDDEN, Layer, RmsNorm, attended, each, turned, turns
from libra_edge.policy.lerobot.flow_folder import FlowFolder
from libra_edge.policy.lerobot.load import Tensors

Floats = npt.NDArray[np.float32]
INPUTS = ("images", "state", "instruction")
FLOW_PARTS: dict[str, PartName | None] = {
    "prefix.vision": "prefix.vision",
    "prefix.connector": "prefix.vision",
    "prefix.projector": "prefix.vision",
    "prefix.language": "prefix.language",
    "prefix.readers": "prefix.language",
    "prefix.state_proj": "embeddings",
    # The expert's layers over the one token of the state.
    "prefix.of_state": "embeddings",
    "expert.layers": "expert",
    "expert.action_in_proj": "embeddings",
    "expert.action_time_mlp_in": "embeddings",
    "expert.action_time_mlp_out": "embeddings",
    "expert.action_out_proj": "outputs",
}


class Context(Protocol):
    """images, state and instruction to what the steps need.

    Gives `bias` [S], of what may be seen; `cosine` and `sine` [H, d / 2] of the actions' places;
    then keys and values [groups, S, d] of each layer of the expert.
    """

    def __call__(self, images: Tensor, state: Tensor, instruction: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        ...


class Expert(nn.Module):
    """One Euler step: x [H, A], its rows of the tables and the context to the next x.

    Args:
        layers: of the expert; those that make no keys themselves see the context alone.
        width: of the expert.
        columns: A.
        rows: H.
        causal: an action sees those before it alone.
        eps: of the last norm.
    """

    own: Tensor
    still: Tensor

    def __init__(
        self,
        layers: Sequence[Layer],
        *,
        width: int,
        columns: int,
        rows: int,
        causal: bool,
        eps: float,
    ) -> None:
        super().__init__()
        self.action_in_proj = nn.Linear(columns, width)
        self.action_time_mlp_in = nn.Linear(width, width, bias=False)
        self.action_time_mlp_out = nn.Linear(width, width)
        self.layers = nn.ModuleList(layers)
        self.norm = RmsNorm(width, eps)
        self.action_out_proj = nn.Linear(width, columns)
        later = torch.full((rows, rows), HIDDEN).triu(1)
        own = later if causal else torch.zeros(rows, rows)
        self.register_buffer("own", own, persistent=False)
        turn = turns(torch.arange(rows, dtype=torch.float32), layers[0].self_attn.head)
        self.register_buffer("still", torch.stack(turn), persistent=False)

    def forward(
        self, x: Tensor, modulation: Tensor, coefficients: Tensor, *context: Tensor
    ) -> Tensor:
        """Modulation [width], of the time alone; coefficients [5]; see `Context`."""
        bias, cosine, sine, *cache = context
        turn, still = (cosine, sine), (self.still[0], self.still[1])
        beside = torch.cat((bias.expand(len(x), -1), self.own), 1)
        dtype = self.action_in_proj.weight.dtype
        y = self.action_time_mlp_in(self.action_in_proj(x.to(dtype))) + modulation.to(dtype)
        y = self.action_time_mlp_out(nn.functional.silu(y))
        pairs = zip(cache[0::2], cache[1::2], strict=True)
        for layer, (keys, values) in zip(each(self.layers), pairs, strict=True):
            attention, z = layer.self_attn, layer.input_layernorm(y)
            if attention.reading is None:
                mixed = attended(turned(attention.queries(z), still), keys, values, bias)
            else:
                own_keys, own_values = attention.read(z)
                keys = torch.cat((keys, turned(own_keys, turn)), 1)
                values = torch.cat((values, own_values), 1)
                mixed = attended(turned(attention.queries(z), turn), keys, values, beside)
            y = layer.after(y, mixed)
        velocity = self.action_out_proj(self.norm(y)).float()
        from_sample, from_output, keep, take, _ = coefficients.unbind(0)
        return keep * x + take * (from_sample * x + from_output * velocity)


def euler_tables(tensors: Tensors, read: FlowFolder, finish: tuple[Floats, Floats]) -> Tables:
    """The tables of K Euler steps from t = 1 to t = 0, and what is left of two tensors for a step.

    Args:
        tensors: of the policy; the half of `action_time_mlp_in` that the time goes through, and its
            bias, are taken out.
        read: the folder.
        finish: offset and scale of the actions.

    Raises:
        InputError: the tensors are missing or of other sizes.
    """
    names = [f"action_time_mlp_in.{end}" for end in ("weight", "bias")]
    weight, bias = (tensors.pop(name, torch.empty(0)) for name in names)
    half = len(weight)
    if weight.shape != (half, 2 * half) or bias.shape != (half,) or half % 2:
        raise read.folder.wrong(f"its weights have no {names[0]} that takes actions and time")
    tensors[names[0]] = weight[:, :half].clone()
    times = torch.tensor([1.0 - k / read.steps for k in range(read.steps)], dtype=torch.float32)
    waves = _time_embedding(times, half, *read.periods)
    modulation = waves @ weight[:, half:].transpose(0, 1) + bias
    row = np.array([0.0, 1.0, 1.0, -1.0 / read.steps, 0.0], np.float32)
    rows, (offset, scale) = np.tile(row, (read.steps, 1)), finish
    return Tables(modulation.numpy(), rows, False, scale, offset, 0, read.rows)


def _time_embedding(times: Tensor, width: int, shortest: float, longest: float) -> Tensor:
    """Sines and cosines of the times, float32 [K, width]."""
    fraction = torch.linspace(0.0, 1.0, width // 2, dtype=torch.float64)
    periods = shortest * (longest / shortest) ** fraction
    angles = times[:, None].double() * (2 * math.pi / periods)
    return torch.cat((angles.sin(), angles.cos()), 1).float()


class FlowPolicy(nn.Module):
    """The whole policy.

    Args:
        context: once per chunk, a module.
        expert: once per step.
        tables: of the loop.
        example: images, state and instruction of the engine's shapes.
        rows: H that are predicted.
    """

    def __init__(
        self,
        context: nn.Module,
        expert: Expert,
        tables: Tables,
        example: tuple[Tensor, Tensor, Tensor],
        rows: int,
    ) -> None:
        super().__init__()
        self.prefix, self.expert, self.tables = context, expert, tables
        self._example, self._rows = example, rows

    def refine(self, images: Tensor, state: Tensor, instruction: Tensor, noise: Tensor) -> Tensor:
        """See `libra_edge.policy.family.Policy`."""
        *_, sample = self.refine_steps(images, state, instruction, noise)
        return self.tables.finish(sample)

    def refine_steps(
        self, images: Tensor, state: Tensor, instruction: Tensor, noise: Tensor
    ) -> Iterator[Tensor]:
        """See `libra_edge.policy.family.Policy`."""
        seen, x = self.prefix(images, state, instruction), noise
        rows = zip(self.tables.modulation, self.tables.coefficients, strict=True)
        for modulation, coefficients in rows:
            x = self.expert(x, torch.from_numpy(modulation), torch.from_numpy(coefficients), *seen)
            yield x

    @torch.no_grad()
    def parts(self) -> Parts:
        """Context, step and tables."""
        seen: tuple[Tensor, ...] = self.prefix(*self._example)
        pairs = ((f"keys.{i}", f"values.{i}") for i in range((len(seen) - 3) // 2))
        names = ("bias", "cosine", "sine", *(name for pair in pairs for name in pair))
        context = Graph("context", Named("prefix", self.prefix), self._example, INPUTS, names)
        rows = (self.tables.modulation[0], self.tables.coefficients[0])
        noise = torch.zeros(self._rows, self.expert.action_in_proj.in_features)
        arguments = (noise, *(torch.from_numpy(row.copy()) for row in rows), *seen)
        inputs = ("x", "modulation", "coefficients", *names)
        step = Graph("step", Named("expert", self.expert), arguments, inputs, ("x_next",))
        return Parts(context=context, step=step, tables=self.tables)
