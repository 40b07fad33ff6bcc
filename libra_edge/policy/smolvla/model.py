"""SmolVLA's prefix: pictures, words and state through the first layers of SmolVLM2."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from libra_edge.policy.lerobot.decoder import (
    HIDDEN,
    Layer,
    LayerSizes,
    Reading,
    attended,
    each,
    in_heads,
    turned,
    turns,
)
from libra_edge.policy.lerobot.normalize import Normalizer
from libra_edge.policy.lerobot.pictures import Pictures
from libra_edge.policy.lerobot.siglip import Tower


class Connector(nn.Module):
    """Features of patches to features of words: squares of patches side by side, then a product."""

    def __init__(self, scale: int, width: int, words: int) -> None:
        super().__init__()
        self.scale, self.proj = scale, nn.Linear(width * scale * scale, words, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """[B, N, width] → [B, N / scale^2, words]."""
        count, patches, width = features.shape
        side = math.isqrt(patches) // self.scale
        squares = features.reshape(count, side, self.scale, side, self.scale, width)
        out: Tensor = self.proj(squares.transpose(2, 3).reshape(count, side * side, -1))
        return out


class Reader(nn.Module):
    """Keys and values that a layer of the expert makes from a layer of the language model.

    LeRobot makes values from the language model's values. Nothing stands between the two products,
    so they are one here, from what the language model's are made of.

    Args:
        sizes: of the expert's layer.
        width: of the language model.
    """

    def __init__(self, sizes: LayerSizes, width: int) -> None:
        super().__init__()
        self.k_proj = nn.Linear(sizes.read, sizes.groups * sizes.head, bias=False)
        self.v_proj = nn.Linear(width, sizes.groups * sizes.head, bias=False)
        self.head = sizes.head

    def forward(self, keys: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Of keys [groups, S, d] and what they were made from, [S, width]."""
        flat = keys.transpose(0, 1).flatten(1)
        return in_heads(self.k_proj(flat), self.head), in_heads(self.v_proj(x), self.head)


class Prefix(nn.Module):
    """images, state and instruction to `libra_edge.policy.lerobot.flow.Context`.

    Args:
        pictures: from bytes to values from 0 to 1.
        framing: of each camera, to the tower's size.
        state: normaliser.
        tower, connector: SmolVLM2's eyes.
        words: embeddings of the vocabulary.
        layers: of the language model; of the last, keys and values alone are used.
        readers: of layers whose keys and values the expert makes anew, by the layer's number.
        seen: numbers of the layers that the expert looks at.
        state_dim: P.
        marks: words around each picture, before and after it.
        empty: cameras that are not there; their marks are.
        rows: H.
        pad: the word that fills up.
    """

    def __init__(
        self,
        pictures: Pictures,
        framing: Sequence[nn.Module],
        state: Normalizer,
        tower: Tower,
        connector: Connector,
        words: nn.Embedding,
        layers: Sequence[Layer],
        readers: Mapping[int, Reader],
        seen: Collection[int],
        *,
        state_dim: int,
        marks: tuple[tuple[int, ...], tuple[int, ...]],
        empty: int,
        rows: int,
        pad: int,
    ) -> None:
        super().__init__()
        self.pictures, self.framing, self.state = pictures, nn.ModuleList(framing), state
        self.vision, self.connector = tower, connector
        self.embed_tokens, self.language = words, nn.ModuleList(layers)
        layers[-1].keep_reading()
        if len(layers) - 1 in readers:
            # Its values are asked for by nobody.
            del cast("Reading", layers[-1].self_attn.reading).v_proj
        self.state_proj = nn.Linear(state_dim, words.embedding_dim)
        self.readers = nn.ModuleDict({str(number): one for number, one in readers.items()})
        self._seen = frozenset(seen)
        self.marks, self.empty, self.rows, self.pad = marks, empty, rows, pad

    def forward(self, images: Tensor, state: Tensor, instruction: Tensor) -> tuple[Tensor, ...]:
        """Images uint8, state float32 [P], instruction int64 [T]."""
        x, seen = self._embedded(images, state, instruction)
        places = seen.cumsum(0) - 1.0
        layers = each(self.language)
        head = layers[0].self_attn.head
        turn = turns(places, head)
        bias = (1.0 - seen) * HIDDEN
        # The state, which stands last, sees everything and is seen by itself alone.
        last = torch.zeros(len(x), len(x))
        last[:-1, -1] = HIDDEN
        among = bias + last
        cache: list[Tensor] = []
        for number, layer in enumerate(layers):
            attention, z = layer.self_attn, layer.input_layernorm(x)
            reading, read_again = cast("Reading", attention.reading), str(number) in self.readers
            keys = turned(reading.keys(z), turn)
            if read_again:
                cache += self.readers[str(number)](keys, z)
            elif number in self._seen:
                cache += [keys, reading.values(z)]
            if number + 1 < len(layers):
                values = reading.values(z) if read_again or number not in self._seen else cache[-1]
                mixed = attended(turned(attention.queries(z), turn), keys, values, among)
                x = layer.after(x, mixed)
        following = seen.sum() + torch.arange(self.rows, dtype=torch.float32)
        return bias, *turns(following, head), *cache

    def _embedded(
        self, images: Tensor, state: Tensor, instruction: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Everything as words [S, width], and what of it is there: 1 or 0, [S]."""
        root = self.embed_tokens.embedding_dim**0.5
        framed = [
            framing(picture)
            for framing, picture in zip(self.framing, self.pictures(images), strict=True)
        ]
        features = self.connector(self.vision(torch.cat(framed) * 2.0 - 1.0)) * root
        before, after = (self.embed_tokens(torch.tensor(m, dtype=torch.long)) for m in self.marks)
        parts = [part for one in features for part in (before, one, after)]
        parts += [before, after] * self.empty
        parts.append(self.embed_tokens(instruction) * root)
        parts.append(self.state_proj(self.state(state).to(self.state_proj.weight.dtype))[None])
        x = torch.cat(parts)
        words = (instruction != self.pad).float()
        return x, torch.cat((torch.ones(len(x) - len(words) - 1), words, torch.ones(1)))


def places_of(patches: int, side: int) -> Tensor:
    """Rows of the position embeddings for a square of patches, int64 [patches^2].

    Pictures of another size than the eyes were trained on take the nearest place below
    (transformers' SmolVLM; exact where the sizes are the same).

    Args:
        patches: along the side of the picture.
        side: of the square of embeddings.
    """
    borders = torch.arange(1 / side, 1.0, 1 / side)
    along = (torch.arange(patches, dtype=torch.float32) * (1.0 / patches)).clamp(max=1.0 - 1e-6)
    places = torch.bucketize(along, borders, right=True)
    return (places[:, None] * side + places[None]).flatten()
