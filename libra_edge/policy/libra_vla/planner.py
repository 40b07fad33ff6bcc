"""The semantic planner (System 2): backbone and parallel coarse-action head."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from libra_edge.policy.config import PolicyConfig
from libra_edge.policy.libra_vla.backbone import make_backbone
from libra_edge.policy.libra_vla.layers import EncoderBlock


class Planner(nn.Module):
    """Predicts the intent tokens of L = M*H steps in one forward pass.

    Learned queries, one per step, attend over the backbone's states and one another; a linear
    layer gives N logits per action dimension (arXiv 2604.24921, section on the coarse head).
    """

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__()
        self.backbone = make_backbone(config)
        width = config.planner.width
        given = config.planner.backbone.width
        self.memory = None if width == given else nn.Linear(given, width)
        self.queries = nn.Parameter(torch.randn(config.plan_steps, width) * 0.02)
        self.blocks = nn.ModuleList(
            EncoderBlock(width, config.planner.head_heads)
            for _ in range(config.planner.head_layers)
        )
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, config.action_dim * config.bins)
        self.bins = config.bins

    def forward(self, images: Tensor, instruction: Tensor, state: Tensor) -> Tensor:
        """Logits of every intent.

        Args:
            images: uint8 [B, V, h, w, 3].
            instruction: int64 [B, T].
            state: normalised, float [B, P].

        Returns:
            float [B, L, D, N].
        """
        memory, *rest = _parts(self.backbone(images, instruction, state))
        if self.memory is not None:
            memory = self.memory(memory)
        x = self.queries.expand(len(memory), -1, -1)
        # Queries see one another, and of the memory what is no padding.
        biases = [F.pad(bias, (0, x.shape[1]))[:, None, None] for bias in rest]
        for block in self.blocks:
            x = block(x, memory, *biases)
        logits: Tensor = self.output(self.norm(x)).unflatten(-1, (-1, self.bins))
        return logits


def _parts(given: Tensor | tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Hidden states, and what is added to their scores if the backbone says so."""
    return given if isinstance(given, tuple) else (given,)


def intents_and_margins(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Argmax tokens int32 [..., D] and top-1 minus top-2 logit float32 [..., D].

    Of equal logits the lowest token wins, in PyTorch and in ONNX alike.
    """
    top = logits.float().topk(2, dim=-1).values
    return logits.argmax(dim=-1).int(), top[..., 0] - top[..., 1]
