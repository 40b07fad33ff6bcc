"""Try precisions on a policy: its layers quantised in PyTorch, in any combination, in batches.

Simulation and graph share integers and scales, so what is seen here is what a release would do,
but for the engine's own rounding. Noise is the samples' own, so that nothing but precision differs.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from libra_edge.catalog import Number, Recipe
from libra_edge.compiler.quantization.assign import Precisions, form_under
from libra_edge.compiler.quantization.convert import quantized_layer, replace_layer
from libra_edge.compiler.quantization.fp16 import PARTS, halve_in_place
from libra_edge.compiler.quantization.quantize import Quantized
from libra_edge.engines.base import QdqForm
from libra_edge.evaluation.half import products_of
from libra_edge.limits import Limits
from libra_edge.parity.gates import largest_differing_margin
from libra_edge.parity.metrics import token_agreement
from libra_edge.parity.samples import Sample
from libra_edge.policy.checkpoint import Checkpoint
from libra_edge.policy.libra_vla.model import LibraVLA

BATCH = 32
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Effect:
    """What some precision does to the policy's outputs, against the policy as it was trained.

    tokens: fraction of equal intent tokens; margin: the policy's largest margin among tokens that
    differ, logits; margin_shift: 99th percentile of what margins move by, logits; action: 99th
    percentile of action errors as a fraction of each dimension's range, both refiners given the
    policy's tokens; physical: the same per dimension in its own unit, each refiner given its own
    planner's tokens.
    """

    tokens: float
    margin: float
    margin_shift: float
    action: float
    physical: tuple[float, ...]


@dataclass(frozen=True)
class Allowed:
    """What an effect may be: the gates of a recipe, with the margin's in logits."""

    tokens: float
    margin: float
    action: float

    def used(self, effect: Effect) -> float:
        """The largest share of a gate that an effect uses up; over 1 it does not pass."""
        shares = (
            (1 - effect.tokens) / max(1 - self.tokens, 1e-12),
            effect.margin / self.margin,
            effect.action / self.action,
        )
        return max(shares)


@dataclass(frozen=True)
class _Outputs:
    """intent int32 and margin float32 [N, L, D]; actions float32 [N, H, D] on the policy's tokens.

    own: actions on the planner's own tokens.
    """

    intent: Array
    margin: Array
    actions: Array
    own: Array


