"""16-bit products as a graphics processor makes them, on a CPU that has none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

_ATEN = torch.ops.aten
_PRODUCTS = {
    _ATEN.mm.default,
    _ATEN.bmm.default,
    _ATEN.addmm.default,
    _ATEN.baddbmm.default,
    _ATEN.convolution.default,
    _ATEN.linear.default,
    _ATEN.conv1d.default,
    _ATEN.conv2d.default,
    _ATEN.conv_transpose1d.default,
    _ATEN.matmul.default,
}


class _InSingle(TorchDispatchMode):
    """Multiplies 16-bit floats and sums the products in 32 bits, and rounds each result once."""

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        half = func in _PRODUCTS and any(_is_half(a) for a in args)
        if not half:
            return func(*args, **(kwargs or {}))
        wide = (a.float() if _is_half(a) else a for a in args)
        return func(*wide, **(kwargs or {})).half()


def _is_half(argument: object) -> bool:
    return isinstance(argument, Tensor) and argument.dtype == torch.float16


def products_of(module: nn.Module) -> AbstractContextManager[object]:
    """While a module runs: 16-bit products summed in 32 bits and rounded once, as tensor cores do.

    PyTorch's own 16-bit products on a CPU take hundreds of times as long and round no better.
    """
    half = any(parameter.dtype == torch.float16 for parameter in module.parameters())
    return _InSingle() if half else nullcontext()
