"""Quantised layers: in PyTorch they simulate, exported they are standard ONNX Q/DQ.

Simulation and graph share one set of integers and scales, so that a difference between them can
only come from the engine's arithmetic. Weights lie as [in, out], as ONNX multiplies.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from libra_edge.catalog import LayerPrecision
from libra_edge.compiler.blocks import BlockWeight
from libra_edge.engines.base import QdqForm
from libra_edge.policy.layers import ImageTokens

FP8 = torch.float8_e4m3fn
LARGEST = {"int8": 127.0, "fp8": 448.0}
_SMALLEST_AMAX = 1e-8
OPSET = 20


@dataclass(frozen=True)
class Ranges:
    """What calibration found for one layer.

    weight: after smoothing, as the module stores it; weight_amax per output channel [out], per
    block [out * blocks] or one number; input_amax: largest absolute value; input_floor: what the
    input is never below, where an activation function says so; input_scale: what smoothing
    multiplies the input by, [in], or None; output_amax: largest absolute value per channel of a
    convolution, [out].
    """

    weight: Tensor
    weight_amax: Tensor
    input_amax: float
    input_floor: float | None = None
    input_scale: Tensor | None = None
    output_amax: Tensor | None = None


def _onnx(
    operator: str, inputs: Sequence[Tensor | None], dtype: torch.dtype, shape: Any, **attrs: Any
) -> Tensor:
    return torch.onnx.ops.symbolic(operator, inputs, attrs, dtype=dtype, shape=shape, version=OPSET)


class ActivationQuantizer(nn.Module):
    """Rounds an activation to 8 bits and back, in the form an engine kind runs fast.

    Args:
        amax: the largest absolute value to represent.
        precision: `int8` or `fp8`.
        form: the engine kind's form.
        floor: the smallest value there is, or None if it may be as large as `amax`.
    """

    scale: Tensor
    zero: Tensor

    def __init__(
        self, amax: float, precision: str, form: QdqForm, floor: float | None = None
    ) -> None:
        super().__init__()
        amax = max(amax, _SMALLEST_AMAX)
        one_sided = floor is not None and precision == "int8" and form.unsigned_activations
        scale = (amax - floor) / 255 if one_sided and floor else amax / LARGEST[precision]
        self.float8 = precision == "fp8"
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32))
        if self.float8:
            zero = torch.zeros((), dtype=FP8)
        elif one_sided and floor:
            zero = torch.tensor(round(-floor / scale), dtype=torch.uint8)
        elif form.unsigned_activations:
            zero = torch.tensor(128, dtype=torch.uint8)
        else:
            zero = torch.tensor(0, dtype=torch.int8)
        self.register_buffer("zero", zero)

    def forward(self, x: Tensor) -> Tensor:
        """X, any shape → the nearest representable values, float32."""
        if torch.onnx.is_in_onnx_export():
            given = (self.scale, self.zero)
            rounded = _onnx("QuantizeLinear", (x, *given), self.zero.dtype, x.shape)
            return _onnx("DequantizeLinear", (rounded, *given), x.dtype, x.shape)
        if self.float8:
            largest = LARGEST["fp8"]
            return (x / self.scale).clamp(-largest, largest).to(FP8).float() * self.scale
        info = torch.iinfo(self.zero.dtype)
        zero = self.zero.float()
        return ((x / self.scale).round() + zero).clamp(info.min, info.max).sub(zero) * self.scale


class StoredWeight(nn.Module):
    """A weight as 8-bit numbers and one scale per output channel.

    Args:
        weight: float, output channels on `axis`.
        amax: largest absolute value per output channel, or one for all.
        precision: `int8` or `fp8`.
        axis: of the output channels.
    """

    stored: Tensor
    scale: Tensor
    zero: Tensor

    def __init__(self, weight: Tensor, amax: Tensor, precision: str, axis: int) -> None:
        super().__init__()
        self.axis = axis
        channels = weight.shape[axis]
        scale = amax.detach().float().flatten().clamp(min=_SMALLEST_AMAX) / LARGEST[precision]
        scale = scale.expand(channels).contiguous()
        scaled = weight.detach() / self._shaped(scale, weight.dim())
        if precision == "fp8":
            stored = scaled.clamp(-LARGEST["fp8"], LARGEST["fp8"]).to(FP8)
        else:
            stored = scaled.round().clamp(-LARGEST[precision], LARGEST[precision]).to(torch.int8)
        self.register_buffer("stored", stored.contiguous())
        self.register_buffer("scale", scale)
        self.register_buffer("zero", torch.zeros(channels, dtype=stored.dtype))

    def _shaped(self, scale: Tensor, dims: int) -> Tensor:
        return scale.reshape([-1 if i == self.axis else 1 for i in range(dims)])

    def forward(self) -> Tensor:
        """The weight as float32."""
        if torch.onnx.is_in_onnx_export():
            inputs = (self.stored, self.scale, self.zero)
            shape = self.stored.shape
            return _onnx("DequantizeLinear", inputs, torch.float32, shape, axis=self.axis)
        return self.stored.float() * self._shaped(self.scale, self.stored.dim())

    def times(self, factor: float) -> None:
        """Multiply by a factor, in place: scales change, no integer does."""
        self.scale *= factor


class StoredBias(nn.Module):
    """A bias, as int32 in units of input scale times weight scale where the engine wants that."""

    stored: Tensor
    scale: Tensor
    zero: Tensor

    def __init__(self, bias: Tensor, scale: Tensor | None) -> None:
        super().__init__()
        self.integer = scale is not None
        if scale is None:
            self.register_buffer("stored", bias.detach().clone())
            return
        largest = float(2**31 - 2**8)
        stored = (bias.detach().double() / scale.double()).round().clamp(-largest, largest)
        self.register_buffer("stored", stored.to(torch.int32))
        self.register_buffer("scale", scale.clone())
        self.register_buffer("zero", torch.zeros(len(bias), dtype=torch.int32))

    def forward(self) -> Tensor:
        """The bias as float32 [out]."""
        if not self.integer:
            return self.stored
        if torch.onnx.is_in_onnx_export():
            inputs = (self.stored, self.scale, self.zero)
            return _onnx("DequantizeLinear", inputs, torch.float32, self.stored.shape, axis=0)
        return self.stored.float() * self.scale


class QuantisedLinear(nn.Module):
    """y = x W + b with quantised weights and, unless weight-only, a quantised input.

    Args:
        linear: the layer it stands for.
        ranges: what calibration found.
        precision: what weights and activations become.
        form: the engine kind's form.
    """

    def __init__(
        self, linear: nn.Linear, ranges: Ranges, precision: LayerPrecision, form: QdqForm
    ) -> None:
        super().__init__()
        self.precision = precision
        floats, amax = ranges.weight.t(), ranges.weight_amax
        self.weight: StoredWeight | BlockWeight
        if precision.weights == "int4":
            self.weight = BlockWeight(floats, amax, to_fp8=precision.activations == "fp8")
        else:
            self.weight = StoredWeight(floats, amax, precision.weights, 1)
        self.smooth: Tensor | None
        self.register_buffer("smooth", ranges.input_scale)
        self.input: ActivationQuantizer | None = None
        bias_scale = None
        if precision.activations != "fp32":
            self.input = ActivationQuantizer(
                ranges.input_amax, precision.activations, form, ranges.input_floor
            )
            if precision.activations == "int8" and form.integer_bias:
                bias_scale = self.input.scale * self.weight.scale
        bias = linear.bias if linear.bias is not None else torch.zeros(linear.out_features)
        self.bias = StoredBias(bias, bias_scale)

    def scaled(self, factor: float) -> QuantisedLinear:
        """The same integers; outputs times `factor`."""
        result = copy.deepcopy(self)
        result.weight.times(factor)
        if result.bias.integer:
            result.bias.scale *= factor
        else:
            result.bias.stored *= factor
        return result

    def beside(self, other: QuantisedLinear) -> QuantisedLinear | None:
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

    def forward(self, x: Tensor) -> Tensor:
        """X [..., in] → [..., out]."""
        if self.smooth is not None:
            x = x * self.smooth
        # Rounded last: engines look for the rounding right before the product.
        rows = x if x.dim() == 2 else x.reshape(-1, x.shape[-1])
        if self.input is not None:
            rows = self.input(rows)
        weight, bias = self.weight(), self.bias()
        if torch.onnx.is_in_onnx_export():
            shape = (rows.shape[0], weight.shape[1])
            y = _onnx("Gemm", (rows, weight, bias), x.dtype, shape)
        else:
            y = rows @ weight + bias
        return y if x.dim() == 2 else y.reshape(*x.shape[:-1], y.shape[-1])


class QuantisedConv(nn.Module):
    """A convolution between an already quantised input and a quantised output.

    ONNX Runtime's integer convolution gives 8-bit results, so the output is rounded as well.
    """

    def __init__(
        self,
        ranges: Ranges,
        bias: Tensor,
        input_scale: Tensor,
        stride: tuple[int, int],
        padding: int,
        form: QdqForm,
    ) -> None:
        super().__init__()
        assert ranges.output_amax is not None
        self.stride, self.padding = stride, padding
        self.weight = StoredWeight(ranges.weight, ranges.weight_amax, "int8", 0)
        scale = input_scale * self.weight.scale if form.integer_bias else None
        self.bias = StoredBias(bias, scale)
        self.output = ActivationQuantizer(float(ranges.output_amax.max()), "int8", form)

    def forward(self, x: Tensor) -> Tensor:
        """X [B, in, h, w] → [B, out, h', w']."""
        y = nn.functional.conv2d(
            x, self.weight(), self.bias(), stride=self.stride, padding=self.padding
        )
        return self.output(y)


class FlatGroupNorm(nn.Module):
    """`GroupNorm`, its factor and offset per channel in one pass over the features."""

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.norm = norm
        self.register_buffer("mean", torch.zeros(norm.num_channels))
        self.register_buffer("variance", torch.ones(norm.num_channels))

    mean: Tensor
    variance: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """X [B, channels, h, w], normalised."""
        if not torch.onnx.is_in_onnx_export():
            return self.norm(x)
        groups = self.norm.num_groups
        y = nn.functional.instance_norm(x.reshape(len(x), groups, -1), eps=self.norm.eps)
        inputs = (y.reshape(x.shape), self.norm.weight, self.norm.bias, self.mean, self.variance)
        return torch.onnx.ops.symbolic(
            "BatchNormalization",
            inputs,
            {"epsilon": 0.0},
            dtype=x.dtype,
            shape=x.shape,
            version=OPSET,
        )


class QuantisedImageTokens(nn.Module):
    """`ImageTokens` in integers: camera bytes are 8-bit already and enter without rounding.

    The normalisation of pixels moves into the first convolution. Its zero padding then stands for
    the mean colour, which becomes a border of that colour, rounded to a byte.

    Args:
        tokens: what it stands for.
        ranges: of each convolution.
        form: the engine kind's form.
        integers: how many convolutions, from the first; those after them stay as they are.
    """

    def __init__(
        self, tokens: ImageTokens, ranges: Sequence[Ranges], form: QdqForm, integers: int = 64
    ) -> None:
        super().__init__()
        norms = [layer for layer in tokens.stem if isinstance(layer, nn.GroupNorm)]
        groups = [norm.num_groups for norm in norms]
        self.register_buffer("one", torch.tensor(1.0))
        self.register_buffer("none", torch.tensor(0, dtype=torch.uint8))
        mean = tokens.mean.flatten()
        self.register_buffer("colour", mean.round().to(torch.uint8))
        stages: list[nn.Module] = []
        found = iter(zip(ranges, [*groups, len(tokens.norm.weight)], strict=True))
        for layer in tokens.stem:
            if not isinstance(layer, nn.Conv2d):
                flat = isinstance(layer, nn.GroupNorm) and form.flat
                stages.append(FlatGroupNorm(cast(nn.GroupNorm, layer)) if flat else layer)
                continue
            own, count = next(found)
            assert layer.bias is not None
            if sum(isinstance(stage, QuantisedConv) for stage in stages) == integers:
                stages.append(layer)
                factor = torch.ones(layer.out_channels)
                continue
            factor = _evening(own, count)
            own, bias = _times(own, factor), layer.bias * factor
            if not stages:
                own, bias = _on_bytes(own, bias, mean, tokens.std.flatten())
                one = torch.tensor(1.0)
                stages.append(QuantisedConv(own, bias, one, (2, 1), 0, form))
            else:
                rounded = ActivationQuantizer(own.input_amax, "int8", form, own.input_floor)
                stages += [rounded, QuantisedConv(own, bias, rounded.scale, (2, 2), 1, form)]
        self.stem = nn.Sequential(*stages)
        # Group normalisations take a group's factor out again; after the last there is none.
        self.register_buffer("unit", 1 / factor)
        self.norm = tokens.norm
        self.position = tokens.position

    unit: Tensor
    one: Tensor
    none: Tensor
    colour: Tensor

    def forward(self, images: Tensor) -> Tensor:
        """Images uint8 [B, V, h, w, 3] → tokens float [B, V * tokens, width]."""
        # Two pixels side by side count as one of six channels: half as many, wider reads.
        pairs = self._bordered(images.flatten(0, 1)).unflatten(2, (-1, 2)).flatten(3)
        pixels = pairs.permute(0, 3, 1, 2)
        if torch.onnx.is_in_onnx_export():
            inputs = (pixels, self.one, self.none)
            x = _onnx("DequantizeLinear", inputs, torch.float32, pixels.shape)
        else:
            x = pixels.float()
        features = self.stem(x).flatten(2).transpose(1, 2)
        tokens = self.norm(features * self.unit).unflatten(0, images.shape[:2]) + self.position
        return tokens.flatten(1, 2)

    def _bordered(self, images: Tensor) -> Tensor:
        """One row before and, where stride 2 reads it, after; whole pairs of columns."""
        for axis in (1, 2):
            shape = list(images.shape)
            odd = shape[axis] % 2
            shape[axis] = 1
            border = self.colour.expand(shape)
            after = [border] * (odd if axis == 1 else 2 * odd or 1)
            images = torch.cat([border, images, *after], dim=axis)
        return images


def _evening(ranges: Ranges, groups: int) -> Tensor:
    """Factors per channel that let all groups of channels reach equally far: 8 bits serve all."""
    assert ranges.output_amax is not None
    reach = ranges.output_amax.reshape(groups, -1).amax(dim=1).clamp(min=_SMALLEST_AMAX)
    return (reach.max() / reach).repeat_interleave(len(ranges.output_amax) // groups)


def _times(ranges: Ranges, factor: Tensor) -> Ranges:
    """A convolution whose output channels are multiplied by `factor`."""
    assert ranges.output_amax is not None
    return replace(
        ranges,
        weight=ranges.weight * factor[:, None, None, None],
        weight_amax=ranges.weight_amax * factor,
        output_amax=ranges.output_amax * factor,
    )


def _on_bytes(ranges: Ranges, bias: Tensor, mean: Tensor, std: Tensor) -> tuple[Ranges, Tensor]:
    """The first convolution, for pairs of raw pixels in place of normalised ones."""
    weight = ranges.weight / std[:, None, None]
    amax = weight.abs().amax(dim=(1, 2, 3))
    bias = bias - (weight * mean[:, None, None]).sum(dim=(1, 2, 3))
    return replace(ranges, weight=_on_pairs(weight), weight_amax=amax), bias


def _on_pairs(weight: Tensor) -> Tensor:
    """A kernel [out, c, 3, 3] of stride 2, for pairs of columns: [out, 2 * c, 3, 2], stride 1."""
    out, channels, rows, columns = weight.shape
    wide = nn.functional.pad(weight, (0, 4 - columns))
    pairs = wide.reshape(out, channels, rows, 2, 2).permute(0, 4, 1, 2, 3)
    return pairs.reshape(out, 2 * channels, rows, 2).contiguous()
