"""pi0's prefix: pictures and words through PaliGemma, and the state through the expert."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from libra_edge.policy.lerobot.decoder import HIDDEN, Layer, attended, each, turned, turns
from libra_edge.policy.lerobot.normalize import Normalizer
from libra_edge.policy.lerobot.pictures import Pictures
from libra_edge.policy.lerobot.siglip import Tower


class Prefix(nn.Module):
    """images, state and instruction to `libra_edge.policy.lerobot.flow.Context`.

    The state is the expert's first token and sees no action: what it gives is the same in every
    step, so it is computed here, with the expert's weights.

    Args:
        pictures: from bytes to values from 0 to 1.
        framing: of each camera, to the tower's size.
        state: normaliser.
        tower, projector: PaliGemma's eyes.
        words: embeddings of the vocabulary.
        layers: of the language model; of the last, keys and values alone are used.
        experts: of the expert, beside them; of the last, keys and values alone are used.
        state_dim: P.
        rows: H.
        pad: the word that fills up.
    """

    def __init__(
        self,
        pictures: Pictures,
        framing: Sequence[nn.Module],
        state: Normalizer,
        tower: Tower,
        projector: nn.Linear,
        words: nn.Embedding,
        layers: Sequence[Layer],
        experts: Sequence[Layer],
        *,
        state_dim: int,
        rows: int,
        pad: int,
    ) -> None:
        super().__init__()
        self.pictures, self.framing, self.state = pictures, nn.ModuleList(framing), state
        self.vision, self.projector, self.embed_tokens = tower, projector, words
        self.language, self.of_state = nn.ModuleList(layers), nn.ModuleList(experts)
        for last in (layers[-1], experts[-1]):
            last.keep_reading()
        self.state_proj = nn.Linear(state_dim, experts[0].input_layernorm.weight.shape[0])
        self.rows, self.pad = rows, pad

    def forward(self, images: Tensor, state: Tensor, instruction: Tensor) -> tuple[Tensor, ...]:
        """Images uint8, state float32 [P], instruction int64 [T]."""
        root = self.embed_tokens.embedding_dim**0.5
        framed = [
            framing(picture)
            for framing, picture in zip(self.framing, self.pictures(images), strict=True)
        ]
        features = self.projector(self.vision(torch.cat(framed) * 2.0 - 1.0)).flatten(0, 1)
        x = torch.cat((features, self.embed_tokens(instruction) * root))
        seen = torch.cat((torch.ones(len(features)), (instruction != self.pad).float()))
        layers, experts = each(self.language), each(self.of_state)
        head, count = layers[0].self_attn.head, seen.sum()
        turn, bias = turns(seen.cumsum(0) - 1.0, head), (1.0 - seen) * HIDDEN
        s, state_turn = (
            self.state_proj(self.state(state).to(self.state_proj.weight.dtype))[None],
            turns(count[None], head),
        )
        beside = torch.cat((bias, torch.zeros(1)))
        cache: list[Tensor] = []
        for number, (layer, expert) in enumerate(zip(layers, experts, strict=True)):
            z, y = layer.input_layernorm(x), expert.input_layernorm(s)
            keys, values = layer.self_attn.read(z)
            state_keys, state_values = expert.self_attn.read(y)
            keys = turned(keys, turn)
            all_keys = torch.cat((keys, turned(state_keys, state_turn)), 1)
            all_values = torch.cat((values, state_values), 1)
            cache += [all_keys, all_values]
            if number + 1 < len(layers):
                queries = turned(layer.self_attn.queries(z), turn)
                x = layer.after(x, attended(queries, keys, values, bias))
                asked = turned(expert.self_attn.queries(y), state_turn)
                s = expert.after(s, attended(asked, all_keys, all_values, beside))
        following = count + 1.0 + torch.arange(self.rows, dtype=torch.float32)
        return beside, *turns(following, head), *cache
