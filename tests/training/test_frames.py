"""Pictures on disk: the same as the dataset's, used again, removed at the end, within memory."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from libra_edge.data.lerobot import Dataset
from libra_edge.errors import InputError, LibraError
from libra_edge.training import frames as module
from libra_edge.training.config import TrainingRecipe
from libra_edge.training.frames import FRAMES, plan_frames, store_frames
from libra_edge.training.run import prepare
from libra_edge.training.windows import Track, Windows
from tests.data.generated import Recipe, edit_cell, edit_rows, index_file, videos, write
from tests.tiny import tiny_config

POLICY = tiny_config().model_dump(mode="json", include={"planner", "refiner", "chunk", "schedule"})
RECIPE = TrainingRecipe.model_validate(
    {"policy": POLICY, "training": {"steps": 3, "batch": 4, "precision": "float32"}}
)
# Builds a trainer and draws batches all over the dataset, then prints the peak of its memory.
MEASURE = """
import sys
import numpy as np
from libra_edge.training.run import prepare
from libra_edge.training.config import read_training_recipe
trainer = prepare(sys.argv[1], read_training_recipe(sys.argv[2]), sys.argv[3])
random = np.random.default_rng(0)
for _ in range(int(sys.argv[4])):
    trainer._windows.batch(16, random)
