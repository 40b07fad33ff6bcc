from __future__ import annotations

import pytest

from libra_edge import catalog
from libra_edge.engines import kinds
from libra_edge.errors import ExitCode, IncompatibleError, InputError

TARGET = """
schema_version = 1
summary = "a test machine"
arch = "x86_64-linux-gnu"
glibc = "2.35"
precisions = ["fp32"]
default_recipe = "fp32"
[onnxruntime]
package = "onnxruntime"
platform = "manylinux_2_28_x86_64"
[[engines]]
kind = "onnxruntime"
provider = "CPUExecutionProvider"
"""

RECIPE = """
schema_version = 1
summary = "a test recipe"
precision = "int8"
algorithm = "max"
[parts."planner.head"]
weights = "int8"
activations = "int8"
[gates]
tokens = 0.98
margin_percentile = 5
action = 0.02
"""


def test_every_shipped_file_is_valid_and_consistent() -> None:
    targets, recipes = catalog.list_targets(), catalog.list_recipes()
    assert "cpu-x86_64" in targets
    assert "fp32" in recipes
    for target in targets.values():
        catalog.require_supported(target, recipes[target.default_recipe])
        assert {engine.kind for engine in target.engines} <= set(kinds())
        assert (target.compute_capability is None) == (not target.peak_tops), target.name


def test_the_targets_of_the_product_are_there() -> None:
    names = "cpu-x86_64 cpu-aarch64 rtx4090 rtx5090 jetson-agx-orin jetson-orin-nx jetson-agx-thor"
    assert {*names.split(), "agibot-g1", "unitree-g1", "h200"} <= set(catalog.list_targets())


def test_a_profile_takes_what_it_does_not_say_from_the_one_it_is_based_on() -> None:
    robot, board = catalog.load_target("agibot-g1"), catalog.load_target("jetson-agx-orin")
    own = {"name", "summary", "based_on"}
    assert robot.based_on == board.name
    assert robot.model_dump(exclude=own) == board.model_dump(exclude=own)
    text = 'summary = "x"\nbased_on = "jetson-agx-orin"\nschema_version = 1\nmemory_gib = 32\n'
    assert catalog.parse_entry(catalog.Target, "x", text).memory_gib == 32


@pytest.mark.parametrize(
    ("base", "words"),
    [("jetson-agx-orrin", "Did you mean 'jetson-agx-orin'"), ("agibot-g1", "itself based on")],
)
def test_a_base_that_is_none_is_refused(base: str, words: str) -> None:
    text = f'summary = "x"\nbased_on = "{base}"\nschema_version = 1\n'
    with pytest.raises(InputError, match="target-invalid") as caught:
        catalog.parse_entry(catalog.Target, "x", text)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("load", "wrong", "right", "code"),
    [
        (catalog.load_target, "cpu-x86-64", "cpu-x86_64", "unknown-target"),
        (catalog.load_recipe, "fp23", "fp32", "unknown-recipe"),
    ],
)
def test_an_unknown_name_is_met_with_the_nearest(load, wrong, right, code) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError) as caught:
        load(wrong)
    assert caught.value.code == code
    assert right in caught.value.remedy
    assert caught.value.exit_code is ExitCode.USAGE


@pytest.mark.parametrize("name", ["../pyproject", "/etc/passwd", "", "cpu-x86_64.toml"])
def test_a_name_is_never_a_path(name: str) -> None:
    with pytest.raises(InputError):
        catalog.load_target(name)


def test_a_good_text_is_read() -> None:
    assert catalog.parse_entry(catalog.Target, "x", TARGET).engines[0].session_options == {}


@pytest.mark.parametrize(
    ("old", "new", "names"),
    [
        ("glibc =", "glibcc =", ["glibcc", "glibc"]),
        ("provider =", "providr =", ["providr", "provider"]),
        ("summary", 'name = "x"\nsummary', ["name"]),
        ('["fp32"]', '["fp33"]', ["precisions"]),
        ('["fp32"]', "[]", ["precisions"]),
        ("schema_version = 1", "schema_version = 2", ["schema_version"]),
        ('"2.35"', "2.35", ["glibc"]),
        ("[[engines]]", "[[engines", ["TOML"]),
        ("[onnxruntime]", "peak_tops = {fp9 = 1.0}\n[onnxruntime]", ["peak_tops"]),
        ("platform =", "platfrom =", ["platfrom", "platform"]),
        ("[onnxruntime]", 'compute_capability = "89"\n[onnxruntime]', ["compute_capability"]),
        ('kind = "onnxruntime"', 'kind = "Two Words"', ["kind"]),
    ],
)
def test_a_bad_text_is_refused_by_name(old: str, new: str, names: list[str]) -> None:
    assert old in TARGET
    with pytest.raises(InputError) as caught:
        catalog.parse_entry(catalog.Target, "x", TARGET.replace(old, new, 1))
    assert caught.value.code == "target-invalid"
    assert all(name in str(caught.value) for name in names)


