"""What is refused before any work: above all, layers to keep that the policy does not have."""

from __future__ import annotations

import json
from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from libra_edge.catalog import Recipe, list_recipes, load_recipe, load_target
from libra_edge.cli import app as program
from libra_edge.compiler import resolve
from libra_edge.compiler.quantization.assign import (
    choose_precisions,
    quantizable_layers,
    require_layers,
)
from libra_edge.compiler.search import sensitivity
from libra_edge.compiler.work.estimate import estimate
from libra_edge.engines.base import QdqForm
from libra_edge.errors import ExitCode, InputError
from libra_edge.policy.checkpoint import outline
from libra_edge.policy.config import PolicyConfig, read_config
from libra_edge.policy.imported import family_of, read_imported
from tests.compiler.variants import VARIANTS
from tests.policy.lerobot_cases import case
from tests.tiny import tiny_config

ROOT = Path(__file__).parents[2]
TYPO = "planer.backbone.*"


def keeping(*patterns: str, name: str = "int8") -> Recipe:
    return load_recipe(name).model_copy(update={"keep": patterns})


@cache
def names() -> tuple[str, ...]:
    return tuple(quantizable_layers(outline(tiny_config())))


@st.composite
def patterns(draw: st.DrawFn) -> str:
    """A layer's name, any of its parts as `*`, and perhaps all from some part on as one."""
    parts = draw(st.sampled_from(names())).split(".")
    parts = [draw(st.sampled_from([part, part, "*"])) for part in parts]
    end = draw(st.integers(1, len(parts)))
    return ".".join(parts if end == len(parts) else [*parts[:end], "*"])


@st.composite
def typos(draw: st.DrawFn) -> str:
    """A pattern with one letter more, less or other, or two that changed places."""
    text = draw(patterns().filter(lambda pattern: any(c.isalpha() for c in pattern)))
    at = draw(st.sampled_from([i for i, c in enumerate(text) if c.isalpha()]))
    letter = draw(st.sampled_from("abcdefghijklmnopqrstuvwxyzABCXYZ"))
    one, other = text[at : at + 1], text[at + 1 : at + 2]
    middle = draw(st.sampled_from(["", letter, letter + one, other + one]))
    skipped = 2 if middle == other + one else 1
    return text[:at] + middle + text[at + skipped :]


@settings(deadline=None)
@given(patterns())
def test_every_pattern_of_real_names_is_taken(pattern: str) -> None:
    keeping(pattern).require_layers(names())


@settings(deadline=None)
@given(typos())
def test_what_matches_no_layer_is_refused_with_one_that_does(pattern: str) -> None:
    recipe = keeping("planner.backbone.*", pattern)
    if any(fnmatchcase(name, pattern) for name in names()):
        return recipe.require_layers(names())
    with pytest.raises(InputError, match="recipe-layer-unknown") as caught:
        recipe.require_layers(names())
    assert repr(pattern) in caught.value.fact
    if caught.value.remedy.startswith("Did you mean"):
        keeping(caught.value.remedy.split("'")[1]).require_layers(names())
    return None


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        (TYPO, "planner.backbone.*"),
        ("planner.blocks.*.atention.*", "planner.blocks.*.attention.*"),
        ("*.mlpp.2", "*.mlp.2"),
        ("refiner.blocks.17.mlp.0", "refiner.blocks.1.mlp.0"),
        ("planner.output.weight", "planner.output"),
        ("Planner.*", "planner.*"),
    ],
)
def test_the_remedy_is_the_nearest_pattern(wrong: str, right: str) -> None:
    with pytest.raises(InputError) as caught:
        keeping(wrong).require_layers(names())
    assert caught.value.remedy == f"Did you mean {right!r}?"


def test_what_is_like_nothing_is_told_where_to_look() -> None:
    with pytest.raises(InputError) as caught:
        keeping("xyz").require_layers(names())
    assert "planner.backbone.*, planner.blocks.*, planner.output, refiner" in caught.value.remedy


@pytest.mark.parametrize("name", list_recipes())
@pytest.mark.parametrize("config", ["demo", "paper-size", *VARIANTS])
def test_every_shipped_recipe_keeps_layers_that_are_there(name: str, config: str) -> None:
    folders = {"demo": "metaworld/checkpoint", "paper-size": "paper-size"}
    if config in folders:
        policy = read_config(ROOT / "examples" / folders[config] / "config.json")
    else:
        policy = tiny_config(**VARIANTS[config])
    require_layers(load_recipe(name), outline(policy))


def test_names_need_no_weights(checkpoint: Path) -> None:
    from libra_edge.policy.checkpoint import load_checkpoint

    loaded = load_checkpoint(checkpoint)
    assert quantizable_layers(outline(loaded.config)) == quantizable_layers(loaded.policy)
    assert {p.device.type for p in outline(loaded.config).parameters()} == {"meta"}


def test_no_way_past_the_check() -> None:
    config: PolicyConfig = tiny_config()
    with pytest.raises(InputError, match=TYPO.replace("*", r"\*")):
        choose_precisions(outline(config), keeping(TYPO), QdqForm())
    with pytest.raises(InputError, match="recipe-layer-unknown"):
        list(estimate(config, [load_target("rtx4090")], [keeping(TYPO)]))


@pytest.mark.parametrize("command", ["compile", "sensitivity"])
def test_the_commands_refuse_it_before_any_work(
    command: str, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(*_: Any, **__: Any) -> NoReturn:
        raise AssertionError("this is work")

    load: Callable[[str], Recipe] = lambda name: keeping(TYPO, name=name)  # noqa: E731
    for module in (resolve, sensitivity):
        monkeypatch.setattr(module, "load_recipe", load)
        monkeypatch.setattr(module, "load_checkpoint", work)
        monkeypatch.setattr(module, "open_calibration_data", work)
    words = [command, str(checkpoint), "--recipe", "int8", "--calibrate", str(tmp_path / "data")]
    words += ["--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache"), "--json"]
    result = CliRunner().invoke(program.app, words)
    assert result.exit_code == int(ExitCode.USAGE), result.stdout
    error = json.loads(result.stdout)["error"]
    assert error["code"] == "recipe-layer-unknown"
    assert "'planer.backbone.*'" in error["fact"]
    assert error["remedy"] == "Did you mean 'planner.backbone.*'?"
    assert list(tmp_path.iterdir()) == []


def test_a_recipe_may_keep_layers_of_several_families() -> None:
    """Names of a family that the policy is not of are passed over; slips are not."""
    found = case("act")
    family = family_of(found.folder)
    assert family is not None
    policy = read_imported(family, found.folder, found.options).policy
    require_layers(load_recipe("fp8"), policy)
    require_layers(keeping("refiner.encoder.*", "network.encoder.*"), policy)
    for wrong in (TYPO, "network.encodr.*", "refinery.*"):
        with pytest.raises(InputError, match="recipe-layer-unknown"):
            require_layers(keeping(wrong), policy)
