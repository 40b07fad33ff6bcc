"""ACT at inference (arXiv 2304.13705): the latent is zero, no variational encoder is needed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from libra_edge.policy.family import Graph, Parts
from libra_edge.policy.lerobot.normalize import Normalizer
from libra_edge.policy.lerobot.pictures import Pictures
from libra_edge.policy.lerobot.resnet import ResNet

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "gelu": nn.functional.gelu,
}


@dataclass(frozen=True)
class Sizes:
    """Widths and depths; `chunk` is what one call gives."""

    width: int
    heads: int
    feedforward: int
    encoder_layers: int
    decoder_layers: int
    latent: int
    chunk: int
    state_dim: int
    action_dim: int
    activation: str
    pre_norm: bool


class Attention(nn.Module):
    """Attention with several heads over [S, width] without a batch axis."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.heads = sizes.heads
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            self.add_module(name, nn.Linear(sizes.width, sizes.width))

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Query [Q, width]; key and value [S, width]."""

        def heads(name: str, x: Tensor) -> Tensor:
            y: Tensor = self.get_submodule(name)(x)
            return y.reshape(len(x), self.heads, -1).transpose(0, 1)

        q, k, v = heads("q_proj", query), heads("k_proj", key), heads("v_proj", value)
        weights = torch.softmax((q / math.sqrt(q.shape[-1])) @ k.transpose(1, 2), -1)
        mixed = (weights @ v).transpose(0, 1).reshape(len(query), -1)
        out: Tensor = self.get_submodule("out_proj")(mixed)
        return out


class Layer(nn.Module):
    """A layer of the encoder, or, with attention to its output, of the decoder."""

    def __init__(self, sizes: Sizes, *, decoder: bool) -> None:
        super().__init__()
        self.self_attn = Attention(sizes)
        self.multihead_attn = Attention(sizes) if decoder else None
        self.linear1 = nn.Linear(sizes.width, sizes.feedforward)
        self.linear2 = nn.Linear(sizes.feedforward, sizes.width)
        self.norms = 3 if decoder else 2
        for number in range(1, self.norms + 1):
            self.add_module(f"norm{number}", nn.LayerNorm(sizes.width))
        self.pre_norm, self.activation = sizes.pre_norm, ACTIVATIONS[sizes.activation]

    def forward(self, x: Tensor, place: Tensor, memory: Tensor, memory_place: Tensor) -> Tensor:
        """X and its places [Q, width]; memory, of the decoder, and its places [S, width]."""

        def around(number: int, x: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
            norm = self.get_submodule(f"norm{number}")
            return x + change(norm(x)) if self.pre_norm else norm(x + change(x))

        x = around(1, x, lambda y: self.self_attn(y + place, y + place, y))
        cross = self.multihead_attn
        if cross is not None:
            x = around(2, x, lambda y: cross(y + place, memory + memory_place, memory))
        return around(self.norms, x, lambda y: self.linear2(self.activation(self.linear1(y))))


class Stack(nn.Module):
    """Layers, and a norm after the last: of the decoder, or where norms stand before layers."""

    def __init__(self, sizes: Sizes, count: int, *, decoder: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(sizes, decoder=decoder) for _ in range(count))
        whole = decoder or sizes.pre_norm
        self.norm = nn.LayerNorm(sizes.width) if whole else nn.Identity()

    def forward(self, x: Tensor, place: Tensor, memory: Tensor, memory_place: Tensor) -> Tensor:
        """See `Layer`."""
        for layer in self.layers:
            x = layer(x, place, memory, memory_place)
        out: Tensor = self.norm(x)
        return out


class Network(nn.Module):
    """Normalised pictures and state to normalised actions [chunk, D]; names are LeRobot's."""

    def __init__(self, sizes: Sizes, backbone: ResNet) -> None:
        super().__init__()
        width = sizes.width
        self.backbone = backbone
        self.encoder = Stack(sizes, sizes.encoder_layers, decoder=False)
        self.decoder = Stack(sizes, sizes.decoder_layers, decoder=True)
        self.encoder_robot_state_input_proj = nn.Linear(sizes.state_dim, width)
        self.encoder_latent_input_proj = nn.Linear(sizes.latent, width)
        self.encoder_img_feat_input_proj = nn.Conv2d(backbone.width, width, 1)
        self.encoder_1d_feature_pos_embed = nn.Embedding(2, width)
        self.decoder_pos_embed = nn.Embedding(sizes.chunk, width)
        self.action_head = nn.Linear(width, sizes.action_dim)
        self.latent = sizes.latent

    def forward(self, pictures: list[Tensor], state: Tensor) -> Tensor:
        """Pictures [1, 3, h, w] of each camera, state [P]."""
        dtype = self.action_head.weight.dtype
        tokens = [
            self.encoder_latent_input_proj(torch.zeros(1, self.latent, dtype=dtype)),
            self.encoder_robot_state_input_proj(state[None].to(dtype)),
        ]
        places = [self.encoder_1d_feature_pos_embed.weight]
        for picture in pictures:
            features = self.backbone(picture.to(dtype))
            height, width = features.shape[-2:]
            places.append(places_in_a_map(height, width, self.decoder_pos_embed.weight))
            features = self.encoder_img_feat_input_proj(features)
            tokens.append(features[0].flatten(1).transpose(0, 1))
        memory, place = torch.cat(tokens), torch.cat(places)
        memory = self.encoder(memory, place, memory, place)
        queries = self.decoder_pos_embed.weight
        decoded = self.decoder(torch.zeros_like(queries), queries, memory, place)
        actions: Tensor = self.action_head(decoded).float()
        return actions


