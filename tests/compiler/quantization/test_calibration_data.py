"""What calibration is done on, and what is refused before anything is written."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from libra_edge.compiler.pipeline import compile_checkpoint
from libra_edge.compiler.quantization.calibration_data import (
    PHASES,
    choose_frames,
    open_calibration_data,
    read_calibration_data,
    require_apart,
)
from libra_edge.compiler.request import Request
from libra_edge.data.lerobot import Dataset
from libra_edge.data.lerobot_writer import DatasetWriter
from libra_edge.data.types import Episode
from libra_edge.errors import ExitCode, InputError
from libra_edge.policy.actions import to_tokens
from libra_edge.policy.checkpoint import Checkpoint, load_checkpoint
from libra_edge.policy.config import ActionDim
from libra_edge.verification.recompile import STAGES_BETWEEN
from libra_edge.verification.request import Request as VerifyRequest
from libra_edge.verification.verify import verify_release
from tests.tiny import INSTRUCTIONS, tiny_embodiment, write_tiny_checkpoint

LENGTH, SWITCH = 40, 25
SPLITS = ("train", "eval")


def episodes(count: int = 6, first_seed: int = 1) -> list[Episode]:
    random, made = np.random.default_rng(first_seed), []
    robot = tiny_embodiment()
    for number in range(count):
        actions = random.uniform(-0.4, 0.4, (LENGTH, len(robot.actions))).astype(np.float32)
        actions[:, 2] = np.arange(LENGTH) >= SWITCH
        made.append(
            Episode(
                images=random.integers(0, 256, (LENGTH, 2, 16, 24, 3), dtype=np.uint8),
                states=random.normal(size=(LENGTH, 3)).astype(np.float32),
                actions=actions,
                instruction=INSTRUCTIONS[number % 3],
                task=INSTRUCTIONS[number % 3],
                success=True,
                seed=first_seed + number,
            )
        )
    return made


def write(path: Path, recorded: list[Episode], split: str = "", **changes: Any) -> Path:
    body = tiny_embodiment().model_copy(update=changes)
    about = {"why": "test", **({"split": split} if split else {})}
    with DatasetWriter(path, body, "lossless", about, 1000) as writer:
        for episode in recorded:
            writer.add(episode)
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return load_checkpoint(write_tiny_checkpoint(tmp_path_factory.mktemp("policy") / "tiny"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset(write(tmp_path_factory.mktemp("data") / "set", episodes()))


def test_frames_are_spread_and_grippers_count_more(
    dataset: Dataset, checkpoint: Checkpoint
) -> None:
    frames = choose_frames(dataset, checkpoint.config.embodiment, 96, seed=0)
    assert len(set(frames)) == len(frames) == 96
    assert frames == sorted(frames)
    tasks = Counter(dataset.episodes[number].task for number, _ in frames)
    assert max(tasks.values()) - min(tasks.values()) <= 6, tasks
    assert min(Counter(number for number, _ in frames).values()) >= 10
    phases = Counter(step * PHASES // LENGTH for _, step in frames)
    assert min(phases.values()) >= 12, phases
    near = sum(SWITCH - 2 <= step < SWITCH + 2 for _, step in frames)
    assert near >= 0.95 * 24, "all of the few frames at which a gripper moves"
    assert frames != choose_frames(dataset, checkpoint.config.embodiment, 96, seed=1)


def test_samples_are_the_datasets(dataset: Dataset, checkpoint: Checkpoint) -> None:
    data = read_calibration_data(dataset, checkpoint, 130)
    config = checkpoint.config
    assert data.source == dataset.fingerprint
    row = next(i for i, (_, step) in enumerate(data.frames) if 5 < step < 30)
    number, step = data.frames[row]
    first = dataset.episodes[number].first_frame
    for part in range(config.chunks_per_plan):
        seen, _ = dataset.frame(first + step + part * config.chunk)
        np.testing.assert_array_equal(data.images[row, part], seen.images)
        np.testing.assert_array_equal(data.states[row, part], seen.state)
    actions = dataset.episode(number).actions[step : step + config.plan_steps]
    expected = to_tokens(checkpoint.policy.action_affine.normalize(actions), config.bins)
    np.testing.assert_array_equal(data.tokens[row], expected)
    again = read_calibration_data(dataset, checkpoint, 130)
    assert again.sha256 == data.sha256
    assert data[:10].sha256 != data.sha256


def test_evaluation_episodes_are_kept_out(dataset: Dataset, tmp_path: Path) -> None:
    apart = Dataset(write(tmp_path / "apart", episodes(2, first_seed=100)))
    require_apart(dataset, apart)
    mixed = Dataset(write(tmp_path / "mixed", [*episodes(1, 200), *episodes(6)[1:2]]))
    for evaluation in (mixed, dataset):
        with pytest.raises(InputError, match="calibration-not-apart"):
            require_apart(dataset, evaluation)


def test_a_split_says_what_is_not_to_be_calibrated_on(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    train, held_out = (write(tmp_path / split, episodes(), split=split) for split in SPLITS)
    require_apart(Dataset(train), Dataset(held_out))
    assert len(open_calibration_data(train, held_out, checkpoint, 130)) == 130
    with pytest.raises(InputError, match="evaluation variations") as caught:
        open_calibration_data(held_out, None, checkpoint, 130)
    assert caught.value.code == "calibration-not-apart"


def broken(path: Path, how: str) -> Path:
    """A dataset with one thing wrong."""
    good = episodes()
    if how == "actions":
        dims = tiny_embodiment().actions
        wide = [
            Episode(**{**vars(e), "actions": np.concatenate([e.actions] * 2, axis=1)}) for e in good
        ]
        more = tuple(ActionDim(**{**d.model_dump(), "name": f"{d.name}2"}) for d in dims)
        return write(path, wide, actions=(*dims, *more))
    if how == "few":
        return write(path, good[:2])
    if how == "camera":
        narrow = [Episode(**{**vars(e), "images": e.images[:, :1]}) for e in good]
        return write(path, narrow, cameras=("front",))
    write(path, good)
    file = next(path.glob("data/*/*.parquet"))
    table = pq.ParquetFile(file).read()
    rows = table["observation.state"].to_pylist()
    for row in rows:
        row[1] = float("nan")
    column = pa.array(rows, table.schema.field("observation.state").type)
    at = table.schema.get_field_index("observation.state")
    pq.write_table(table.set_column(at, table.schema.field(at), column), file)
    return path


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("actions", "action dimensions: 6"),
        ("few", "80 frames"),
        ("nan", "is nan"),
        ("camera", "cameras"),
    ],
)
def test_unusable_data_is_refused_and_nothing_written(
    checkpoint: Checkpoint, tmp_path: Path, how: str, words: str
) -> None:
    data, out = broken(tmp_path / "data", how), tmp_path / "out"
    request = Request(
        checkpoint.path,
        recipe="int8",
        calibrate=data,
        calibration_samples=200,
        out=out / "release",
        cache=out / "cache",
    )
    with pytest.raises(InputError) as caught:
        compile_checkpoint(request)
    assert words in caught.value.fact
    assert caught.value.exit_code is ExitCode.USAGE
    assert not out.exists()


def test_int8_release_of_a_tiny_policy(
    checkpoint: Checkpoint, dataset: Dataset, tmp_path: Path
) -> None:
    """From data to `verify`; random weights are sure of no token, so the gates are wide here."""
    recipe = "int8"
    gates = tmp_path / "gates.toml"
    gates.write_text("[gates]\ntokens = 0.9\naction = 0.1\nmargin_percentile = 50\n")
    held_out = write(tmp_path / "held-out", episodes(4, first_seed=100))
    request = Request(
        checkpoint.path,
        recipe=recipe,
        data=held_out,
        calibrate=dataset.path,
        calibration_samples=128,
        gates=gates,
        allow_loose=True,
        out=tmp_path / "release",
        cache=tmp_path / "cache",
        form="loop",
    )
    compiled = compile_checkpoint(request)
    subjects = {d.subject: d for d in compiled.manifest.decisions}
    assert subjects["refiner.blocks.0.mlp.0"].choice == "int8"
    assert "runs in int8" in subjects["refiner.blocks.0.mlp.0"].reason
    assert subjects["calibration data"].choice.endswith(dataset.fingerprint)
    report = json.loads(compiled.report.read_text())
    assert len(report["calibration"]["frames"]) == 128
    assert {p["precision"] for p in report["products"]} == {"int8", "fp32"}
    assert [change.name for change in compiled.manifest.gates if change.loose] == [
        "tokens",
        "action",
        "margin_percentile",
    ]
    found = verify_release(
        VerifyRequest(
            compiled.path, checkpoint.path, held_out, samples=32, cache=tmp_path / "cache"
        )
    )
    stages = {check.stage for check in found.checks}
    assert {"engine vs PyTorch policy", "C ABI vs engine"} <= stages
    assert found.count("not measured") == 0
    assert found.left_out == (f"{STAGES_BETWEEN} (they need --calibrate DATASET)",)
    assert not [c for c in found.checks if c.verdict == "fail" and "C ABI" in c.stage]
