"""Quantised layers: in PyTorch they simulate, exported they are standard ONNX Q/DQ.

Simulation and graph share one set of integers and scales, so that a difference between them can
only come from the engine's arithmetic. Weights lie as [in, out], as ONNX multiplies.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from libra_edge.catalog import LayerPrecision
from libra_edge.compiler.quantization.fp16 import stored_scale
from libra_edge.compiler.quantization.int4_blocks import BlockWeight
from libra_edge.engines.base import QdqForm

FP8 = torch.float8_e4m3fn
LARGEST = {"int8": 127.0, "fp8": 448.0}
SMALLEST = 1e-8
OPSET = 20
# The first in which operators that move numbers take 8-bit floats: optimisers make such.
_OPSET_FP8 = 21


@dataclass(frozen=True)
class Ranges:
    """What calibration found for one layer.

    weight: after smoothing, as the module stores it; weight_amax per output channel [out], per
    block [out * blocks] or one number; input_amax: largest value; input_floor: what the input is
    not to be below, where that is known; input_scale: what smoothing multiplies the input by, [in],
    or None; output_low, output_high: the least and largest value of each channel of a convolution,
    [out]; input_high: the largest of each channel that it reads, [in].
    """

    weight: Tensor
    weight_amax: Tensor
    input_amax: float
    input_floor: float | None = None
    input_scale: Tensor | None = None
    output_low: Tensor | None = None
    output_high: Tensor | None = None
    input_high: Tensor | None = None


def onnx_node(
    operator: str,
    inputs: Sequence[Tensor | None],
    dtype: torch.dtype,
    shape: Any,
    *,
    version: int = OPSET,
    **attrs: Any,
) -> Tensor:
    """An operator of standard ONNX, as of an opset, in an exported graph."""
    return torch.onnx.ops.symbolic(
        operator, inputs, attrs, dtype=dtype, shape=shape, version=version
    )


class ActivationQuantizer(nn.Module):
    """Rounds an activation to 8 bits and back, in the form an engine kind runs fast.

    Args:
        amax: the largest value to represent, of either sign if there is no floor.
        precision: `int8` or `fp8`.
        form: the engine kind's form.
        floor: the smallest value to represent, or None.
        floats: what the activation is in.
    """

    scale: Tensor
    zero: Tensor

    def __init__(
        self,
        amax: float,
        precision: str,
        form: QdqForm,
        floor: float | None = None,
        floats: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        two_bounds = floor is not None and precision == "int8" and form.unsigned_activations
        low, high = floor or 0.0, max(amax, SMALLEST)
        scale = (high - low) / 255 if two_bounds else max(high, -low) / LARGEST[precision]
        self.float8 = precision == "fp8"
        exact = torch.tensor(scale, dtype=torch.float64)
        self.register_buffer("scale", stored_scale(exact, floats, of_floats=self.float8))
        if self.float8:
            zero = torch.zeros((), dtype=FP8)
        elif two_bounds:
            zero = torch.tensor(round(-low / scale), dtype=torch.uint8)
        elif form.unsigned_activations:
            zero = torch.tensor(128, dtype=torch.uint8)
        else:
            zero = torch.tensor(0, dtype=torch.int8)
        self.register_buffer("zero", zero)

    def forward(self, x: Tensor) -> Tensor:
        """X, any shape → the nearest representable values, in the floats that it came in."""
        if torch.onnx.is_in_onnx_export():
            given = (self.scale, self.zero)
            rounded = onnx_node("QuantizeLinear", (x, *given), self.zero.dtype, x.shape)
            return onnx_node("DequantizeLinear", (rounded, *given), x.dtype, x.shape)
        # As engines do: rounded and scaled in 32 bits, whatever the floats around it.
        scale, scaled = self.scale.float(), x.float() / self.scale.float()
        if self.float8:
            largest = LARGEST["fp8"]
            return (scaled.clamp(-largest, largest).to(FP8).float() * scale).to(x.dtype)
        info = torch.iinfo(self.zero.dtype)
        zero = self.zero.float()
        rounded = (scaled.round() + zero).clamp(info.min, info.max).sub(zero)
        return (rounded * scale).to(x.dtype)


class StoredWeight(nn.Module):
    """A weight as 8-bit numbers and one scale per output channel.

    Args:
        weight: float, output channels on `axis`.
        amax: largest absolute value per output channel, or one for all.
        precision: `int8` or `fp8`.
        axis: of the output channels.
        floats: what it is multiplied in.
    """

    stored: Tensor
    scale: Tensor
    zero: Tensor

    def __init__(
        self,
        weight: Tensor,
        amax: Tensor,
        precision: str,
        axis: int,
        floats: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.axis = axis
        channels = weight.shape[axis]
        scale = amax.detach().float().flatten().clamp(min=SMALLEST) / LARGEST[precision]
        scale = stored_scale(scale, floats, of_floats=precision == "fp8")
        scale = scale.expand(channels).contiguous()
        scaled = weight.detach() / self._shaped(scale.float(), weight.dim())
        if precision == "fp8":
            stored = scaled.clamp(-LARGEST["fp8"], LARGEST["fp8"]).to(FP8)
        else:
            stored = scaled.round().clamp(-LARGEST[precision], LARGEST[precision]).to(torch.int8)
        self.register_buffer("stored", stored.contiguous())
        self.register_buffer("scale", scale)
        self.register_buffer("zero", torch.zeros(channels, dtype=stored.dtype))

    def _shaped(self, scale: Tensor, dims: int) -> Tensor:
        return scale.reshape([-1 if i == self.axis else 1 for i in range(dims)])

    def forward(self, gain: Tensor | None = None) -> Tensor:
        """The weight as floats, its output channels times `gain` if there is one."""
        scale = self.scale if gain is None else self.scale * gain
        if torch.onnx.is_in_onnx_export():
            inputs = (self.stored, scale, self.zero)
            shape = self.stored.shape
            return onnx_node("DequantizeLinear", inputs, scale.dtype, shape, axis=self.axis)
        weight = self.stored.float() * self._shaped(scale.float(), self.stored.dim())
        return weight.to(scale.dtype)


class StoredBias(nn.Module):
    """A bias, as int32 in units of input scale times weight scale where the engine wants that."""

    stored: Tensor
    scale: Tensor
    zero: Tensor

    def __init__(
        self, bias: Tensor, scale: Tensor | None, floats: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        self.integer = scale is not None
        if scale is None:
            self.register_buffer("stored", bias.detach().clone().to(floats))
            return
        largest = float(2**31 - 2**8)
        stored = (bias.detach().double() / scale.double()).round().clamp(-largest, largest)
        self.register_buffer("stored", stored.to(torch.int32))
        self.register_buffer("scale", scale.clone())
        self.register_buffer("zero", torch.zeros(len(bias), dtype=torch.int32))

    def forward(self, gain: Tensor | None = None) -> Tensor:
        """The bias as floats [out], times `gain` if there is one."""
        if not self.integer:
            return self.stored if gain is None else self.stored * gain
        scale = self.scale if gain is None else self.scale * gain
        if torch.onnx.is_in_onnx_export():
            inputs = (self.stored, scale, self.zero)
            return onnx_node("DequantizeLinear", inputs, torch.float32, self.stored.shape, axis=0)
        return self.stored.float() * scale


class QuantizedLinear(nn.Module):
    """y = x W + b with quantised weights and, unless weight-only, a quantised input.

    Args:
        linear: the layer it stands for.
        ranges: what calibration found.
        precision: what weights and activations become.
        form: the engine kind's form.
        floats: what comes in, goes out, and is multiplied where `precision` leaves floats.
    """

    def __init__(
        self,
        linear: nn.Linear,
        ranges: Ranges,
        precision: LayerPrecision,
        form: QdqForm,
        floats: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.precision = precision
        weight, amax = ranges.weight.t(), ranges.weight_amax
        self.weight: StoredWeight | BlockWeight
        if precision.weights == "int4":
            to_fp8 = precision.activations == "fp8"
            self.weight = BlockWeight(weight, amax, to_fp8=to_fp8, floats=floats)
        else:
            self.weight = StoredWeight(weight, amax, precision.weights, 1, floats)
        self.smooth: Tensor | None
        smooth = ranges.input_scale
        self.register_buffer("smooth", None if smooth is None else smooth.to(floats))
        self.input: ActivationQuantizer | None = None
        bias_scale = None
        if precision.rounds_inputs:
            self.input = ActivationQuantizer(
                ranges.input_amax, precision.activations, form, ranges.input_floor, floats
            )
            if precision.activations == "int8" and form.integer_bias:
                bias_scale = self.input.scale * self.weight.scale
        if "fp8" in (precision.weights, precision.activations):
            self.opset = _OPSET_FP8
        bias = linear.bias if linear.bias is not None else torch.zeros(linear.out_features)
        self.bias = StoredBias(bias, bias_scale, floats)
        self.biased = True

    def halved(self, which: int, *, biased: bool = True) -> QuantizedLinear:
        """The layer with the first half of its outputs alone, or the second."""
        result = copy.deepcopy(self)
        result.biased = biased
        for part in (result.weight, result.bias):
            for name, buffer in list(part.named_buffers()):
                if buffer.dim():
                    setattr(part, name, buffer.chunk(2, dim=-1)[which].contiguous())
        return result

    def beside(self, other: QuantizedLinear) -> QuantizedLinear | None:
        """One layer with the outputs of both; None unless both round the same input alike."""
        if self.smooth is not None or other.smooth is not None or self.precision != other.precision:
            return None
        if self.input is not None:
            assert other.input is not None
            if self.input.scale != other.input.scale:
                return None
        if isinstance(self.weight, BlockWeight) or isinstance(other.weight, BlockWeight):
            return None
        result = copy.deepcopy(self)
        assert isinstance(result.weight, StoredWeight)
        result.weight.stored = torch.cat([self.weight.stored, other.weight.stored], dim=1)
        for name in ("scale", "zero"):
            pair = [getattr(layer.weight, name) for layer in (self, other)]
            setattr(result.weight, name, torch.cat(pair))
        for name in ("stored", "scale", "zero") if self.bias.integer else ("stored",):
            pair = [getattr(layer.bias, name) for layer in (self, other)]
            setattr(result.bias, name, torch.cat(pair))
        return result

    def forward(self, x: Tensor, gain: Tensor | None = None) -> Tensor:
        """X [..., in] → [..., out], times `gain` [out]: scales change, and no operator is added."""
        if self.smooth is not None:
            x = x * self.smooth
        # Rounded last: engines look for the rounding right before the product.
        rows = x if x.dim() == 2 else x.reshape(-1, x.shape[-1])
        if self.input is not None:
            rows = self.input(rows)
        if isinstance(self.weight, StoredWeight):
            weight = self.weight(gain)
        else:
            assert gain is None
            weight = self.weight()
        bias = (self.bias(gain),) if self.biased else ()
        if torch.onnx.is_in_onnx_export():
            shape = (rows.shape[0], weight.shape[1])
            y = onnx_node("Gemm", (rows, weight, *bias), x.dtype, shape)
        else:
            y = sum(bias, rows @ weight)
        return y if x.dim() == 2 else y.reshape(*x.shape[:-1], y.shape[-1])
