"""Weights of 4 bits: `block` inputs of one output share a scale, in ONNX and in PyTorch.

Neither PyTorch nor the exporter knows 4-bit tensors, so weights travel in 8-bit containers under
the operator that reads them in blocks; `pack` makes real 4-bit initialisers of them at the end.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from libra_edge.compiler.quantization.fp16 import stored_scale

FP8 = torch.float8_e4m3fn
LARGEST = 7.0
_LARGEST_FP8 = 448.0
_SMALLEST_AMAX = 1e-8
# The first with operators that read weights in blocks, and with 4-bit tensors.
OPSET = 21
BLOCK_SIZE = "block_size"


def fills_blocks(in_features: int, block: int) -> bool:
    """Whether a layer's inputs are whole blocks, two at least: engines turn one into floats."""
    return in_features % block == 0 and in_features >= 2 * block


class BlockWeight(nn.Module):
    """A weight in blocks of 4-bit numbers, each block with one scale.

    Args:
        weight: float [in, out].
        amax: largest absolute value of each block, [out * blocks], a row's blocks side by side.
        to_fp8: round the weight to 8-bit floats after that, with one scale: what engines that
            multiply 8-bit floats need of both factors.
        floats: what it is multiplied in.
    """

    opset = OPSET
    stored: Tensor
    scale: Tensor
    scale8: Tensor
    zero8: Tensor

    def __init__(
        self,
        weight: Tensor,
        amax: Tensor,
        *,
        to_fp8: bool,
        floats: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        inputs, outputs = weight.shape
        scale = amax.detach().float().reshape(outputs, -1).t().clamp(min=_SMALLEST_AMAX) / LARGEST
        self.block = inputs // len(scale)
        self.to_fp8 = to_fp8
        scale = stored_scale(scale, floats)
        scaled = weight.detach() / scale.float().repeat_interleave(self.block, dim=0)
        stored = scaled.round().clamp(-LARGEST, LARGEST).to(torch.int8)
        self.register_buffer("stored", stored.contiguous())
        self.register_buffer("scale", scale.contiguous())
        if to_fp8:
            largest = self._floats().float().abs().max() / _LARGEST_FP8
            self.register_buffer("scale8", stored_scale(largest, floats, of_floats=True))
            self.register_buffer("zero8", torch.zeros((), dtype=FP8))

    def _floats(self) -> Tensor:
        scale = self.scale.float().repeat_interleave(self.block, dim=0)
        return (self.stored.float() * scale).to(self.scale.dtype)

    def forward(self) -> Tensor:
        """The weight as floats [in, out]."""
        floats, shape = self.scale.dtype, self.stored.shape
        if not torch.onnx.is_in_onnx_export():
            weight = self._floats()
            if not self.to_fp8:
                return weight
            scale8 = self.scale8.float()
            return ((weight.float() / scale8).to(FP8).float() * scale8).to(floats)
        attributes: dict[str, Any] = {"axis": 0, BLOCK_SIZE: self.block}
        weight = _onnx("DequantizeLinear", (self.stored, self.scale), floats, shape, attributes)
        if self.to_fp8:
            given = (self.scale8, self.zero8)
            rounded = _onnx("QuantizeLinear", (weight, *given), FP8, shape)
            weight = _onnx("DequantizeLinear", (rounded, *given), floats, shape)
        return weight

    def times(self, factor: float) -> None:
        """Multiply by a factor, in place: scales change, no integer does."""
        self.scale *= factor
        if self.to_fp8:
            self.scale8 *= factor


def _onnx(
    operator: str,
    inputs: tuple[Tensor, ...],
    dtype: torch.dtype,
    shape: Any,
    attributes: dict[str, Any] | None = None,
) -> Tensor:
    return torch.onnx.ops.symbolic(
        operator, inputs, attributes or {}, dtype=dtype, shape=shape, version=OPSET
    )


def pack(graph: onnx.GraphProto) -> None:
    """Make 4-bit initialisers, in place, of the weights that are read in blocks."""
    names = {
        node.input[0]
        for node in graph.node
        if node.op_type == "DequantizeLinear" and any(a.name == BLOCK_SIZE for a in node.attribute)
    }
    for tensor in graph.initializer:
        if tensor.name in names and tensor.data_type == onnx.TensorProto.INT8:
            values = numpy_helper.to_array(tensor).astype(ml_dtypes.int4)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
