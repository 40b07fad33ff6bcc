"""Gates in TOML: tightened freely, loosened only by name, and never by a slip of the pen."""

from __future__ import annotations

from math import inf, nan, nextafter
from pathlib import Path

import pytest

from libra_edge.catalog import list_recipes, load_recipe
from libra_edge.errors import ExitCode, InputError
from libra_edge.limits import Gates, Limits, gates_between, read_gates

FP32, INT8 = load_recipe("fp32").gates, load_recipe("int8").gates


def read(tmp_path: Path, text: str, default: Limits = FP32, *, allow_loose: bool = False) -> Gates:
    path = tmp_path / "gates.toml"
    path.write_text(text)
    return read_gates(path, default, allow_loose=allow_loose)


def test_recipes_ship_limits_that_agree_on_what_rounding_may_do() -> None:
    recipes = list_recipes()
    assert Limits(tokens=0.999, margin=1e-3, action=1e-4) == FP32
    assert {r.gates for name, r in recipes.items() if r.quantizes} == {INT8}
    assert not gates_between(INT8, FP32).loose


def test_no_file_is_the_recipe() -> None:
    assert read_gates(None, INT8) == Gates(INT8)


def test_what_a_file_does_not_say_stays(tmp_path: Path) -> None:
    gates = read(tmp_path, "[gates]\naction = 0.01\n", INT8)
    assert gates.limits == INT8.model_copy(update={"action": 0.01})
    (change,) = gates.changes
    assert (change.name, change.limit, change.default, change.loose) == (
        "action",
        0.01,
        0.02,
        False,
    )


@pytest.mark.parametrize(
    "line",
    [
        "tokens = 0.99",
        "tokens = 1",
        "action = 0.001",
        "action_percentile = 100",
        "margin_percentile = 1",
        "margin = 0.01",
    ],
)
def test_stricter_is_free(tmp_path: Path, line: str) -> None:
    gates = read(tmp_path, f"[gates]\n{line}\n", INT8)
    assert len(gates.changes) == 1
    assert not gates.loose


@pytest.mark.parametrize(
    ("line", "default"),
    [
        ("tokens = 0.97", INT8),
        ("action = 0.021", INT8),
        ("margin_percentile = 6", INT8),
        ("margin = 0.0011", FP32),
        ("action_percentile = 99", FP32),
    ],
)
def test_looser_is_refused_without_leave_and_recorded_with_it(
    tmp_path: Path, line: str, default: Limits
) -> None:
    text = f"[gates]\n{line}\n"
    with pytest.raises(InputError, match="gates-loose") as caught:
        read(tmp_path, text, default)
    assert caught.value.exit_code is ExitCode.USAGE
    assert line.split()[0] in caught.value.fact
    gates = read(tmp_path, text, default, allow_loose=True)
    assert [change.name for change in gates.loose] == [line.split()[0]]
    assert "LOOSE" in str(gates.loose[0])


def test_one_loose_limit_does_not_hide_behind_a_strict_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gates-loose"):
        read(tmp_path, "[gates]\ntokens = 0.9999\naction = 0.5\n")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[gates]\naction = nan", "finite"),
        ("[gates]\naction = inf", "finite"),
        ("[gates]\naction = -0.1", "greater than 0"),
        ("[gates]\naction = 0.0", "greater than 0"),
        ("[gates]\nmargin = -1.0", "greater than 0"),
        ("[gates]\ntokens = 1.5", "less than or equal to 1"),
        ("[gates]\ntokens = true", "valid number"),
        ('[gates]\ntokens = "0.99"', "valid number"),
        ("[gates]\naction_percentile = 95", "99 or 100"),
        ("[gates]\ntoken = 0.99", "Did you mean 'tokens'"),
        ("tokens = 0.99", "unknown key 'tokens'"),
        ("[gates]\n[limits]\n", "unknown key 'limits'"),
        ("[gates]\n", "no [gates] table"),
        ("gates = 3\n", "no [gates] table"),
        ("[gates", "not TOML"),
        ("", "no [gates] table"),
    ],
)
def test_what_is_no_limit_is_refused_even_with_leave(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InputError, match="gates-invalid") as caught:
        read(tmp_path, text, allow_loose=True)
    assert words in str(caught.value)
    assert caught.value.exit_code is ExitCode.USAGE


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_a_file_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "gates.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match="gates-unreadable"):
        read_gates(path, FP32)


def test_limits_bound_the_margin_somehow() -> None:
    with pytest.raises(ValueError, match="margin or margin_percentile"):
        Limits(tokens=0.9, action=0.1)


@pytest.mark.parametrize(
    ("name", "stricter_is_larger"),
    [
        ("tokens", True),
        ("action", False),
        ("margin", False),
        ("margin_percentile", False),
    ],
)
def test_one_step_of_a_float_is_told_from_the_recipes_limit(
    name: str, stricter_is_larger: bool
) -> None:
    default = Limits(tokens=0.5, action=0.5, margin=0.5, margin_percentile=0.5)
    assert gates_between(default, default) == Gates(default)
    for limit, loose in ((nextafter(0.5, 0), stricter_is_larger), (nextafter(0.5, 1), None)):
        wanted = default.model_copy(update={name: limit})
        (change,) = gates_between(default, wanted).changes
        assert (change.name, change.limit, change.default) == (name, limit, 0.5)
        assert change.loose == (not stricter_is_larger if loose is None else loose)
        assert bool(gates_between(default, wanted).loose) == change.loose


def test_a_percentage_of_actions_is_stricter_the_larger() -> None:
    few, all_of_them = (
        Limits(tokens=0.5, action=0.5, margin=1.0, action_percentile=p) for p in (99, 100)
    )
    assert not gates_between(few, all_of_them).changes[0].loose
    assert gates_between(all_of_them, few).changes[0].loose


def test_a_bound_where_there_was_none_is_stricter_and_none_changes_nothing() -> None:
    default = Limits(tokens=0.5, action=0.5, margin=1.0)
    (change,) = gates_between(
        default, default.model_copy(update={"margin_percentile": 5.0})
    ).changes
    assert (change.default, change.loose) == (None, False)
    assert str(change) == "margin_percentile 5, the recipe's is none (stricter)"
    without = default.model_copy(update={"margin": None, "margin_percentile": 5.0})
    assert [c.name for c in gates_between(default, without).changes] == ["margin_percentile"]


@pytest.mark.parametrize(
    ("name", "least", "largest"),
    [
        ("tokens", 5e-324, 1.0),
        ("action", 5e-324, 1.0),
        ("margin", 5e-324, 1.7976931348623157e308),
        ("margin_percentile", 5e-324, 100.0),
    ],
)
def test_limits_end_exactly_where_they_say(name: str, least: float, largest: float) -> None:
    values = {"tokens": 0.5, "action": 0.5, "margin": 1.0}
    for good in (least, largest):
        assert getattr(Limits.model_validate(values | {name: good}), name) == good
    for bad in (0.0, -least, nextafter(largest, inf), nan):
        with pytest.raises(ValueError, match=name):
            Limits.model_validate(values | {name: bad})


def test_nothing_is_loosened_unless_it_is_said(tmp_path: Path) -> None:
    path = tmp_path / "gates.toml"
    path.write_text("[gates]\ntokens = 0.5\n")
    with pytest.raises(InputError, match="gates-loose"):
        read_gates(path, FP32)


def test_a_bad_limit_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no gates: tokens: Input should be"):
        read(tmp_path, "[gates]\ntokens = 2.0\n")
