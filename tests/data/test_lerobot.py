from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from libra_edge.data.lerobot import Dataset
from libra_edge.data.lerobot_writer import DatasetWriter
from libra_edge.data.types import Episode
from libra_edge.errors import InputError, LibraError
from libra_edge.policy.config import ActionDim, Embodiment, StateDim

SIZE = 64
STATISTICS = {"min", "max", "mean", "std", "count", "q01", "q10", "q50", "q90", "q99"}


def _body(**changes):
    fields = {
        "name": "two-eyed",
        "control_hz": 20,
        "cameras": ("left", "right"),
        "image_height": SIZE,
        "image_width": SIZE,
        "state": tuple(StateDim(name=f"s{i}", unit="m") for i in range(3)),
        "actions": tuple(
            ActionDim(name=f"a{i}", unit="m", kind="delta", lower=-1, upper=1) for i in range(2)
        ),
    }
    return Embodiment(**(fields | changes))


def _episodes(count: int = 5) -> list[Episode]:
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 200, SIZE).astype(np.uint8)
    made = []
    for number in range(count):
        length = 4 + 3 * number
        smooth = ramp[None, None, :, None, None] + np.zeros((length, 2, SIZE, SIZE, 3), np.uint8)
        shades = rng.integers(0, 50, (length, 2, 1, 1, 3)).astype(np.uint8)
        made.append(
            Episode(
                images=smooth + shades,
                states=rng.normal(size=(length, 3)).astype(np.float32),
                actions=rng.uniform(-1, 1, (length, 2)).astype(np.float32),
                instruction=("open it", "close it")[number % 2],
                task=("open", "close")[number % 2],
                success=number != 3,
                seed=100 + number,
            )
        )
    return made


def _write(path, episodes=None, codec="lossless", per_file=1000, body=None):
    with DatasetWriter(path, body or _body(), codec, {"why": "test"}, per_file) as writer:
        for episode in episodes or _episodes():
            writer.add(episode)
    return path


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    return _write(tmp_path_factory.mktemp("data") / "set")


@pytest.fixture
def dataset(pristine, tmp_path):
    return shutil.copytree(pristine, tmp_path / "set")


def _assert_same(found: Episode, wanted: Episode, atol: int) -> None:
    assert np.array_equal(found.states, wanted.states)
    assert np.array_equal(found.actions, wanted.actions)
    assert found.images.shape == wanted.images.shape
    difference = np.abs(found.images.astype(int) - wanted.images.astype(int))
    assert difference.max() <= atol
    fields = ("instruction", "task", "success", "seed")
    assert [getattr(found, f) for f in fields] == [getattr(wanted, f) for f in fields]


@pytest.mark.parametrize("per_file", [1000, 2], ids=["one-file", "many-files"])
@pytest.mark.parametrize(("codec", "atol"), [("lossless", 0), ("av1", 12)])
def test_round_trip(tmp_path, codec, atol, per_file):
    episodes = _episodes()
    dataset = Dataset(_write(tmp_path / "set", episodes, codec, per_file))
    assert len(list((tmp_path / "set/data").rglob("*.parquet"))) == (1 if per_file > 5 else 3)
    assert len(dataset) == sum(map(len, episodes))
    assert dataset.cameras == ("left", "right")
    assert dataset.embodiment == _body()
    dataset.check_matches(_body())
    for number, episode in enumerate(episodes):
        _assert_same(dataset.episode(number), episode, atol)
    first_of_third = len(episodes[0]) + len(episodes[1])
    observation, action = dataset.frame(first_of_third + 2)
    assert np.array_equal(action, episodes[2].actions[2])
    assert np.array_equal(observation.state, episodes[2].states[2])
    assert observation.instruction == "open it"


def test_frames_in_any_order(pristine):
    dataset, episodes = Dataset(pristine), _episodes()
    states = np.concatenate([episode.states for episode in episodes])
    for index in (len(dataset) - 1, 0, 17, 3):
        assert np.array_equal(dataset.frame(index)[0].state, states[index])
    with pytest.raises(IndexError):
        dataset.frame(len(dataset))


