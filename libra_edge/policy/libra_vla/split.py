"""Parts a policy into the modules that become graphs, without the batch axis.

Nothing is rewritten here: every module calls the policy's own methods, so that a change of the
policy is a change of the graphs. `modulation` and the sampler become tables at this point.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from libra_edge.policy.family import Graph, Parts, Tables
from libra_edge.policy.libra_vla.model import LibraVLA, sampler_step
from libra_edge.policy.libra_vla.refiner import Context, Refiner


class PlannerGraph(nn.Module):
    """images uint8 [V, h, w, 3], instruction [T], state [P] → intent [L, D], margin [L, D]."""

    def __init__(self, policy: LibraVLA) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, images: Tensor, instruction: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        intent, margin = self.policy.plan(images[None], instruction[None], state[None])
        return intent[0], margin[0]


class ContextGraph(nn.Module):
    """Images, state [P] and intent [H, D] → intent tokens, then keys and values of each layer.

    The outputs keep the batch axis: only the step graph sees them.
    """

    def __init__(self, policy: LibraVLA, refiner: Refiner) -> None:
        super().__init__()
        self.state = policy.state
        self.refiner = refiner

    def forward(self, images: Tensor, state: Tensor, intent: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        memory = self.refiner.encode(images[None], self.state.normalize(state[None]))
        context = self.refiner.context(memory, intent[None])
        pairs = zip(context.keys, context.values, strict=True)
        return context.intents, *(tensor for pair in pairs for tensor in pair)


class StepGraph(nn.Module):
    """One denoising step: x [H, D] and its table rows and context → next x, clean actions.

    Without `remembers` there is no `previous` argument and no second output.
    """

    def __init__(self, policy: LibraVLA, refiner: Refiner) -> None:
        super().__init__()
        self.refiner = refiner
        self.clip_sample = policy.table.clip_sample
        self.remembers = policy.table.remembers

    def forward(self, x: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        """See the class; `rest` is [previous,] modulation, coefficients, intents, keys, values."""
        previous, rest = (rest[0], rest[1:]) if self.remembers else (torch.zeros_like(x), rest)
        modulation, row, intents, *pairs = rest
        context = Context(intents, tuple(pairs[::2]), tuple(pairs[1::2]))
        output = self.refiner.denoise_one(x, modulation, context)
        coefficients = [*row.unbind(0)[:4], row[4] if self.remembers else 0.0]
        following, clean = sampler_step(x, output, previous, coefficients, self.clip_sample)
        return (following, clean) if self.remembers else (following,)


class CoarseGraph(nn.Module):
    """Libra-Base's refiner: intent [H, D] → bin centres; images, state and noise are unused."""

    def __init__(self, policy: LibraVLA) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, images: Tensor, state: Tensor, intent: Tensor, noise: Tensor) -> Tensor:
        """See the class."""
        return self.policy.refine(images[None], state[None], intent[None], noise[None])[0]


@torch.no_grad()
def split(policy: LibraVLA) -> Parts:
    """Parts a policy (eval mode, float32) into the modules that become graphs."""
    config, robot = policy.config, policy.config.embodiment
    images = torch.zeros(
        config.num_cameras, robot.image_height, robot.image_width, 3, dtype=torch.uint8
    )
    instruction = torch.zeros(config.instruction_length, dtype=torch.int64)
    state = torch.zeros(config.state_dim)
    intent = torch.zeros(config.chunk, config.action_dim, dtype=torch.int32)
    noise = torch.zeros(config.chunk, config.action_dim)
    planner = Graph(
        "planner",
        PlannerGraph(policy).eval(),
        (images, instruction, state),
        ("images", "instruction", "state"),
        ("intent", "margin"),
    )
    if policy.refiner is None:
        observed = ("images", "state", "intent", "noise")
        arguments = (images, state, intent, noise)
        coarse = Graph("coarse", CoarseGraph(policy).eval(), arguments, observed, ("actions",))
        return Parts(planner, coarse=coarse)
    module = ContextGraph(policy, policy.refiner).eval()
    names = context_names(len(policy.refiner.blocks))
    context = Graph(
        "context", module, (images, state, intent), ("images", "state", "intent"), names
    )
    tables = make_tables(policy, policy.refiner)
    step = _step(policy, policy.refiner, tables, noise, module(images, state, intent))
    return Parts(planner, context, step, tables)


def context_names(layers: int) -> tuple[str, ...]:
    """Names of the context's tensors: intent tokens, then key and value of each layer."""
    pairs = (f"context.{part}.{i}" for i in range(layers) for part in ("key", "value"))
    return ("context.intents", *pairs)


def _step(
    policy: LibraVLA, refiner: Refiner, tables: Tables, x: Tensor, context: tuple[Tensor, ...]
) -> Graph:
    rows = (torch.from_numpy(tables.modulation[0]), torch.from_numpy(tables.coefficients[0]))
    # Not x itself: the exporter would take one tensor given twice for one input.
    previous = (x.clone(),) if tables.remembers else ()
    return Graph(
        "step",
        StepGraph(policy, refiner).eval(),
        (x, *previous, *rows, *context),
        (
            "x",
            *(["previous"] if tables.remembers else []),
            "modulation",
            "coefficients",
            *context_names(len(refiner.blocks)),
        ),
        ("x_next", "clean") if tables.remembers else ("x_next",),
    )


def make_tables(policy: LibraVLA, refiner: Refiner) -> Tables:
    """Evaluate what depends on the denoising step alone."""
    rows = [refiner.modulation(torch.full((1,), float(time)))[0] for time in policy.table.timesteps]
    return Tables(
        torch.stack(rows).numpy(),
        policy.table.coefficients,
        policy.table.remembers,
        policy.action.scale.numpy(),
        policy.action.offset.numpy(),
    )
