"""How many kernels a GPU launches for a module: as PyTorch runs it, and once an engine fused it.

The fusion model, which is optimistic as a bound has to be: every product is a kernel, and so is
every normalisation and every choice of the largest; an attention is one, its two products and the
softmax between them; whatever else is computed element by element, gathered, moved or rounded
becomes part of a kernel beside it. Docs/decisions/0120 holds it against engines of TensorRT-RTX.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_ATEN = torch.ops.aten
_KERNELS = {
    *(_ATEN.mm, _ATEN.addmm, _ATEN.bmm, _ATEN.baddbmm, _ATEN.convolution),
    *(_ATEN.native_layer_norm, _ATEN.native_group_norm, _ATEN.topk),
}
# Makes no number: room for some, and views that are not said to be such.
_NOTHING = {_ATEN.empty, _ATEN.empty_like, _ATEN.empty_strided, _ATEN._unsafe_view}
# On PyTorch's meta device an attention is two products, a scaling of each factor, and this.
_ATTENTION = _ATEN._safe_softmax
_OPERATORS_OF_ATTENTION, _PRODUCTS_OF_ATTENTION = 5, 2


@dataclass(frozen=True)
class Launched:
    """Of one call: operators, each a kernel of its own in PyTorch, and kernels after fusion."""

    operators: int
    kernels: int


class Launches(TorchDispatchMode):
    """Counts while it is entered.

    operators: those that compute something, each a kernel of its own in PyTorch; kernels: what is
    left of them after the fusion model.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operators = 0
        self.kernels = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        kind = func.overloadpacket
        is_view = any(one.alias_info is not None for one in func._schema.returns)
        if not is_view and kind not in _NOTHING:
            self.operators += 1
            self.kernels += kind in _KERNELS
        if kind is _ATTENTION:
            # GPUs have it as one, in PyTorch too.
            self.operators += 1 - _OPERATORS_OF_ATTENTION
            self.kernels += 1 - _PRODUCTS_OF_ATTENTION
        return result