# getrusage would count what the parent held when it started this process.
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(status["VmHWM"].split()[0])
"""


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("data") / "set", Recipe())


@pytest.fixture
def path(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "set"))


def test_stored_frames_are_the_datasets(pristine: Path, tmp_path: Path) -> None:
    dataset = Dataset(pristine, Recipe().robot)
    plan = plan_frames(dataset)
    assert plan.size_bytes == len(dataset) * 2 * 32 * 32 * 3
    assert plan.seconds > 0
    stored: list[int] = []
    store = store_frames(dataset, plan, tmp_path / "run", stored.append)
    assert sum(stored) == len(store) == len(dataset)
    images = np.concatenate([episode.images for episode in Recipe().episodes()])
    chosen = np.array([27, 0, 13, 13])
    np.testing.assert_array_equal(store[chosen], images[chosen])
    store.discard()
    assert list((tmp_path / "run").iterdir()) == []


def test_frames_are_decoded_once(pristine: Path, tmp_path: Path, path: Path) -> None:
    """A run that goes on uses what stands there, unless the dataset is another."""
    dataset = Dataset(path, Recipe().robot)
    store_frames(dataset, plan_frames(dataset), tmp_path / "run")
    before = (tmp_path / "run" / FRAMES).stat().st_mtime_ns
    again = Dataset(path, Recipe().robot)
    store_frames(again, plan_frames(again), tmp_path / "run")
    assert (tmp_path / "run" / FRAMES).stat().st_mtime_ns == before
    edit_cell(path, "action", 0, 0, lambda value: [0.25, *value[1:]])
    other = Dataset(path, Recipe().robot)
    store_frames(other, plan_frames(other), tmp_path / "run")
    assert (tmp_path / "run" / FRAMES).stat().st_mtime_ns != before


def test_no_room_is_said_before_anything_is_decoded(
    pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = Dataset(pristine, Recipe().robot)
    plan = plan_frames(dataset)
    usage = shutil.disk_usage(tmp_path)._replace(free=plan.size_bytes)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(LibraError, match="disk-full") as caught:
        store_frames(dataset, plan, tmp_path / "new/run")
    assert str(tmp_path) in caught.value.fact
    assert not (tmp_path / "new").exists()


def test_a_disk_that_fills_up_leaves_nothing(
    pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = Dataset(pristine, Recipe().robot)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(LibraError, match="disk-full"):
        store_frames(dataset, plan_frames(dataset), tmp_path / "run", full)
    assert list((tmp_path / "run").iterdir()) == []


def test_a_damaged_frame_stops_before_training(path: Path, tmp_path: Path) -> None:
    """What only decoding can find is found while the pictures are stored."""
    video = videos(path, "top")[0]
    content = bytearray(video.read_bytes())
    at = content.index(b"mdat") + (content.index(b"moov") - content.index(b"mdat")) // 2
    content[at : at + 60] = np.random.default_rng(2).bytes(60)
    video.write_bytes(content)
    with pytest.raises(InputError, match="video-corrupt"):
        prepare(path, RECIPE, tmp_path / "run")
    assert not (tmp_path / "run" / FRAMES).exists()


def test_a_whole_run_leaves_no_frames(pristine: Path, tmp_path: Path) -> None:
    trainer = prepare(str(pristine), RECIPE, str(tmp_path / "run"))
    assert (tmp_path / "run" / FRAMES).is_file()
    trainer.run()
    assert not (tmp_path / "run" / FRAMES).exists()
    assert (tmp_path / "run/model.safetensors").is_file()


def test_windows_end_where_the_instruction_changes(path: Path, tmp_path: Path) -> None:
    """What the robot does once it is told something else is not part of what it was told before."""
    for frame in range(6, 12):
        edit_cell(path, "task_index", 1, frame, lambda _: 0)
    edit_rows(
        index_file(path), lambda rows: rows[1].update(tasks=["open the box", "close the box"])
    )
    trainer = prepare(path, RECIPE, tmp_path / "run")
    windows = trainer._windows
    batch = windows.batch(400, np.random.default_rng(0))
    starts = np.array([9 + 4])  # Two steps before the change in episode 1, which starts at 9.
    drawn = np.random.default_rng(0).integers(0, len(windows), 400)
    for i in np.flatnonzero(np.isin(drawn, starts)):
        assert batch.mask[i].tolist() == [1, 1, 0, 0, 0, 0]
    told = [windows._words[windows._told[at]].tolist() for at in (9 + 5, 9 + 6)]
    assert told[0] != told[1]


def test_tracks_and_frames_have_to_fit() -> None:
    track = Track(np.zeros((3, 3), np.float32), np.zeros((3, 3), np.float32), ((0, "a"),))
    with pytest.raises((ValueError, AttributeError)):
        Windows(np.zeros((2, 1, 4, 4, 3), np.uint8), [track], None, None, None, None)  # type: ignore[arg-type]


def toml(path: Path) -> Path:
    lines = ["[training]", "steps = 1", "batch = 4", "precision = 'float32'"]
    for table in ("planner", "refiner", "schedule"):
        content = POLICY[table]
        plain = {k: v for k, v in content.items() if not isinstance(v, dict) and v is not None}
        lines += [f"[policy.{table}]", *(f"{k} = {json.dumps(v)}" for k, v in plain.items())]
        for inner, values in content.items():
            if isinstance(values, dict):
                lines += [f"[policy.{table}.{inner}]"]
                lines += [f"{k} = {json.dumps(v)}" for k, v in values.items()]
    path.write_text("\n".join(lines))
    return path


def test_memory_does_not_grow_with_frames(tmp_path: Path) -> None:
    """Peak memory of a small dataset and of one with 5 times the frames, every frame touched."""
    size = {"image_height": 96, "image_width": 96}
    peaks_mb = []
    for scale in (1, 5):
        recipe = Recipe(lengths=(60,) * (4 * scale), changes=size)
        path = write(tmp_path / f"set{scale}", recipe)
        words = [path, toml(tmp_path / "recipe.toml"), tmp_path / f"run{scale}", 60 * scale]
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, *map(str, words)],
            check=True,
            capture_output=True,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        peaks_mb.append(int(done.stdout.split()[-1]) / 1024)
    decoded_mb = 60 * 4 * 4 * 2 * 96 * 96 * 3 / 2**20
    assert decoded_mb > 50
    assert peaks_mb[1] - peaks_mb[0] < 0.3 * decoded_mb, peaks_mb
