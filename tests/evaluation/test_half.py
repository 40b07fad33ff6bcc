from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from libra_edge.evaluation.half import products_of


class Both(nn.Module):
    """A layer, and a product of two activations."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 64, dtype=dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layer(x)
        return y @ y.transpose(0, 1)


@pytest.mark.parametrize("grad", [True, False])
def test_16_bit_products_are_rounded_once(grad: bool) -> None:
    torch.manual_seed(0)
    module = Both(torch.float16)
    x = torch.randn(8, 64).half()
    with torch.inference_mode(not grad), products_of(module):
        found = module(x)
    weight, bias = module.layer.weight.float(), module.layer.bias.float()
    y = (x.float() @ weight.T + bias).half()
    wanted = (y.float() @ y.float().T).half()
    assert found.dtype == torch.float16
    np.testing.assert_allclose(found.detach().float(), wanted.detach().float(), rtol=1e-3)


def test_32_bit_policies_run_as_they_are() -> None:
    module, x = Both(torch.float32), torch.randn(8, 64)
    with products_of(module):
        found = module(x)
    assert torch.equal(found, module(x))
