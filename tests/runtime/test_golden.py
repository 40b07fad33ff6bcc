"""A C program, linked to the release's library, replays the golden vectors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.runtime import tiny_release as tiny
from tests.runtime.native_build import golden_program, run_golden

Copy = Callable[[], Path]


@pytest.fixture(scope="module")
def program(release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return golden_program(tmp_path_factory.mktemp("golden") / "golden", release)


def test_matches(program: Path, release: Path) -> None:
    result = run_golden(program, release, 1e-6, 1e-6)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.startswith("tiny: 3 samples, 0 intents differ")
    assert result.stdout.endswith("PASS\n")


@pytest.mark.parametrize("name", ["actions", "margin", "intent", "noise", "images", "state"])
def test_sees_a_difference(program: Path, copy: Copy, name: str) -> None:
    release = copy()
    path = release / f"golden/{name}.npy"
    values = np.load(path)
    # Enough to change an action by more than the tolerance, at the last place of the last sample.
    values[-1].reshape(-1)[-1] += {"intent": 1, "images": 50}.get(name, 0.5)
    if name == "state":
        values[-1, 0] += 100
    path.unlink()
    np.save(path, values)
    tiny.seal(release, tiny.manifest())
    result = run_golden(program, release)
    assert result.returncode == 1, result.stdout + result.stderr
    assert result.stdout.endswith("FAIL\n")


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.astype(np.float64),
        lambda state: np.asfortranarray(state),
        lambda state: state[:, :-1],
        lambda state: state[:-1],
    ],
)
def test_refuses_vectors_of_another_kind(
    program: Path, copy: Copy, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    release = copy()
    path = release / "golden/state.npy"
    values = change(np.load(path))
    path.unlink()
    np.save(path, values)
    tiny.seal(release, tiny.manifest())
    assert run_golden(program, release).returncode == 2
