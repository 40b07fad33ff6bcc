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


def test_a_precision_the_target_lacks_is_incompatible() -> None:
    target = catalog.load_target("cpu-x86_64")
    other = catalog.load_recipe("fp32").model_copy(update={"precision": "fp8", "name": "fp8"})
    with pytest.raises(IncompatibleError) as caught:
        catalog.require_supported(target, other)
    assert caught.value.exit_code is ExitCode.INCOMPATIBLE
