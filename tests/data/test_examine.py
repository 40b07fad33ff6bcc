"""Datasets that are right are taken as they are; each kind of fault is found at its place."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from libra_edge.data.examine import Examination, Expectation, examine, open_dataset
from libra_edge.data.findings import DatasetDoubt
from libra_edge.data.lerobot import Dataset
from libra_edge.errors import InputError
from libra_edge.policy.config import NormalizationConfig
from tests.data import breakages_of_files, breakages_of_paths, breakages_of_robots
from tests.data.breaking import BREAKAGES, Wanted
from tests.data.generated import (
    ACTION,
    CAMERAS,
    STATE,
    Recipe,
    edit_cell,
    edit_columns,
    edit_info,
    edit_json,
    edit_robot,
    edit_rows,
    index_file,
    tables,
    to_pictures,
    to_v2,
    write,
)

# Importing them fills the table.
assert len({breakages_of_files, breakages_of_paths, breakages_of_robots}) == 3
CASES = Path(__file__).parent / "cases"
# A handful of shapes, each written once: what is drawn is where and how they break.
RECIPES = st.sampled_from(
    [
        Recipe(),
        Recipe(lengths=(5, 14), cameras=CAMERAS, states=4, actions=2, seed=1),
        Recipe(lengths=(8, 6, 10, 5), states=2, actions=4, per_file=2, seed=2),
        Recipe(lengths=(6, 13, 9), actions=2, per_file=1, seed=3),
    ]
)
FEW = settings(
    max_examples=5,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
_WRITTEN: dict[str, Path] = {}


@pytest.fixture(scope="module", autouse=True)
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Where each shape is kept once it was written."""
    _WRITTEN["shelf"] = tmp_path_factory.mktemp("written")
    yield
    _WRITTEN.clear()


@contextmanager
def made(recipe: Recipe) -> Iterator[Path]:
    if str(recipe) not in _WRITTEN:
        _WRITTEN[str(recipe)] = write(_WRITTEN["shelf"] / str(len(_WRITTEN)), recipe)
    with tempfile.TemporaryDirectory() as folder:
        yield Path(shutil.copytree(_WRITTEN[str(recipe)], Path(folder) / "set"))


def looked_at(path: Path, **changes: Any) -> Examination:
    return examine(path, Expectation(needs_robot=True, **changes))


def levels(found: Examination, *wanted: str) -> list[str]:
    return [f"{f.code}: {f.fact}" for f in found.findings if f.level in wanted]


def assert_found(found: Examination, wanted: Wanted) -> None:
    alike = [f for f in found.findings if (f.code, f.level) == (wanted.code, wanted.level)]
    assert alike, (wanted, found.findings)
    for finding in alike:
        assert finding.fact.endswith(".")
        assert finding.remedy.endswith(".")
    places = ("feature", "dimension", "episode", "frame")
    asked = {name: getattr(wanted, name) for name in places if getattr(wanted, name) is not None}
    assert any(
        all(getattr(finding, name) == value for name, value in asked.items()) for finding in alike
    ), (wanted, alike)


@FEW
@given(recipe=RECIPES)
def test_a_right_dataset_is_taken_without_a_word(recipe: Recipe) -> None:
    with made(recipe) as path:
        assert looked_at(path).findings == ()


@FEW
@given(recipe=RECIPES, seed=st.integers(0, 10_000))
@pytest.mark.parametrize("name", BREAKAGES)
def test_a_fault_is_found_at_its_place(name: str, recipe: Recipe, seed: int) -> None:
    with made(recipe) as path:
        wanted = BREAKAGES[name](path, recipe, np.random.default_rng(seed))
        found = looked_at(path)
        assert_found(found, wanted)
        if wanted.level == "error":
            with pytest.raises(InputError):
                found.require()
        elif wanted.level == "doubt":
            found.require()
            with pytest.raises(InputError):
                found.require(strict=True)
        else:
            found.require(strict=True)


@FEW
@given(recipe=RECIPES, videos=st.integers(0, 2))
def test_pictures_in_tables_are_those_of_the_videos(recipe: Recipe, videos: int) -> None:
    """All cameras as PNG in parquet, or some of them: nothing is left out, nothing differs."""
    with made(recipe) as path:
        before = [episode.images for episode in recipe.episodes()]
        for camera in recipe.cameras[videos:]:
            to_pictures(path, camera)
        found = looked_at(path)
        assert found.findings == ()
        dataset = found.require()
        assert dataset.cameras == recipe.cameras
        for number, images in enumerate(before):
            assert np.array_equal(dataset.episode(number).images, images)


