"""Image stems in integers, for engines that take the camera's own bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from libra_edge.compiler.quantization.linear import (
    OPSET,
    SMALLEST,
    Ranges,
    StoredBias,
    StoredWeight,
    onnx_node,
)
from libra_edge.engines.base import QdqForm
from libra_edge.policy.libra_vla.layers import ImageTokens


class ChannelQuantizer(nn.Module):
    """Rounds features to 8 bits, each channel with its own scale, all with one zero point.

    What follows reads them as if all scales were one: `scale` belongs into its weights.

    Args:
        low: the smallest value of any channel.
        high: the largest value of each, [channels].
    """

    scale: Tensor
    zeros: Tensor
    one: Tensor
    zero: Tensor

    def __init__(self, low: float, high: Tensor) -> None:
        super().__init__()
        # A channel of small values alone would move everyone's zero point far up.
        high = high.clamp(min=max(float(high.max()) / 8, SMALLEST))
        low = min(low, 0.0)
        zero = round(-low / (float(high.min()) - low) * 255)
        self.register_buffer("scale", high / (255 - zero))
        self.register_buffer("zeros", torch.full((len(high),), zero, dtype=torch.uint8))
        self.register_buffer("one", torch.tensor(1.0))
        self.register_buffer("zero", torch.tensor(zero, dtype=torch.uint8))

    def forward(self, x: Tensor) -> Tensor:
        """X [B, channels, h, w] → whole numbers, float32."""
        if torch.onnx.is_in_onnx_export():
            given = (x, self.scale, self.zeros)
            codes = onnx_node("QuantizeLinear", given, torch.uint8, x.shape, axis=1)
            return onnx_node("DequantizeLinear", (codes, self.one, self.zero), x.dtype, x.shape)
        zero = self.zero.float()
        scaled = (x / self.scale[:, None, None]).round() + zero
        return scaled.clamp(0, 255) - zero


class QuantizedConv(nn.Module):
    """A convolution between an already quantised input and a quantised output.

    ONNX Runtime's integer convolution gives 8-bit results in one scale, so the output is rounded
    as well. Each channel's own scale and zero point move into the weights and the bias, and are
    taken out again where its results turn into floats.

    Args:
        ranges: what calibration found.
        bias: of the convolution, [out].
        input_scale: of the quantised input.
        stride: per axis.
        padding: before and after rows, then before and after columns.
    """

    scale: Tensor
    zero: Tensor
    one: Tensor
    none: Tensor

    def __init__(
        self,
        ranges: Ranges,
        bias: Tensor,
        input_scale: Tensor,
        stride: tuple[int, int],
        padding: tuple[int, int, int, int],
    ) -> None:
        super().__init__()
        assert ranges.output_low is not None
        assert ranges.output_high is not None
        self.stride, self.padding = stride, padding
        low, high = ranges.output_low.clamp(max=0), ranges.output_high.clamp(min=0)
        scale = ((high - low) / 255).clamp(min=SMALLEST)
        zero = (-low / scale).round()
        self.register_buffer("scale", scale)
        self.register_buffer("zero", zero.to(torch.uint8))
        self.register_buffer("one", torch.tensor(1.0))
        self.register_buffer("none", torch.tensor(0, dtype=torch.uint8))
        weight = ranges.weight / scale[:, None, None, None]
        self.weight = StoredWeight(weight, ranges.weight_amax / scale, "int8", 0)
        self.bias = StoredBias(bias / scale + zero, input_scale * self.weight.scale)

    def forward(self, x: Tensor) -> Tensor:
        """X [B, in, h, w] → [B, out, h', w']."""
        top, bottom, left, right = self.padding
        weight, bias = self.weight(), self.bias()
        if not torch.onnx.is_in_onnx_export():
            padded = nn.functional.pad(x, (left, right, top, bottom))
            y = nn.functional.conv2d(padded, weight, bias, stride=self.stride)
            codes = y.round().clamp(0, 255) - self.zero[:, None, None].float()
            return codes * self.scale[:, None, None]
        rows = (x.shape[2] + top + bottom - weight.shape[2]) // self.stride[0] + 1
        columns = (x.shape[3] + left + right - weight.shape[3]) // self.stride[1] + 1
        shape = (x.shape[0], weight.shape[0], rows, columns)
        pads, strides = [top, left, bottom, right], list(self.stride)
        y = onnx_node("Conv", (x, weight, bias), x.dtype, shape, pads=pads, strides=strides)
        codes = onnx_node("QuantizeLinear", (y, self.one, self.none), torch.uint8, shape)
        return onnx_node("DequantizeLinear", (codes, self.scale, self.zero), x.dtype, shape, axis=1)


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


class QuantizedImageTokens(nn.Module):
    """`ImageTokens` in integers: camera bytes are 8-bit already and enter without rounding.

    The normalisation of pixels moves into the first convolution. Its zero padding then stands for
    the mean colour, which becomes a border of that colour, rounded to a byte.

    An engine gathers what each output of a convolution reads, and with three channels that takes
    longer than the products. So pixels side by side count as channels of one, and where the
    width allows it the first convolution computes two columns at once; the second reads them as
    they lie.

    Args:
        tokens: what it stands for.
        ranges: of each convolution.
        form: the engine kind's form.
        width: columns of an image.
    """

    one: Tensor
    none: Tensor
    colour: Tensor

    def __init__(
        self, tokens: ImageTokens, ranges: Sequence[Ranges], form: QdqForm, width: int
    ) -> None:
        super().__init__()
        self.register_buffer("one", torch.tensor(1.0))
        self.register_buffer("none", torch.tensor(0, dtype=torch.uint8))
        mean = tokens.mean.flatten()
        self.register_buffer("colour", mean.round().to(torch.uint8))
        self.together = 2 if -(-width // 2) % 2 == 0 else 1
        stages: list[nn.Module] = []
        found, one = iter(ranges), torch.tensor(1.0)
        for layer in tokens.stem:
            if isinstance(layer, nn.GroupNorm):
                norm = _wider(layer, self.together if len(stages) == 1 else 1)
                stages.append(FlatGroupNorm(norm) if form.flat else norm)
                continue
            if not isinstance(layer, nn.Conv2d):
                stages.append(layer)
                continue
            own = next(found)
            assert layer.bias is not None
            if not stages:
                own, bias = _on_bytes(own, layer.bias, mean, tokens.std.flatten())
                own, bias = _at_once(own, bias, self.together)
                stages.append(QuantizedConv(own, bias, one, (2, 1), (0, 0, 0, 0)))
                continue
            stride, padding = (2, 2), (1, 1, 1, 1)
            if len(stages) == 3 and self.together == 2:
                own, stride, padding = _on_pairs(own), (2, 1), (1, 1, 1, 0)
            assert own.input_high is not None
            rounded = ChannelQuantizer(own.input_floor or 0.0, own.input_high)
            weight = own.weight * rounded.scale[:, None, None]
            own = replace(own, weight=weight, weight_amax=weight.abs().amax(dim=(1, 2, 3)))
            stages += [rounded, QuantizedConv(own, layer.bias, one, stride, padding)]
        self.stem = nn.Sequential(*stages)
        self.norm = tokens.norm
        self.position = tokens.position

    def forward(self, images: Tensor) -> Tensor:
        """Images uint8 [B, V, h, w, 3] → tokens float [B, V * tokens, width]."""
        bordered = self._bordered(images.flatten(0, 1))
        pixels = bordered.unflatten(2, (-1, 2 * self.together)).flatten(3).permute(0, 3, 1, 2)
        if torch.onnx.is_in_onnx_export():
            inputs = (pixels, self.one, self.none)
            x = onnx_node("DequantizeLinear", inputs, torch.float32, pixels.shape)
        else:
            x = pixels.float()
        features = self.stem(x).flatten(2).transpose(1, 2)
        tokens = self.norm(features).unflatten(0, images.shape[:2]) + self.position
        return tokens.flatten(1, 2)

    def _bordered(self, images: Tensor) -> Tensor:
        """One row and column before; after, what stride 2 reads and whole groups of columns."""
        height, width = images.shape[1:3]
        group = 2 * self.together
        columns = -(-width // group) * group + group
        for axis, after in ((1, height % 2), (2, columns - width - 1)):
            shape = list(images.shape)
            parts = [images]
            for at, count in ((0, 1), (2, after)):
                shape[axis] = count
                parts[at:at] = [self.colour.expand(shape)] if count else []
            images = torch.cat(parts, dim=axis)
        return images


def _on_bytes(ranges: Ranges, bias: Tensor, mean: Tensor, std: Tensor) -> tuple[Ranges, Tensor]:
    """The first convolution, for raw pixels in place of normalised ones."""
    weight = ranges.weight / std[:, None, None]
    amax = weight.abs().amax(dim=(1, 2, 3))
    bias = bias - (weight * mean[:, None, None]).sum(dim=(1, 2, 3))
    return replace(ranges, weight=weight, weight_amax=amax), bias


def _at_once(ranges: Ranges, bias: Tensor, together: int) -> tuple[Ranges, Tensor]:
    """The first convolution, for groups of 2 * `together` columns and as many results each.

    Of a kernel [out, c, 3, 3] of stride 2 becomes one [out * together, 2 * together * c, 3, 2]
    of stride 1 along the columns; a channel's results lie side by side.
    """
    out, channels, rows, columns = ranges.weight.shape
    window = 4 * together
    kernels = [
        nn.functional.pad(ranges.weight, (2 * i, window - columns - 2 * i)) for i in range(together)
    ]
    wide = torch.stack(kernels, dim=1).reshape(out * together, channels, rows, 2, window // 2)
    weight = wide.permute(0, 4, 1, 2, 3).flatten(1, 2).contiguous()
    assert ranges.output_low is not None
    assert ranges.output_high is not None
    repeated = [
        t.repeat_interleave(together)
        for t in (ranges.weight_amax, ranges.output_low, ranges.output_high, bias)
    ]
    amax, low, high, bias = repeated
    own = replace(ranges, weight=weight, weight_amax=amax, output_low=low, output_high=high)
    return own, bias


def _on_pairs(ranges: Ranges) -> Ranges:
    """The second convolution, for pairs of columns as `_at_once` leaves them.

    Of a kernel [out, c, 3, 3] of stride 2 becomes one [out, c * 2, 3, 2] of stride 1 along the
    columns; before its own columns it reads the second of the pair before.
    """
    out, channels, rows, _ = ranges.weight.shape
    wide = nn.functional.pad(ranges.weight, (1, 0))
    pairs = wide.reshape(out, channels, rows, 2, 2).permute(0, 1, 4, 2, 3)
    assert ranges.input_high is not None
    return replace(
        ranges,
        weight=pairs.reshape(out, 2 * channels, rows, 2).contiguous(),
        input_high=ranges.input_high.repeat_interleave(2),
    )


def _wider(norm: nn.GroupNorm, columns: int) -> nn.GroupNorm:
    """The same normalisation where each channel counts as `columns` of them."""
    result = nn.GroupNorm(norm.num_groups, norm.num_channels * columns, norm.eps)
    with torch.no_grad():
        result.weight.copy_(norm.weight.repeat_interleave(columns))
        result.bias.copy_(norm.bias.repeat_interleave(columns))
    return result