def places_in_a_map(height: int, width: int, like: Tensor) -> Tensor:
    """Sines and cosines of the places of a feature map, [height * width, E] for E = like.shape[1].

    Rows in the first half, columns in the second; places count from one and span a whole turn.
    """
    half = like.shape[1] // 2
    frequencies = 10000 ** (2 * (torch.arange(half, dtype=torch.float32) // 2) / half)

    def waves(count: int) -> Tensor:
        steps = torch.arange(1, count + 1, dtype=torch.float32)
        angles = (steps / (steps[-1] + 1e-6) * 2 * math.pi)[:, None] / frequencies
        return torch.stack((angles[:, 0::2].sin(), angles[:, 1::2].cos()), -1).flatten(1)

    rows = waves(height)[:, None].expand(height, width, half)
    columns = waves(width)[None].expand(height, width, half)
    return torch.cat((rows, columns), -1).flatten(0, 1).to(like.dtype)


class Act(nn.Module):
    """The whole policy: camera bytes and state in physical units to actions in physical units."""

    scale: Tensor
    offset: Tensor

    def __init__(
        self,
        pictures: Pictures,
        state: Normalizer,
        network: Network,
        finish: tuple[Tensor, Tensor],
        example: tuple[Tensor, Tensor],
    ) -> None:
        super().__init__()
        self.pictures, self.state, self.network = pictures, state, network
        for name, value in zip(("offset", "scale"), finish, strict=True):
            self.register_buffer(name, value, persistent=False)
        self._example = example

    def forward(self, images: Tensor, state: Tensor) -> Tensor:
        """Images uint8, state float32 [P] → actions float32 [chunk, D]."""
        actions: Tensor = self.network(self.pictures(images), self.state(state))
        return actions * self.scale + self.offset

    def refine(self, images: Tensor, state: Tensor, instruction: Tensor, noise: Tensor) -> Tensor:
        """See `libra_edge.policy.family.Policy`; neither words nor noise are used."""
        return self.forward(images, state)

    def refine_steps(
        self, images: Tensor, state: Tensor, instruction: Tensor, noise: Tensor
    ) -> Iterator[Tensor]:
        """There is nothing to denoise."""
        return iter(())

    def parts(self) -> Parts:
        """One graph."""
        coarse = Graph("coarse", self, self._example, ("images", "state"), ("actions",))
        return Parts(coarse=coarse)
