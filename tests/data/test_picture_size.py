"""Pictures larger or smaller than what the policy sees."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from libra_edge.data.examine import Expectation, examine
from tests.data.generated import SIZE, Recipe, write


def test_pictures_come_at_the_robots_size(tmp_path: Path) -> None:
    """Resized once, by the mean of the pixels; a change of the ratio is doubted."""
    recipe = Recipe()
    path = write(tmp_path / "set", recipe)
    half = recipe.robot.model_copy(update={"image_height": SIZE // 2, "image_width": SIZE // 2})
    found = examine(path, Expectation(half))
    assert [f.level for f in found.findings] == ["note"] * 2
    images = found.require().episode(0).images
    assert images.shape[2:] == (SIZE // 2, SIZE // 2, 3)
    full = recipe.episodes()[0].images
    means = full.reshape(*full.shape[:2], SIZE // 2, 2, SIZE // 2, 2, 3).mean(axis=(3, 5))
    assert np.abs(images - means).max() <= 1
    for height, width in ((SIZE, SIZE // 2), (2 * SIZE, 2 * SIZE)):
        other = recipe.robot.model_copy(update={"image_height": height, "image_width": width})
        found = examine(path, Expectation(other))
        assert ("dataset-image-size", "doubt") in [(f.code, f.level) for f in found.findings]
        assert found.require().episode(0).images.shape[2:4] == (height, width)
