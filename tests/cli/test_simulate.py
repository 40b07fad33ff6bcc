"""`libra-edge simulate` on recordings, and what it refuses to combine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from libra_edge.binding.recorder import Recorder
from libra_edge.cli import app as program
from libra_edge.errors import ExitCode
from tests.runtime import native_build
from tests.runtime import tiny_release as tiny


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("simulate") / "release"
    return tiny.make_release(folder, native_build.cached_library())


@pytest.fixture(scope="module")
def recording(release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path, rng = tmp_path_factory.mktemp("simulate") / "run.zip", np.random.default_rng(1)
    with Recorder(release, path) as recorder:
        recorder.reset(1, "open the tap")
        for _ in range(5):
            recorder.observe(*tiny.observation(rng))
            recorder.step()
    return path


def simulate(*words: object) -> tuple[int, dict[str, Any]]:
    result = CliRunner().invoke(program.app, ["simulate", *map(str, words), "--json"])
    return result.exit_code, json.loads(result.stdout)


def test_a_recording_is_repeated(release: Path, recording: Path) -> None:
    status, envelope = simulate(release, "--replay", recording)
    assert status == 0
    found = {"calls": 12, "actions": 5, "plans": 1, "first_difference": None}
    assert envelope["result"]["replay"] == found


def test_a_difference_is_a_failure(
    release: Path, recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("libra_edge.binding.replay.outcome", lambda info: {"step": info.step + 1})
    status, envelope = simulate(release, "--replay", recording)
    assert (status, envelope["ok"]) == (ExitCode.PARITY, False)
    assert envelope["result"]["replay"]["first_difference"] == 3


@pytest.mark.parametrize(
    "flags",
    [
        ("--mode", "async"),
        ("--task", "reach"),
        ("--swap", "a=b"),
        ("--record", "again.zip"),
        ("--video", "a.mp4"),
        ("--shuffle-intents",),
    ],
)
def test_a_recording_takes_no_other_settings(
    release: Path, recording: Path, flags: tuple[str, ...]
) -> None:
    status, envelope = simulate(release, "--replay", recording, *flags)
    assert (status, envelope["error"]["code"]) == (ExitCode.USAGE, "usage")


def test_a_film_is_of_one_run(release: Path, tmp_path: Path) -> None:
    for flags in (("--jobs", 2), ("--replay", tmp_path)):
        status, envelope = simulate(release, "--video", tmp_path / "a.mp4", *flags)
        assert (status, envelope["error"]["code"]) == (ExitCode.USAGE, "usage")
    assert not list(tmp_path.iterdir())


def test_record_is_for_one_run_of_a_release(release: Path, tmp_path: Path) -> None:
    for flags in (("--jobs", 2), ("--replay", tmp_path)):
        status, envelope = simulate(release, "--record", tmp_path / "run.zip", *flags)
        assert (status, envelope["error"]["code"]) == (ExitCode.USAGE, "usage")
