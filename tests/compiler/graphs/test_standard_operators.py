"""Graphs hold standard operators alone, where the simplifier knows others."""

from __future__ import annotations

import onnxsim
import torch
from torch import Tensor, nn

from libra_edge.compiler.graphs.export import export, torch_program
from libra_edge.policy.family import Graph
from libra_edge.policy.libra_vla.pretrained.config import InternVlConfig
from libra_edge.policy.libra_vla.pretrained.internvl import InternVl


class Features(nn.Module):
    """What an InternVL, as it is drawn, sees: its biases are all zero, and one tensor."""

    def __init__(self) -> None:
        super().__init__()
        sizes = {"intermediate_size": 32, "num_attention_heads": 2}
        vision = {"hidden_size": 24, "num_hidden_layers": 1, "image_size": 28, "patch_size": 7}
        words = {"hidden_size": 16, "num_hidden_layers": 0, "num_key_value_heads": 2}
        words |= {"model_type": "llama", "vocab_size": 30, "head_dim": 8}
        config = {
            "pictures": {"mean": (0.5,) * 3, "std": (0.5,) * 3},
            "vision": sizes | vision | {"attention_bias": True},
            "language": sizes | words,
            "prompt": {"before": [[1]], "between": [1], "after": [1], "pad": 0},
        }
        torch.manual_seed(0)
        self.backbone = InternVl(InternVlConfig.model_validate(config), (28, 28), 3, 3)

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.backbone.features(images[None])[0]
        return found


def test_attention_is_not_made_an_operator_of_one_engine() -> None:
    images = torch.zeros(1, 28, 28, 3, dtype=torch.uint8)
    graph = Graph("features", Features().eval(), (images,), ("images",), ("tokens",))
    usual, _ = onnxsim.simplify(torch_program(graph).model_proto)
    assert {node.domain for node in usual.graph.node} == {"", "com.microsoft"}
    assert {node.domain for node in export(graph).graph.node} == {""}
