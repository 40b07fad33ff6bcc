"""A prompt of pictures, words and one state through a language model, in static shapes.

Pictures stand at fixed places, so nothing is searched for: the sequence is put together from its
pieces. The instruction is padded to T; padding is masked, and what follows it stands where it would
without.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from libra_edge.policy.libra_vla.pretrained.config import PromptConfig

# Nothing is left of it after a softmax, twice of it is a 16-bit float.
MASKED = -30_000.0


class Hidden(NamedTuple):
    """Hidden states [B, S, width], and what is added to the scores of each as a key [B, S]."""

    states: Tensor
    bias: Tensor


class Prompt(nn.Module):
    """The sequence around a language model: before, pictures, between, instruction, after, state.

    Args:
        prompt: its tokens.
        grids: rows and columns of tokens of each camera's picture.
        length: T, of an instruction.
        axes: of the positions: 1, or 3 where a picture's tokens have a time, a row and a column.
    """

    ids: Tensor
    positions: Tensor
    late: Tensor
    causal: Tensor

    def __init__(
        self, prompt: PromptConfig, grids: Sequence[tuple[int, int]], length: int, axes: int
    ) -> None:
        super().__init__()
        if len(prompt.before) != len(grids):
            raise ValueError(f"{len(prompt.before)} pictures in the prompt, {len(grids)} cameras")
        self.pad = prompt.pad
        pieces = (*prompt.before, prompt.between, prompt.after)
        self.pieces = [len(tokens) for tokens in pieces]
        ids = [token for tokens in pieces for token in tokens]
        positions = _positions(prompt, grids, length, axes)
        count = positions.shape[1]
        tail = len(prompt.after) + 1
        masked = np.triu(np.full((count, count), MASKED, np.float32), 1)
        for name, values in (
            ("ids", np.array(ids, np.int64)),
            ("positions", positions),
            ("late", (np.arange(count) >= count - tail).astype(np.int64)),
            ("causal", masked),
        ):
            self.register_buffer(name, torch.from_numpy(values), persistent=False)
        self.words = slice(count - tail - length, count - tail)

    def forward(
        self, model: nn.Module, pictures: Sequence[Tensor], instruction: Tensor, state: Tensor
    ) -> Hidden:
        """Run the language model.

        Args:
            model: transformers' language model, without its head.
            pictures: features of each camera, [B, tokens, width].
            instruction: int64 [B, T].
            state: embedded, [B, width].
        """
        embed = model.get_submodule("embed_tokens")
        batch = len(instruction)
        *before, between, after = (
            piece.expand(batch, -1, -1) for piece in embed(self.ids).split(self.pieces)
        )
        parts = [part for pair in zip(before, pictures, strict=True) for part in pair]
        x = torch.cat([*parts, between, embed(instruction), after, state[:, None]], dim=1)
        real = instruction != self.pad
        missing = (~real).sum(-1)
        bias = torch.zeros(batch, x.shape[1], device=x.device)
        padding = real.logical_not().float() * MASKED
        bias = torch.cat(
            [bias[:, : self.words.start], padding, bias[:, self.words.stop :]], dim=1
        ).to(x.dtype)
        mask = self.causal.to(x.dtype) + bias[:, None, None]
        places = self.positions[:, None] - self.late * missing[:, None]
        turned = model.get_submodule("rotary_emb")(x, places if len(places) > 1 else places[0])
        for layer in model.get_submodule("layers").children():
            x = layer(x, attention_mask=mask, position_embeddings=turned)
        return Hidden(model.get_submodule("norm")(x), bias)


def _positions(
    prompt: PromptConfig, grids: Sequence[tuple[int, int]], length: int, axes: int
) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """Of a prompt whose instruction has T tokens: int64 [axes, S]."""
    found, at = [], 0

    def text(count: int) -> None:
        nonlocal at
        found.append(np.broadcast_to(at + np.arange(count), (axes, count)))
        at += count

    for tokens, (rows, columns) in zip(prompt.before, grids, strict=True):
        text(len(tokens))
        if axes == 1:
            text(rows * columns)
            continue
        row, column = np.mgrid[:rows, :columns].reshape(2, -1)
        found.append(at + np.stack([np.zeros_like(row), row, column]))
        at += max(rows, columns)
    text(len(prompt.between) + length + len(prompt.after) + 1)
    return np.concatenate(found, axis=1).astype(np.int64)