class Trial:
    """A policy on fixed samples, with any of its layers quantised.

    `rests` says which floats surround them in `planner` and `refiner`, and may be changed; it
    begins as the form has it.

    Args:
        checkpoint: the policy.
        recipe: how layers are quantised.
        quantized: the whole policy quantised, for its ranges and precisions.
        form: the engine kind's form.
        samples: what to run; at least one.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        recipe: Recipe,
        quantized: Quantized,
        form: QdqForm,
        samples: Sequence[Sample],
    ) -> None:
        self.layers: Precisions = {n: p for n, p in quantized.precisions.items() if not p.high}
        form = form_under(recipe, form)
        self.rests: dict[str, Number] = dict.fromkeys(PARTS, "fp32")
        self._policies: dict[Number, LibraVLA] = {"fp32": copy.deepcopy(checkpoint.policy).eval()}
        if form.rest == "fp16":
            self._policies["fp16"] = halve_in_place(copy.deepcopy(checkpoint.policy).eval())
        self._plain = {
            rest: {name: policy.get_submodule(name) for name in self.layers}
            for rest, policy in self._policies.items()
        }
        # Flat blocks are for one observation at a time.
        batched = replace(form, flat=False)
        self._quantized = {
            rest: self._rounded(checkpoint.policy, quantized, batched, rest)
            for rest in self._policies
        }
        dims = checkpoint.config.embodiment.actions
        self._span = np.array([dim.upper - dim.lower for dim in dims])
        self._samples = samples
        self._inputs = _stack(samples)
        intent, margin = self._plan()
        actions = self._refine(intent, np.arange(len(samples)))
        self._reference = _Outputs(intent, margin, actions, actions)
        self.rests = dict.fromkeys(PARTS, form.rest)

    def _rounded(
        self, policy: LibraVLA, quantized: Quantized, form: QdqForm, rest: Number
    ) -> dict[str, nn.Module]:
        """Every layer quantised, between floats of `rest`."""
        floats = torch.float16 if rest == "fp16" else torch.float32
        return {
            name: quantized_layer(policy, name, quantized.ranges, p.beside(rest), form, floats)
            for name, p in self.layers.items()
        }

    def allowed(self, limits: Limits) -> Allowed:
        """The gates, as far as they hold a quantised policy against the one that was trained."""
        margin = largest_differing_margin(self._reference.margin, limits)
        return Allowed(limits.tokens, margin, limits.action)

    def effect(self, names: Collection[str], parts: Collection[str] = ()) -> Effect:
        """What quantising these layers, and no others, does.

        Args:
            names: of the layers.
            parts: to run in their `rests` even where no layer of theirs is quantised.
        """
        inside = {name: self.rests[name.split(".")[0]] for name in names}
        for name, rest in inside.items():
            replace_layer(self._policies[rest], name, self._quantized[rest][name])
        try:
            return self._compare(self._run({name.split(".")[0] for name in names}.union(parts)))
        finally:
            for name, rest in inside.items():
                replace_layer(self._policies[rest], name, self._plain[rest][name])

    def _compare(self, found: _Outputs) -> Effect:
        known = self._reference
        tokens = token_agreement(known.intent, known.margin, found.intent)
        shift = np.abs(known.margin.astype(np.float64) - found.margin)
        errors = [
            np.abs(known.actions.astype(np.float64) - actions)
            for actions in (found.actions, found.own)
        ]
        if not np.isfinite(errors).all():
            errors = [np.full_like(errors[0], np.inf)] * 2
        return Effect(
            tokens.agreement,
            tokens.largest_margin,
            float(np.percentile(shift, 99)),
            float(np.percentile(errors[0] / self._span, 99)),
            tuple(float(p) for p in np.percentile(errors[1], 99, axis=(0, 1))),
        )

    def _run(self, changed: Collection[str]) -> _Outputs:
        """Outputs with `planner`, `refiner` or both changed; what is not is not run again."""
        known = self._reference
        intent, margin = self._plan() if "planner" in changed else (known.intent, known.margin)
        everywhere = np.arange(len(self._samples))
        actions = self._refine(known.intent, everywhere) if "refiner" in changed else known.actions
        own = actions.copy()
        other = np.flatnonzero((self._used(intent) != self._used(known.intent)).any(axis=(1, 2)))
        if len(other):
            own[other] = self._refine(intent, other)
        return _Outputs(intent, margin, actions, own)

    def _used(self, intents: Array) -> Array:
        """The part of every plan [N, L, D] that its sample's refiner gets: [N, H, D]."""
        chunk = self._samples[0].noise.shape[0]
        pairs = zip(intents, self._samples, strict=True)
        return np.stack([plan[sample.part * chunk :][:chunk] for plan, sample in pairs])

    @torch.inference_mode()
    def _plan(self) -> tuple[Array, Array]:
        images, instructions, states, _ = self._inputs
        policy = self._policies[self.rests["planner"]]
        with products_of(policy):
            pairs = [
                policy.plan(images[i], instructions[i], states[i])
                for i in _batches(np.arange(len(self._samples)))
            ]
        intent, margin = (torch.cat(column).numpy() for column in zip(*pairs, strict=True))
        return intent, margin

    @torch.inference_mode()
    def _refine(self, intents: Array, rows: Array) -> Array:
        images, _, states, noise = self._inputs
        used = torch.from_numpy(self._used(intents))
        policy = self._policies[self.rests["refiner"]]
        with products_of(policy):
            batches = [
                policy.refine(images[i], states[i], used[i], noise[i]) for i in _batches(rows)
            ]
        actions: Array = torch.cat(batches).numpy()
        return actions


def _stack(samples: Sequence[Sample]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images, instructions, states and noise of all samples."""
    images, instructions, states, noise = (
        torch.from_numpy(np.stack([getattr(sample, name) for sample in samples]))
        for name in ("images", "instruction", "state", "noise")
    )
    return images, instructions, states, noise


def _batches(rows: Array) -> Iterator[Array]:
    return (rows[begin : begin + BATCH] for begin in range(0, len(rows), BATCH))