@FEW
@given(recipe=RECIPES, seed=st.integers(0, 1000))
def test_a_picture_that_is_none_is_named(recipe: Recipe, seed: int) -> None:
    random = np.random.default_rng(seed)
    with made(recipe) as path:
        camera = recipe.cameras[0]
        to_pictures(path, camera)
        episode, key = int(random.integers(len(recipe.lengths))), f"observation.images.{camera}"
        bad = [b"", b"<html>", None][int(random.integers(3))]
        edit_cell(path, key, episode, 0, lambda _: {"bytes": bad, "path": None})
        with pytest.raises(InputError, match="dataset-picture-corrupt") as caught:
            Dataset(path).episode(episode)
        assert key in caught.value.fact


@FEW
@given(recipe=RECIPES)
def test_version_2_is_the_same_dataset(recipe: Recipe) -> None:
    with made(recipe) as path:
        before = [Dataset(path).episode(n) for n in range(len(recipe.lengths))]
        to_v2(path)
        found = looked_at(path)
        assert levels(found, "error", "doubt") == []
        dataset = found.require()
        assert dataset.layout.version == "v2.1"
        for number, episode in enumerate(before):
            again = dataset.episode(number)
            assert np.array_equal(again.images, episode.images)
            assert np.array_equal(again.states, episode.states)
            assert np.array_equal(again.actions, episode.actions)
            assert again.instruction == episode.instruction


@FEW
@given(recipe=RECIPES, seed=st.integers(0, 1000))
def test_an_instruction_may_change_on_the_way(recipe: Recipe, seed: int) -> None:
    random = np.random.default_rng(seed)
    episode = int(random.integers(len(recipe.lengths)))
    at = int(random.integers(1, recipe.lengths[episode]))
    with made(recipe) as path:
        other = 1 - episode % 2
        for frame in range(at, recipe.lengths[episode]):
            edit_cell(path, "task_index", episode, frame, lambda _: other)
        edit_rows(index_file(path), lambda rows: rows[episode].update(tasks=list(recipe.words)))
        found = looked_at(path)
        assert levels(found, "error", "doubt") == []
        assert_found(
            found,
            Wanted("dataset-instruction-changes", "note", "task_index", None, episode, at),
        )
        read = found.require().episode(episode)
        told = [read.observation(step).instruction for step in range(len(read))]
        before, after = recipe.words[episode % 2], recipe.words[other]
        assert told == [before] * at + [after] * (len(read) - at)
        assert read.steps_of_first_instruction == at


