"""Pictures larger or smaller than what the policy sees."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from libra_edge.data.examine import Expectation, examine
from libra_edge.policy.config import Embodiment
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


def test_cameras_of_different_sizes_come_one_after_another(tmp_path: Path) -> None:
    """Each at its own size, as the C ABI and a policy of LeRobot's take them."""
    recipe = Recipe()
    path = write(tmp_path / "set", recipe)
    sizes = ((SIZE, SIZE), (SIZE // 2, SIZE // 2))
    robot = Embodiment(**{**recipe.robot.model_dump(), "camera_sizes": sizes})
    found = examine(path, Expectation(robot))
    assert [(f.level, f.feature) for f in found.findings] == [("note", "observation.images.wrist")]
    dataset = found.require()
    episode = dataset.episode(0)
    assert episode.images.shape == (len(episode), *robot.image_shape)
    top, wrist = np.split(episode.images, [SIZE * SIZE * 3], axis=1)
    full = recipe.episodes()[0].images
    assert np.abs(top.reshape(full[:, 0].shape) - full[:, 0].astype(int)).max() <= 1
    means = full[:, 1].reshape(-1, SIZE // 2, 2, SIZE // 2, 2, 3).mean(axis=(2, 4))
    assert np.abs(wrist.reshape(means.shape) - means).max() <= 1
    seen, _ = dataset.frame(3)
    np.testing.assert_array_equal(seen.images, episode.images[3])
