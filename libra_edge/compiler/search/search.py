"""Find layers to keep in high precision until the gates hold, at the least cost in latency.

Planner and refiner are searched by themselves, as the gates look at tokens and at actions apart.
Layers that use up most of a gate for what they cost are kept first; then every kept layer that the
gates turn out not to need is quantised again, the dearest first. The search itself is exact
arithmetic on fixed samples: the same inputs and costs give the same layers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from libra_edge.catalog import HIGH, Number, Recipe
from libra_edge.compiler.quantization.assign import rest_subject
from libra_edge.compiler.quantization.convert import convert
from libra_edge.compiler.quantization.fp16 import PARTS
from libra_edge.compiler.quantization.quantize import Quantized
from libra_edge.compiler.search.layer_costs import Costs
from libra_edge.compiler.search.sensitivity import Sensitivity
from libra_edge.compiler.search.simulation import Allowed, Effect, Trial
from libra_edge.engines.base import QdqForm
from libra_edge.policy.checkpoint import Checkpoint

# Shares of the gates that the search may use up. The engine rounds in its own way, so the first
# leaves room; if the release's gates still fail, the next is tried.
SHARES = (0.8, 0.6, 0.4, 0.2)


@dataclass(frozen=True)
class Kept:
    """A layer that stays in high precision. gate_used: by quantising it alone; cost: of keeping."""

    layer: str
    gate_used: float
    tokens: float
    action: float
    cost: int


@dataclass(frozen=True)
class Found:
    """The outcome of a search: effect and gate_used are those of all that is left quantised.

    alone: what each layer does by itself, kept or not; rests: the floats of what is not rounded in
    planner and refiner; rest_used: the share of the gates that 16-bit ones alone would use, of each
    part where they were tried.
    """

    share: float
    kept: tuple[Kept, ...]
    quantized: tuple[str, ...]
    effect: Effect
    gate_used: float
    unit: str
    alone: tuple[Sensitivity, ...]
    rests: Mapping[str, Number]
    rest_used: Mapping[str, float]


def with_kept(
    checkpoint: Checkpoint, recipe: Recipe, quantized: Quantized, form: QdqForm, found: Found
) -> Quantized:
    """The quantised policy with the layers that were found in high precision, and the reasons."""
    kept = {one.layer: one for one in found.kept}
    chosen = {
        name: (HIGH if name in kept else p).beside(found.rests[name.split(".")[0]])
        for name, p in quantized.precisions.items()
    }
    policy = convert(checkpoint.policy, quantized.ranges, chosen, form)
    reasons = {name: _why(one) for name, one in kept.items()}
    reasons |= {rest_subject(part): _why_rest(found, part) for part in found.rest_used}
    return Quantized(policy, chosen, quantized.ranges, {**quantized.reasons, **reasons})


def _why(kept: Kept) -> str:
    return (
        f"kept by the search: alone it would use {kept.gate_used:.2g} of the gates "
        f"(tokens equal {kept.tokens:.4f}, p99 action error / range {kept.action:.2g})"
    )


def _why_rest(found: Found, part: str) -> str:
    used = f"16-bit floats alone would use {found.rest_used[part]:.2g} of the gates"
    kept = "in 32 bits by the search: " if found.rests[part] == "fp32" else ""
    return f"{kept}{used}, of which it may use {found.share:.0%}"


def search(
    trial: Trial,
    ranked: Sequence[Sensitivity],
    costs: Costs,
    allowed: Allowed,
    on_trial: Callable[[str], None] = lambda _: None,
) -> Iterator[Found]:
    """Ever stricter choices of layers to keep, each different from the one before.

    Args:
        trial: the policy on samples.
        ranked: what every layer does alone.
        costs: of keeping each; a layer without a cost is never kept.
        allowed: the gates.
        on_trial: called with what is being tried.
    """
    alone = {one.layer: one for one in ranked}
    rest_used = _rests_alone(trial, allowed, on_trial)
    before: tuple[set[str], dict[str, Number]] | None = None
    for share in SHARES:
        kept: set[str] = set()
        for part, used in rest_used.items():
            trial.rests[part] = "fp16" if used <= share else "fp32"
        for part in PARTS:
            passes = _gate(trial, part, allowed, share, on_trial)
            names = [name for name in trial.layers if name.startswith(part)]
            kept |= _search_part(names, alone, costs.layers, passes)
        rests = dict(trial.rests)
        if (kept, rests) == before:
            continue
        before = kept, rests
        rest = tuple(name for name in trial.layers if name not in kept)
        effect = trial.effect(rest, tuple(rest_used))
        table = _table(kept, alone, costs)
        all_used = allowed.used(effect)
        yield Found(
            share, table, rest, effect, all_used, costs.unit, tuple(ranked), rests, rest_used
        )


def _rests_alone(
    trial: Trial, allowed: Allowed, on_trial: Callable[[str], None]
) -> dict[str, float]:
    """The share of the gates that each part uses with nothing rounded, between 16-bit floats."""
    found = {}
    for part in (part for part in PARTS if trial.rests[part] == "fp16"):
        on_trial(f"{part}: all of it in 16-bit floats")
        found[part] = allowed.used(trial.effect((), (part,)))
    return found


def _gate(
    trial: Trial, part: str, allowed: Allowed, share: float, on_trial: Callable[[str], None]
) -> Callable[[Collection[str]], bool]:
    """Whether a part of the policy passes with some of its layers kept."""
    names = [name for name in trial.layers if name.startswith(part)]

    def passes(kept: Collection[str]) -> bool:
        on_trial(f"{part}: {len(kept)} of {len(names)} layers kept, {share:.0%} of the gates")
        rest = [name for name in names if name not in kept]
        return not rest or allowed.used(trial.effect(rest)) <= share

    return passes


def _search_part(
    names: Sequence[str],
    alone: Mapping[str, Sensitivity],
    costs: Mapping[str, int],
    passes: Callable[[Collection[str]], bool],
) -> set[str]:
    """The layers of one part to keep: few, cheap, and enough for the gates."""
    order = sorted(
        (name for name in names if name in costs),
        key=lambda name: (-alone[name].gate_used / costs[name], name),
    )
    low, high = 0, len(order)
    while low < high:
        middle = (low + high) // 2
        if passes(order[:middle]):
            high = middle
        else:
            low = middle + 1
    kept = set(order[:low])
    dearest_first = sorted(kept, key=lambda name: (-costs[name], alone[name].gate_used, name))
    for name in dearest_first:
        if passes(kept - {name}):
            kept.remove(name)
    return kept


def _table(
    kept: Collection[str], alone: Mapping[str, Sensitivity], costs: Costs
) -> tuple[Kept, ...]:
    rows = [
        Kept(
            name,
            alone[name].gate_used,
            alone[name].effect.tokens,
            alone[name].effect.action,
            costs.layers[name],
        )
        for name in kept
    ]
    return tuple(sorted(rows, key=lambda row: (-row.gate_used, row.layer)))
