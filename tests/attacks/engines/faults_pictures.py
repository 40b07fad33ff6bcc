"""Faults of pictures and states on their way into a graph."""

from __future__ import annotations

import numpy as np

from tests.attacks.engines.faults import Case, fault
from tests.attacks.engines.surgery import (
    gather,
    multiply,
    store,
    tensor,
    values,
)


@fault
def two_cameras_swapped(case: Case) -> None:
    for model in case.both:
        gather(model, "images", 0, np.roll(np.arange(case.cameras), 1))


@fault
def one_camera_twice(case: Case) -> None:
    for model in case.both:
        gather(model, "images", 0, [0] * case.cameras)


@fault
def cameras_swapped_for_the_refiner_alone(case: Case) -> None:
    gather(case.refiner, "images", 0, np.roll(np.arange(case.cameras), 1))


@fault
def blue_for_red(case: Case) -> None:
    for model in case.both:
        gather(model, "images", 3, [2, 1, 0])


@fault
def images_upside_down(case: Case) -> None:
    for model in case.both:
        gather(model, "images", 1, np.arange(case.manifest.embodiment.image_height)[::-1])


@fault
def images_shifted_by_a_pixel(case: Case) -> None:
    width = case.manifest.embodiment.image_width
    for model in case.both:
        gather(model, "images", 2, np.clip(np.arange(width) + 1, 0, width - 1))


@fault
def wrong_image_statistics(case: Case) -> None:
    for model in case.both:
        # Not one factor for all: the stem's group normalisation would take it out again.
        std = tensor(model, "images.std")
        store(std, values(std) * np.array([1.0, 1.2, 0.8]))


@fault
def wrong_state_statistics(case: Case) -> None:
    for model in case.both:
        scale = tensor(model, "state.scale")
        store(scale, values(scale) * 1.5)


@fault
def state_dimensions_swapped(case: Case) -> None:
    count = len(case.manifest.embodiment.state)
    for model in case.both:
        gather(model, "state", 0, np.roll(np.arange(count), 1))


@fault
def state_of_the_refiner_in_other_units(case: Case) -> None:
    multiply(case.refiner, "state", 1000.0)
