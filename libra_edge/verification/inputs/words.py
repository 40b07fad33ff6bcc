"""Every word of the vocabulary, and instructions of every length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from libra_edge.parity.samples import Sample
from libra_edge.policy.tokenizer import Tokenizer

# Of a vocabulary that takes more, as many words as fit are drawn; the others are named.
MOST_CALLS = 256


def word_inputs(tokenizer: Tokenizer, samples: Sequence[Sample], seed: int) -> list[Sample]:
    """Instructions that hold every token, and random ones of every length from none to T.

    Padding is part of the vocabulary, and so is the unknown word.

    Args:
        tokenizer: whose words.
        samples: whose pictures and states, in turn.
        seed: of the order.
    """
    length, random = tokenizer.length, np.random.default_rng([seed, 2])
    order = random.permutation(tokenizer.vocabulary)[: MOST_CALLS * length]
    whole = -(-len(order) // length) * length
    rows = [*np.resize(order, whole).reshape(-1, length)]
    for count in range(length + 1):
        row = np.zeros(length, np.int64)
        row[:count] = random.integers(0, tokenizer.vocabulary, count)
        rows.append(row)
    return [
        replace(samples[i % len(samples)], instruction=row.astype(np.int64), origin="made-up words")
        for i, row in enumerate(rows)
    ]


def left_over(tokenizer: Tokenizer) -> int:
    """Words that there was no room for."""
    return max(0, tokenizer.vocabulary - MOST_CALLS * tokenizer.length)