@FEW
@given(recipe=RECIPES, frames=st.integers(1, 2), dim=st.integers(0, 1))
def test_a_dimension_lost_to_its_quantiles(recipe: Recipe, frames: int, dim: int) -> None:
    recipe = Recipe(lengths=(140, 120), states=recipe.states, actions=recipe.actions)
    rare = np.zeros(sum(recipe.lengths))
    rare[90 : 90 + frames] = 2.0
    with made(recipe) as path:

        def change(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            rows[:, dim] = rare
            return rows

        edit_columns(path, ACTION, change)
        assert_found(looked_at(path), Wanted("dataset-range-lost", "error", ACTION, dim))
        whole = looked_at(path, normalization=NormalizationConfig(action="min_max"))
        assert levels(whole, "error") == []
        assert_found(whole, Wanted("dataset-range-narrow", "doubt", ACTION, dim))


def test_a_gripper_that_opens_a_little_is_lost_too(tmp_path: Path) -> None:
    """Quantiles that span some of a gripper's way would keep it from ever doing the rest."""
    path = write(tmp_path / "set", Recipe(lengths=(200,)))

    def change(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        rows[:, 0] = 0.0
        rows[50:54, 0] = (0.2, 1.0, 1.0, 0.2)
        return rows

    edit_columns(path, ACTION, change)
    edit_robot(path, lambda robot: robot["actions"][0].update(kind="gripper", lower=0, upper=1))
    for kind in ("quantiles", "mean_std"):
        found = looked_at(path, normalization=NormalizationConfig(action=kind))
        assert_found(found, Wanted("dataset-range-lost", "error", ACTION, 0))
    whole = looked_at(path, normalization=NormalizationConfig(action="min_max"))
    assert [f.code for f in whole.findings if f.level == "error"] == []


def test_other_names_of_cameras(tmp_path: Path) -> None:
    """A camera need not be called `observation.images.…`: none is overlooked."""
    path = write(tmp_path / "set", Recipe(cameras=("top",)))
    to_pictures(path, "top")
    import pyarrow.parquet as pq

    old, new = "observation.images.top", "observation.image"
    for file in tables(path):
        table = pq.ParquetFile(file).read()
        pq.write_table(
            table.rename_columns([new if n == old else n for n in table.column_names]), file
        )
    edit_info(path, lambda info: info["features"].update({new: info["features"].pop(old)}))
    assert_found(looked_at(path), Wanted("dataset-mismatch"))
    edit_robot(path, lambda robot: robot.update(cameras=["image"]))
    found = looked_at(path)
    assert levels(found, "error", "doubt") == []
    assert found.require().cameras == ("image",)


def test_a_dimension_that_never_moves_is_fine(tmp_path: Path) -> None:
    path = write(tmp_path / "set", Recipe())
    for key in (STATE, ACTION):
        edit_columns(path, key, lambda rows: rows * [1, 0, 1] + [0, 1.25, 0])
    (path / "meta/stats.json").unlink()
    found = looked_at(path)
    found.require(strict=True)
    assert_found(found, Wanted("dataset-constant", "note", ACTION, 1))


def test_statistics_are_computed_where_the_stored_ones_are_wrong(tmp_path: Path) -> None:
    recipe = Recipe()
    path = write(tmp_path / "set", recipe)
    actions = np.concatenate([episode.actions for episode in recipe.episodes()]).astype(np.float64)
    edit_json(path / "meta/stats.json", lambda stats: stats[ACTION].update(mean=["x"], q01=None))
    found = looked_at(path)
    assert_found(found, Wanted("dataset-statistics-wrong", "doubt", ACTION))
    stats = found.require().stats[ACTION]
    assert np.allclose(stats["mean"], actions.mean(axis=0))
    assert np.allclose(stats["q01"], np.quantile(actions, 0.01, axis=0))


def test_tasks_as_one_string_and_names_in_tables(tmp_path: Path) -> None:
    """What other writers make of the same dataset."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = write(tmp_path / "set", Recipe())
    table = pq.ParquetFile(index_file(path)).read()
    words = pa.array([tasks[0] for tasks in table["tasks"].to_pylist()])
    pq.write_table(
        table.set_column(table.column_names.index("tasks"), "tasks", words), index_file(path)
    )
    edit_info(
        path, lambda info: info["features"][ACTION].update(names={"motors": ["a0", "a1.pos", "A2"]})
    )
    edit_info(path, lambda info: info["features"][STATE].update(names=[["s0", "s1", "s2"]]))
    found = looked_at(path)
    assert found.findings == ()
    assert found.require().episodes[1].instruction == "close the box"


def test_opening_warns_of_doubts_and_raises_errors(tmp_path: Path) -> None:
    recipe = Recipe()
    path = write(tmp_path / "set", recipe)
    edit_info(path, lambda info: info.update(total_frames=1))
    with pytest.warns(DatasetDoubt, match="dataset-totals"):
        opened = open_dataset(str(path), recipe.robot)
    assert opened.robot == recipe.robot
    edit_info(path, lambda info: info.update(total_frames=sum(recipe.lengths)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_dataset(path, recipe.robot)
    (path / "meta/tasks.parquet").unlink()
    with pytest.raises(InputError, match="dataset-file-missing"):
        open_dataset(path, recipe.robot)


@pytest.mark.parametrize("name", ["base", "png"])
def test_datasets_that_lerobot_wrote_are_right(name: str) -> None:
    found = looked_at(CASES / name)
    assert levels(found, "error", "doubt") == []
    dataset = found.require()
    assert dataset.cameras == ("front", "wrist")
    assert [len(dataset.episode(n)) for n in range(2)] == [30, 30]


def test_a_dataset_of_links_into_a_cache(tmp_path: Path) -> None:
    """As Hugging Face's download leaves it: every file is a link to a blob elsewhere."""
    for file in [f for f in (CASES / "base").rglob("*") if f.is_file()]:
        blob = tmp_path / "blobs" / f"{abs(hash(file)):x}"
        link = tmp_path / "snapshot" / file.relative_to(CASES / "base")
        for place in (blob, link):
            place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, blob)
        link.symlink_to(blob)
    assert levels(looked_at(tmp_path / "snapshot"), "error", "doubt") == []
