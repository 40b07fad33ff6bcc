"""SigLIP's vision tower (Zhai et al. 2023, arXiv 2303.15343); names are those of transformers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from libra_edge.policy.lerobot.decoder import gelu


@dataclass(frozen=True)
class TowerSizes:
    """Widths of a tower; `places` are those that have an embedding, in a square."""

    width: int
    heads: int
    layers: int
    feedforward: int
    patch: int
    places: int
    eps: float

    @property
    def side(self) -> int:
        """Patches along a side of the square."""
        return math.isqrt(self.places)


def tower_sizes(
    shapes: Mapping[str, tuple[int, ...]], *, heads: int, eps: float
) -> TowerSizes | None:
    """Sizes from the shapes of a tower's tensors; None where they are none of a tower.

    Args:
        shapes: by the tower's own names.
        heads: which tensors do not tell.
        eps: of the norms.
    """
    patches = shapes.get("embeddings.patch_embedding.weight", ())
    places = shapes.get("embeddings.position_embedding.weight", ())
    within = shapes.get("encoder.layers.0.mlp.fc1.weight", ())
    if (len(patches), len(places), len(within)) != (4, 2, 2):
        return None
    numbers = {name.split(".")[2] for name in shapes if name.startswith("encoder.layers.")}
    return TowerSizes(patches[0], heads, len(numbers), within[0], patches[2], places[0], eps)


class _Attention(nn.Module):
    def __init__(self, sizes: TowerSizes) -> None:
        super().__init__()
        self.heads = sizes.heads
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            self.add_module(name, nn.Linear(sizes.width, sizes.width))

    def forward(self, x: Tensor) -> Tensor:
        """X [B, N, width]."""

        def heads(name: str) -> Tensor:
            y: Tensor = self.get_submodule(name)(x)
            return y.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)

        q, k, v = heads("q_proj"), heads("k_proj"), heads("v_proj")
        weights = torch.softmax((q * q.shape[-1] ** -0.5) @ k.transpose(2, 3), -1)
        out: Tensor = self.get_submodule("out_proj")((weights @ v).transpose(1, 2).flatten(2))
        return out


class _Layer(nn.Module):
    def __init__(self, sizes: TowerSizes) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(sizes.width, eps=sizes.eps)
        self.self_attn = _Attention(sizes)
        self.layer_norm2 = nn.LayerNorm(sizes.width, eps=sizes.eps)
        self.mlp = nn.ModuleDict(
            {
                "fc1": nn.Linear(sizes.width, sizes.feedforward),
                "fc2": nn.Linear(sizes.feedforward, sizes.width),
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        """X [B, N, width]."""
        x = x + self.self_attn(self.layer_norm1(x))
        y: Tensor = self.mlp["fc2"](gelu(self.mlp["fc1"](self.layer_norm2(x))))
        return x + y


class Tower(nn.Module):
    """Pictures [B, 3, h, w], values from -1 to 1, to features of their patches [B, N, width].

    Args:
        sizes: its widths.
        places: the row of the position embeddings of each patch, int64 [N].
    """

    places: Tensor

    def __init__(self, sizes: TowerSizes, places: Tensor) -> None:
        super().__init__()
        self.embeddings = nn.ModuleDict(
            {
                "patch_embedding": nn.Conv2d(3, sizes.width, sizes.patch, sizes.patch),
                "position_embedding": nn.Embedding(sizes.places, sizes.width),
            }
        )
        layers = nn.ModuleList(_Layer(sizes) for _ in range(sizes.layers))
        self.encoder = nn.ModuleDict({"layers": layers})
        self.post_layernorm = nn.LayerNorm(sizes.width, eps=sizes.eps)
        self.register_buffer("places", places, persistent=False)

    def forward(self, pictures: Tensor) -> Tensor:
        """See the class."""
        patches = cast("nn.Conv2d", self.embeddings["patch_embedding"])
        x = patches(pictures.to(patches.weight.dtype)).flatten(2).transpose(1, 2)
        x = x + self.embeddings["position_embedding"](self.places)
        for layer in cast("nn.ModuleList", self.encoder["layers"]):
            x = layer(x)
        out: Tensor = self.post_layernorm(x)
        return out
