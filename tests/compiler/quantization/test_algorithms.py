"""Every algorithm that a recipe may name is there, and only those."""

from __future__ import annotations

from typing import get_args

import pytest

from libra_edge.catalog import Algorithm as Named
from libra_edge.catalog import load_recipe
from libra_edge.compiler.quantization.algorithms import algorithm, algorithms
from libra_edge.compiler.quantization.ranges import search_inputs, whole_inputs


def test_recipes_name_what_the_folder_holds() -> None:
    assert set(algorithms()) == set(get_args(Named)) - {"none"}


@pytest.mark.parametrize("name", algorithms())
def test_an_algorithm_finds_ranges_in_one_way(name: str) -> None:
    found = algorithm(name)
    assert (found.method != "max") + (found.collected is not None) + (found.inputs is not None) == 1


def test_both_ends_of_inputs() -> None:
    assert algorithm("max").inputs is whole_inputs
    assert algorithm("mse").inputs is search_inputs


def test_options_come_from_the_recipe() -> None:
    recipe = load_recipe("int8").model_copy(update={"percentile": 98.5})
    collected = algorithm("percentile").collected
    assert collected is not None
    assert collected(recipe) == {"percentile": 98.5}
