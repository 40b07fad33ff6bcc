"""What may be wrong with a dataset: each breaks one place, and says what has to be found there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.data.generated import ACTION, STATE, Recipe


@dataclass(frozen=True)
class Wanted:
    """A finding that has to be there; None where the place does not matter."""

    code: str
    level: str = "error"
    feature: str | None = None
    dimension: int | None = None
    episode: int | None = None
    frame: int | None = None


Random = np.random.Generator
Breakage = Callable[[Path, Recipe, Random], Wanted]
BREAKAGES: dict[str, Breakage] = {}


def breakage(function: Breakage) -> Breakage:
    BREAKAGES[function.__name__] = function
    return function


def place(recipe: Recipe, random: Random, first: int = 0) -> tuple[int, int]:
    episode = int(random.integers(len(recipe.lengths)))
    return episode, int(random.integers(first, recipe.lengths[episode]))


def camera(recipe: Recipe, random: Random) -> str:
    return str(random.choice(recipe.cameras))


def vector(recipe: Recipe, random: Random) -> tuple[str, int]:
    key = str(random.choice([STATE, ACTION]))
    return key, int(random.integers(recipe.states if key == STATE else recipe.actions))