def test_a_good_recipe_is_read() -> None:
    recipe = catalog.parse_entry(catalog.Recipe, "x", RECIPE)
    assert recipe.needs == {"int8"}
    assert recipe.layer("planner.output", "outputs").high


@pytest.mark.parametrize(
    ("old", "new", "names"),
    [
        ("[gates]", "keeep = []\n[gates]", ["keeep"]),
        ("algorithm =", "algoritm =", ["algoritm", "algorithm"]),
        ('"max"', '"maxx"', ["algorithm", "Did you mean 'max'"]),
        ('"max"', '"none"', ["needs an algorithm"]),
        ('"planner.head"', '"planer.head"', ["parts.planer.head", "Did you mean 'planner.head'"]),
        ('weights = "int8"', 'weights = "int9"', ["planner.head.weights", "Did you mean 'int8'"]),
        ('weights = "int8"', 'wieghts = "int8"', ["wieghts", "Did you mean 'weights'"]),
        ('weights = "int8"', 'weights = "fp16"', ["parts.planner.head", "no form of fp16 weights"]),
        ('activations = "int8"', 'activations = "fp8"', ["no form of int8 weights, fp8"]),
        ('precision = "int8"', 'precision = "fp32"', ["precision", "it is int8"]),
        ('precision = "int8"', 'precision = "fp16"', ["precision", "it is int8"]),
        ('"max"', '"max"\npercentile = 99.9', ["percentile does nothing"]),
        ('"max"', '"max"\nblock = 64', ["block does nothing"]),
        ('"max"', '"max"\nblock = 48', ["block"]),
        ('"max"', '"max"\nsamples = 0', ["samples", "greater than or equal to 1"]),
        ("tokens = 0.98", "token = 0.98", ["gates.token", "Did you mean 'tokens'"]),
        ("margin_percentile = 5", "", ["margin or margin_percentile"]),
    ],
)
def test_a_bad_recipe_is_refused_by_name(old: str, new: str, names: list[str]) -> None:
    assert old in RECIPE
    with pytest.raises(InputError) as caught:
        catalog.parse_entry(catalog.Recipe, "x", RECIPE.replace(old, new, 1))
    assert caught.value.code == "recipe-invalid"
    assert [name for name in names if name not in str(caught.value)] == []


@pytest.mark.parametrize("line", ['keep = ["planner.*"]', "samples = 100", "needs_gpu = true"])
def test_what_is_about_rounding_is_refused_where_nothing_is_rounded(line: str) -> None:
    text = f'schema_version = 1\nsummary = "x"\nprecision = "fp16"\n{line}\n[gates]\n'
    text += "tokens = 0.98\nmargin = 1.0\naction = 0.02\n"
    with pytest.raises(InputError, match=f"{line.split()[0]} does nothing"):
        catalog.parse_entry(catalog.Recipe, "x", text)


def test_parts_that_stay_in_high_precision_are_no_recipe() -> None:
    with pytest.raises(InputError, match="every one of them stays"):
        catalog.parse_entry(catalog.Recipe, "x", RECIPE.replace('s = "int8"', 's = "fp32"'))


def test_a_target_runs_every_part_of_a_recipe_or_none() -> None:
    mixed = RECIPE + '[parts."refiner.blocks"]\nweights = "fp8"\nactivations = "fp8"\n'
    recipe = catalog.parse_entry(catalog.Recipe, "x", mixed)
    assert recipe.needs == {"int8", "fp8"}
    catalog.require_supported(catalog.load_target("rtx4090"), recipe)
    with pytest.raises(IncompatibleError, match=r"recipe 'x' \(fp8\)") as caught:
        catalog.require_supported(catalog.load_target("cpu-x86_64"), recipe)
    assert "rtx4090" in caught.value.fact


def test_a_precision_the_target_lacks_is_incompatible() -> None:
    target = catalog.load_target("cpu-x86_64")
    other = catalog.load_recipe("fp32").model_copy(update={"precision": "fp8", "name": "fp8"})
    with pytest.raises(IncompatibleError) as caught:
        catalog.require_supported(target, other)
    assert caught.value.exit_code is ExitCode.INCOMPATIBLE
