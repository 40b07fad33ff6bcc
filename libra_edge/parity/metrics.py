"""How far two runs of a policy are apart (NumPy)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from libra_edge.policy.config import ActionDim

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class TokenAgreement:
    """How many intent tokens are equal, and how sure the reference was of those that are not.

    `largest_margin` is the reference's largest top-1 minus top-2 logit among differing tokens,
    zero where all agree: a difference at a tiny margin is rounding, at a large one an error.
    """

    tokens: int
    different: int
    largest_margin: float

    @property
    def agreement(self) -> float:
        """Fraction of equal tokens."""
        return 1.0 - self.different / self.tokens


@dataclass(frozen=True)
class ActionError:
    """Absolute action error as a fraction of each dimension's range; NaN where not finite."""

    values: int
    p50: float
    p99: float
    max: float


def token_agreement(reference: Array, margin: Array, candidate: Array) -> TokenAgreement:
    """Compare intents [..., L, D]; `margin` is the reference's, of the same shape."""
    different = reference != candidate
    largest = margin[different].max() if different.any() else 0.0
    return TokenAgreement(different.size, int(different.sum()), float(largest))


def margin_error(reference: Array, candidate: Array) -> float:
    """Largest absolute difference of two margins [..., L, D], in logits; NaN where not finite."""
    error = np.abs(reference.astype(np.float64) - candidate.astype(np.float64))
    return float(error.max()) if np.isfinite(error).all() else np.nan


def action_error(reference: Array, candidate: Array, dims: Sequence[ActionDim]) -> ActionError:
    """Compare actions [..., H, D] in physical units."""
    span = np.array([dim.upper - dim.lower for dim in dims])
    error = np.abs(reference.astype(np.float64) - candidate.astype(np.float64)) / span
    if error.size == 0 or not np.isfinite(error).all():
        return ActionError(error.size, np.nan, np.nan, np.nan)
    p50, p99 = np.percentile(error, [50, 99])
    return ActionError(error.size, float(p50), float(p99), float(error.max()))