def test_statistics(pristine):
    stats = Dataset(pristine).stats
    actions = np.concatenate([episode.actions for episode in _episodes()]).astype(np.float64)
    assert set(stats["action"]) == STATISTICS
    assert np.allclose(stats["action"]["mean"], actions.mean(axis=0))
    assert np.allclose(stats["action"]["std"], actions.std(axis=0))
    assert np.allclose(stats["action"]["q99"], np.quantile(actions, 0.99, axis=0))
    assert stats["action"]["count"] == [len(actions)]
    pixels = np.concatenate([episode.images[:, 1] for episode in _episodes()]) / 255.0
    image = stats["observation.images.right"]
    assert image["mean"].shape == (3, 1, 1)
    for name, value in (
        ("mean", pixels.mean((0, 1, 2))),
        ("std", pixels.std((0, 1, 2))),
        ("min", pixels.min((0, 1, 2))),
        ("max", pixels.max((0, 1, 2))),
        ("q50", np.median(pixels, (0, 1, 2))),
    ):
        assert np.allclose(image[name].ravel(), value, atol=1 / 255), name


def test_the_files_are_those_of_lerobot(pristine):
    info = json.loads((pristine / "meta/info.json").read_text())
    assert info["codebase_version"] == "v3.0"
    assert info["features"]["observation.images.left"]["dtype"] == "video"
    assert info["features"]["timestamp"] == {"dtype": "float32", "shape": [1], "names": None}
    frames = pq.read_table(pristine / "data/chunk-000/file-000.parquet")
    assert set(frames.column_names) == {
        name for name, feature in info["features"].items() if feature["dtype"] != "video"
    }
    episodes = pq.read_table(pristine / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert episodes[1]["dataset_from_index"] == episodes[0]["dataset_to_index"] == 4
    key = "videos/observation.images.left"
    assert episodes[1][f"{key}/from_timestamp"] == pytest.approx(4 / 20)
    assert {f"{key}/chunk_index", f"{key}/file_index", "data/chunk_index", "tasks"} <= set(
        episodes[0]
    )
    tasks = pq.read_table(pristine / "meta/tasks.parquet")
    assert tasks.to_pydict() == {"task_index": [0, 1], "task": ["open it", "close it"]}
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["task"]


def test_same_episodes_give_the_same_fingerprint_and_one_changed_action_another(pristine, tmp_path):
    again = _episodes()
    assert Dataset(_write(tmp_path / "a", again)).fingerprint == Dataset(pristine).fingerprint
    again[4].actions[0, 0] += 0.001
    assert Dataset(_write(tmp_path / "b", again)).fingerprint != Dataset(pristine).fingerprint


@pytest.mark.parametrize(
    "name",
    [
        "meta/info.json",
        "meta/tasks.parquet",
        "meta/episodes/chunk-000/file-000.parquet",
        "data/chunk-000/file-000.parquet",
        "videos/observation.images.right/chunk-000/file-000.mp4",
    ],
)
@pytest.mark.parametrize("how", ["missing", "corrupt"])
def test_missing_or_corrupt_file_is_named(dataset, name, how):
    if how == "missing":
        (dataset / name).unlink()
    else:
        (dataset / name).write_bytes(b"\x00garbage" * 20)
    with pytest.raises(InputError) as caught:
        Dataset(dataset).episode(0)
    missing, corrupt = "dataset-file-missing", ("dataset-file-corrupt", "video-corrupt")
    assert caught.value.code == missing if how == "missing" else caught.value.code in corrupt
    assert (dataset / name).parent.name in caught.value.fact


def test_truncated_video(dataset):
    """The index at the end of the file survives in none of these cuts."""
    video = dataset / "videos/observation.images.left/chunk-000/file-000.mp4"
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    with pytest.raises(InputError) as caught:
        Dataset(dataset).episode(4)
    assert caught.value.code in {"dataset-file-unfinished", "video-too-short"}


def test_video_of_too_few_frames(dataset, tmp_path):
    short = _write(tmp_path / "short", _episodes(2))
    name = "videos/observation.images.left/chunk-000/file-000.mp4"
    shutil.copy(short / name, dataset / name)
    opened = Dataset(dataset)
    opened.episode(1)
    with pytest.raises(InputError, match="video-too-short"):
        opened.episode(2)


def _edit_info(path, edit):
    file = path / "meta/info.json"
    info = json.loads(file.read_text())
    edit(info)
    file.write_text(json.dumps(info))


@pytest.mark.parametrize("version", ["v1.6", "v4.0", None])
def test_unknown_versions_are_refused(dataset, version):
    _edit_info(dataset, lambda info: info.update(codebase_version=version))
    with pytest.raises(InputError, match="dataset-version") as caught:
        Dataset(dataset)
    assert str(version) in caught.value.fact


def test_statistics_of_states_and_actions_are_those_of_the_data(dataset):
    before = Dataset(dataset).stats
    (dataset / "meta/stats.json").unlink()
    after = Dataset(dataset).stats
    for key in ("observation.state", "action"):
        for name in STATISTICS:
            assert np.array_equal(before[key][name], after[key][name])


@pytest.mark.parametrize("key", ["action", "observation.state"])
def test_missing_feature(dataset, key):
    _edit_info(dataset, lambda info: info["features"].pop(key))
    with pytest.raises(InputError, match="dataset-feature-missing") as caught:
        Dataset(dataset)
    assert key in caught.value.fact


def test_path_pattern_may_not_leave_the_dataset(dataset):
    _edit_info(dataset, lambda info: info.update(data_path="../../{chunk_index}{file_index}"))
    with pytest.raises(InputError, match="dataset-path-outside"):
        Dataset(dataset)


def test_no_cameras(dataset):
    def drop(info):
        for side in ("left", "right"):
            del info["features"][f"observation.images.{side}"]

    _edit_info(dataset, drop)
    with pytest.raises(InputError, match="dataset-feature-missing"):
        Dataset(dataset)


@pytest.mark.parametrize(
    "changes",
    [
        {"actions": _body().actions[:1]},
        {"state": _body().state[:2]},
        {"cameras": ("right", "left")},
        {"image_height": 32},
        {"control_hz": 10},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_another_robot_is_refused(pristine, changes):
    with pytest.raises(InputError) as caught:
        Dataset(pristine).check_matches(_body(**changes))
    assert caught.value.code == "dataset-mismatch"
    assert str(pristine) in caught.value.fact


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_action_is_named(dataset, bad):
    file = dataset / "data/chunk-000/file-000.parquet"
    table = pq.read_table(file)
    actions = table["action"].to_pylist()
    actions[5][1] = bad
    column = pa.array(actions, table.schema.field("action").type)
    pq.write_table(table.set_column(table.column_names.index("action"), "action", column), file)
    opened = Dataset(dataset)
    opened.episode(0)
    with pytest.raises(InputError) as caught:
        opened.episode(1)
    assert caught.value.code == "dataset-not-finite"
    assert "action[1] of episode 1, frame 1" in caught.value.fact


def test_nothing_is_left_when_writing_fails(tmp_path):
    def interrupted():
        yield _episodes(1)[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _write(tmp_path / "set", interrupted())
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_when_the_disk_is_full(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(LibraError, match="disk-full"):
        _write(tmp_path / "set")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_dataset_is_not_written(tmp_path):
    with pytest.raises(InputError, match="dataset-empty"), DatasetWriter(tmp_path / "s", _body()):
        pass
    assert list(tmp_path.iterdir()) == []


def test_another_robots_episode_is_refused(tmp_path):
    body = _body(actions=_body().actions[:1])
    with pytest.raises(InputError, match="episode-mismatch"):
        _write(tmp_path / "set", body=body)
    assert list(tmp_path.iterdir()) == []


def test_existing_output_is_kept(pristine):
    before = Dataset(pristine).fingerprint
    with pytest.raises(InputError, match="output-exists"):
        _write(pristine)
    assert Dataset(pristine).fingerprint == before


def test_truncated_table(dataset):
    file = dataset / "data/chunk-000/file-000.parquet"
    table = pq.read_table(file)
    pq.write_table(table.slice(0, table.num_rows - 2), file)
    opened = Dataset(dataset)
    opened.episode(3)
    with pytest.raises(InputError, match="dataset-truncated"):
        opened.episode(4)
