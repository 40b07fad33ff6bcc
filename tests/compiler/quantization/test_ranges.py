"""Ranges by hand: both ends of what was seen, searched ends, channels of convolutions."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from libra_edge.compiler.quantization import ranges
from libra_edge.compiler.quantization.linear import Ranges
from libra_edge.compiler.quantization.ranges import (
    Seen,
    of_convolution,
    search_inputs,
    watch,
    whole_inputs,
)


def found(amax: float, floor: float | None = None, weight: Tensor | None = None) -> Ranges:
    weight = torch.eye(2) if weight is None else weight
    return Ranges(weight, weight.abs().amax(1), amax, floor)


def seen(low: float, high: float) -> Seen:
    return Seen(low=low, high=high)


def ends(of: Ranges, kept: Seen) -> tuple[float | None, float]:
    result = whole_inputs({"layer": of}, {"layer": kept})["layer"]
    return result.input_floor, result.input_amax


@pytest.mark.parametrize(
    ("low", "high", "amax", "expected"),
    [
        # ModelOpt saw more data, so its largest value belongs to the end that reaches farther.
        (-1.0, 3.0, 4.0, (-1.0, 4.0)),
        (-3.0, 1.0, 4.0, (-4.0, 1.0)),
        (-3.0, 2.5, 4.0, (-4.0, 2.5)),
        (-2.0, 2.0, 4.0, (-2.0, 4.0)),
        (-1.0, 3.0, 3.0, (-1.0, 3.0)),
        (0.0, 3.0, 4.0, (0.0, 4.0)),
        (-3.0, 0.0, 4.0, (-4.0, 0.0)),
    ],
)
def test_the_whole_range_is_both_ends_of_what_was_seen(
    low: float, high: float, amax: float, expected: tuple[float, float]
) -> None:
    assert ends(found(amax), seen(low, high)) == expected
    assert -ends(found(amax), seen(low, high))[0] <= amax  # type: ignore[operator]


@pytest.mark.parametrize(
    ("low", "high", "floor", "expected"),
    [
        (-1.0, 3.0, -0.25, (-0.25, 4.0)),
        (-0.125, 3.0, -0.25, (-0.125, 4.0)),
        (-3.0, 1.0, -0.25, (-0.25, 1.0)),
        (-3.0, 1.0, -8.0, (-4.0, 1.0)),
        (-1.0, 3.0, 0.0, (0.0, 4.0)),
    ],
)
def test_an_activation_functions_floor_only_makes_the_range_narrower(
    low: float, high: float, floor: float, expected: tuple[float, float]
) -> None:
    assert ends(found(4.0, floor), seen(low, high)) == expected


def test_whole_ranges_change_what_was_watched_and_nothing_else() -> None:
    known = {"one": found(4.0), "two": found(2.0), "other": found(9.0, -5.0)}
    result = whole_inputs(known, {"one": seen(-1.0, 3.0), "two": seen(-2.0, 1.0)})
    assert list(result) == ["one", "two", "other"]
    assert result["other"] is known["other"]
    assert (result["one"].input_floor, result["two"].input_floor) == (-1.0, -2.0)
    assert result["one"].weight is known["one"].weight
    assert (known["one"].input_floor, known["one"].input_amax) == (None, 4.0)


def test_watching_keeps_extremes_of_all_calls_and_some_rows() -> None:
    layer = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    calls = [torch.tensor([[[1.0, -2.0], [5.0, 0.0]]]), torch.tensor([[[-3.0, 1.0], [4.0, 2.0]]])]

    def run(module: nn.Module) -> None:
        for given in calls:
            module(given)

    kept = watch(layer, ["0"], run)
    assert kept.keys() == {"0"}
    assert (kept["0"].low, kept["0"].high) == (-3.0, 5.0)
    assert [rows.tolist() for rows in kept["0"].inputs] == [call[0].tolist() for call in calls]
    assert kept["0"].outputs == []
    assert kept["0"].highest is None
    run(layer)
    assert len(kept["0"].inputs) == 2, "hooks are gone"


def test_zero_is_inside_every_range() -> None:
    kept = Seen()
    kept.add(nn.Linear(1, 1), torch.tensor([[2.0], [3.0]]), torch.zeros(2, 1))
    assert (kept.low, kept.high) == (0.0, 3.0)
    kept = Seen()
    kept.add(nn.Linear(1, 1), torch.tensor([[-2.0], [-3.0]]), torch.zeros(2, 1))
    assert (kept.low, kept.high) == (-3.0, 0.0)


def test_hooks_go_even_when_the_run_fails() -> None:
    layer = nn.Sequential(nn.Linear(2, 3))

    def fail(module: nn.Module) -> None:
        raise RuntimeError("no data")

    with pytest.raises(RuntimeError, match="no data"):
        watch(layer, ["0"], fail)
    assert not layer[0]._forward_hooks


def test_rows_are_spread_over_a_call_and_are_copies() -> None:
    rows = torch.arange(1000.0)[:, None]
    kept = Seen()
    kept.add(nn.Linear(1, 1), rows, rows)
    (some,) = kept.inputs
    assert len(some) == ranges._ROWS
    assert (some[0].item(), some[-1].item()) == (0.0, 999.0)
    assert some[:, 0].diff().min() >= 3
    rows.zero_()
    assert some[-1].item() == 999.0


def test_a_convolution_keeps_channels_apart() -> None:
    kept, layer = Seen(), nn.Conv2d(2, 3, 1)
    one = torch.tensor([[[[1.0, -4.0]], [[-2.0, -3.0]]]])
    two = torch.tensor([[[[0.5, 0.0]], [[-1.0, 7.0]]]])
    result = torch.arange(6.0).reshape(1, 3, 1, 2)
    kept.add(layer, one, result)
    assert kept.highest is not None
    assert kept.highest.tolist() == [1.0, 0.0], "zero is inside"
    kept.add(layer, two, result)
    assert kept.highest.tolist() == [1.0, 7.0]
    assert (kept.low, kept.high) == (-4.0, 7.0)
    assert kept.outputs[0].tolist() == [[0.0, 2.0, 4.0], [1.0, 3.0, 5.0]], "pixels by channels"
    assert kept.inputs == []


@pytest.mark.parametrize(
    ("value", "low", "high", "expected"),
    [
        (0.0, -1.0, 254.0, 0.0),
        (100.4, -1.0, 254.0, 100.0),
        (100.6, -1.0, 254.0, 101.0),
        (254.4, -1.0, 254.0, 254.0),
        (300.0, -1.0, 254.0, 254.0),
        (-0.6, -1.0, 254.0, -1.0),
        (-9.0, -1.0, 254.0, -1.0),
        (-9.0, -255.0, 0.0, -9.0),
        (-300.0, -255.0, 0.0, -255.0),
        (1.0, 0.0, 0.0, 0.0),
    ],
)
def test_rounding_takes_256_steps_of_which_zero_is_one(
    value: float, low: float, high: float, expected: float
) -> None:
    rounded = ranges._rounded(torch.tensor([value]), low, high)
    assert rounded.tolist() == pytest.approx([expected], abs=1e-9)


def test_a_zero_between_two_steps_moves_to_one() -> None:
    # Steps of one, from -0.4: the nearest step to it is zero's.
    rounded = ranges._rounded(torch.tensor([-0.4, 254.6, 300.0]), -0.4, 254.6)
    assert rounded.tolist() == [0.0, 255.0, 255.0]


def searched(inputs: Tensor, of: Ranges, low: float, high: float) -> tuple[float | None, float]:
    kept = Seen([inputs], [], low, high)
    result = search_inputs({"layer": of}, {"layer": kept})["layer"]
    return result.input_floor, result.input_amax


def outliers(count: int, size: float) -> Tensor:
    """Many values within ±1, and one of `size`."""
    values = torch.linspace(-1, 1, count * 2).reshape(count, 2)
    values[0, 0] = size
    return values


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_rare_value_is_clipped_where_that_costs_least(sign: float) -> None:
    # One in a thousand reaches 1.4: at 70 or 80 % of that the other values are finer.
    weight = torch.eye(2)
    low, high = (-1.0, 1.4) if sign > 0 else (-1.4, 1.0)
    few = outliers(500_000, sign * 1.4)
    floor, top = searched(few, found(1.4, weight=weight), low, high)
    assert floor is not None
    far, near = (top, -floor) if sign > 0 else (-floor, top)
    assert far < 1.4
    assert near == pytest.approx(1.0)
    # A weight that multiplies it by much makes clipping it the larger error.
    many = outliers(50, sign * 1.4)
    floor, top = searched(many, found(1.4, weight=weight), low, high)
    assert (floor, top) == pytest.approx((low, high))


def tails(columns: int) -> Tensor:
    """Many values within ±1, some times as large as others, and one farther out at each end."""
    values = torch.rand(200_000, columns) * 2 - 1
    values[0], values[1] = -1.5, 1.3
    return values * torch.linspace(0.5, 2, columns)


def test_the_search_is_the_least_error_of_all_that_it_tries() -> None:
    torch.manual_seed(0)
    inputs, weight = tails(3), torch.randn(4, 3)
    low, high = float(inputs.min()), float(inputs.max())
    floor, top = searched(inputs, found(high, weight=weight), low, high)

    def error(bottom: float, top: float) -> float:
        lost = ranges._rounded(inputs, bottom, top) - inputs
        return float((lost @ weight.t()).square().mean())

    best_top = min((share * high for share in ranges.SHARES), key=lambda t: error(low, t))
    assert top == best_top < high
    best_low = min((share * low for share in ranges.SHARES), key=lambda b: error(b, top))
    assert floor == best_low > low


def test_the_search_begins_at_the_activation_functions_floor() -> None:
    inputs = torch.tensor([[-0.2, 1.0], [0.5, 0.9]])
    assert searched(inputs, found(1.0, -0.25), -0.2, 1.0)[0] == pytest.approx(-0.2)
    floor, _ = searched(inputs, found(1.0, -0.125), -0.2, 1.0)
    assert floor is not None
    assert floor >= -0.125


def test_layers_that_read_the_same_get_one_range_by_all_their_weights() -> None:
    torch.manual_seed(1)
    inputs = torch.randn(200, 2) ** 3
    low, high = float(inputs.min()), float(inputs.max())
    first, second = (found(high, weight=w) for w in (torch.randn(3, 2), 9 * torch.randn(5, 2)))
    other = found(high, weight=torch.randn(3, 2))

    def kept(rows: Tensor) -> Seen:
        return Seen([rows[:100], rows[100:]], [], low, high)

    same = {"first": kept(inputs), "second": kept(inputs.clone())}
    apart = {**same, "third": kept(inputs.flip(0)), "short": Seen([inputs[:100]], [], low, high)}
    known = {"first": first, "second": second, "third": other, "short": other, "unseen": other}
    result = search_inputs(known, apart)
    assert result["first"].input_amax == result["second"].input_amax
    assert result["first"].input_floor == result["second"].input_floor
    together = found(high, weight=torch.cat([first.weight, second.weight]))
    alone = search_inputs({"all": together}, {"all": same["first"]})["all"]
    assert (result["first"].input_floor, result["first"].input_amax) == (
        alone.input_floor,
        alone.input_amax,
    )
    assert result["unseen"] is other
    assert known["first"].input_floor is None


@pytest.mark.parametrize(
    ("change", "groups"),
    [
        (lambda rows: rows, 1),
        (lambda rows: [rows[0]], 2),
        (lambda rows: [rows[0], rows[1] + 1], 2),
        (lambda rows: [rows[0] + 1, rows[1]], 2),
        (lambda rows: [rows[0], rows[1][:1]], 2),
    ],
)
def test_sharing_means_every_call_alike(
    change: Callable[[list[Tensor]], list[Tensor]], groups: int
) -> None:
    rows = [torch.ones(2, 3), torch.zeros(2, 3)]
    kept = {"one": Seen(rows), "two": Seen(change([row.clone() for row in rows]))}
    assert len(ranges._sharing(kept)) == groups


def channels() -> Tensor:
    """Outputs [1000, 3]: even, with one outlier upwards, and all below zero."""
    even = torch.linspace(-1, 1, 1000)
    spike = even.clone()
    spike[0] = 1.05
    return torch.stack([even, spike, even / 2 - 0.75], 1)


def test_each_channel_of_a_convolution_has_its_own_range() -> None:
    kept = Seen([], [channels()[:400], channels()[400:]], -0.5, 6.0, torch.tensor([1.0, 6.0]))
    result = of_convolution(found(6.0), kept)
    assert result.input_floor == -0.5
    assert result.input_high is kept.highest
    assert result.output_low is not None
    assert result.output_high is not None
    assert result.output_low.shape == result.output_high.shape == (3,)
    assert result.output_high[2] == 0, "zero is inside"
    assert result.output_low[2] == pytest.approx(-1.25)
    assert result.output_low[0] == pytest.approx(-1.0)
    assert result.output_high[0] == pytest.approx(1.0)


def test_the_search_of_each_channel_is_the_least_error_of_what_it_tries() -> None:
    torch.manual_seed(2)
    pixels = tails(4)
    result = of_convolution(found(1.0), Seen([], [pixels], 0.0, 1.0, torch.ones(2)))
    assert result.output_low is not None
    assert result.output_high is not None
    for i in range(4):
        column = pixels[:, i]
        low, high = float(column.min()), float(column.max())

        def error(bottom: float, top: float, column: Tensor = column) -> float:
            return float((ranges._rounded(column, bottom, top) - column).square().mean())

        tops = [share * high for share in ranges.SHARES]
        top = min(tops, key=lambda t, low=low, error=error: error(low, t))  # type: ignore[misc]
        bottoms = [share * low for share in ranges.SHARES]
        bottom = min(bottoms, key=lambda b, top=top, error=error: error(b, top))  # type: ignore[misc]
        assert float(result.output_high[i]) == pytest.approx(top)
        assert float(result.output_low[i]) == pytest.approx(bottom)
    assert bool((result.output_high < pixels.amax(0)).any()), "something is clipped"
    assert bool((result.output_low > pixels.amin(0)).any()), "at both ends"


@pytest.mark.parametrize(("floor", "expected"), [(None, -0.5), (-0.25, -0.25), (-2.0, -0.5)])
def test_what_a_convolution_reads_is_never_clipped(floor: float | None, expected: float) -> None:
    kept = Seen([], [channels()], -0.5, 6.0, torch.tensor([1.0, 6.0]))
    result = of_convolution(found(6.0, floor), kept)
    assert result.input_floor == expected
    assert result.input_amax == 6.0
