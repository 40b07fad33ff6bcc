"""The checkpoint in LeRobot: what it is handed, and what is said where it does not run."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from libra_edge.errors import InputError, NotMeasuredError
from libra_edge.policy.family import ReadOptions
from libra_edge.policy.imported import Imported, family_of, read_imported
from libra_edge.verification.reference import LeRobotEngines
from tests.policy.lerobot_cases import Case, case

# Stands in for LeRobot: answers with the sums of what it was given, so that every byte counts.
ECHO = """\
import json, sys
import numpy as np
for line in sys.stdin.buffer:
    request, sums = json.loads(line), []
    for name, dtype, shape in request["arrays"]:
        data = sys.stdin.buffer.read(int(np.prod(shape)) * np.dtype(dtype).itemsize)
        sums.append([float(np.frombuffer(data, dtype).astype(np.float64).sum()), len(shape)])
    found = np.array(sums, np.float32)
    sys.stdout.buffer.write(json.dumps(found.shape).encode() + b"\\n" + found.tobytes())
    sys.stdout.buffer.flush()
"""


def imported(found: Case) -> Imported:
    family = family_of(found.folder)
    assert family is not None
    return read_imported(family, found.folder, ReadOptions(found.robot))


def script(folder: Path, text: str) -> Path:
    """An interpreter that runs something else than what it is told to."""
    path = folder / "python"
    (folder / "text.py").write_text(text)
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{folder}/text.py"\n')
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("name", ["act", "diffusion-ddim"])
def test_every_camera_arrives_whole(tmp_path: Path, name: str) -> None:
    found, nothing = case(name), np.empty((0, 0), np.int32)
    with LeRobotEngines(script(tmp_path, ECHO), imported(found)) as engines:
        for sample in found.samples[:2]:
            sums = engines.refine(sample.images, sample.state, nothing, sample.noise)
            steps = 1 if sample.state.ndim == 1 else len(sample.state)
            cameras = len(found.robot.cameras)
            assert sums[:cameras, 1].tolist() == [4 if steps > 1 else 3] * cameras
            assert sums[:cameras, 0].sum() == pytest.approx(int(sample.images.sum()), rel=1e-6)
            assert sums[cameras, 0] == pytest.approx(float(sample.state.sum()), abs=1e-3)
            assert len(sums) == cameras + 1 + (sample.noise.size > 0)


def test_an_interpreter_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="reference-python"):
        LeRobotEngines(tmp_path / "python", imported(case("act")))


def test_one_without_lerobot_says_what_it_lacks() -> None:
    found = case("act")
    sample, nothing = found.samples[0], np.empty((0, 0), np.int32)
    with (
        LeRobotEngines(Path(sys.executable), imported(found)) as engines,
        pytest.raises(NotMeasuredError, match="lerobot"),
    ):
        engines.refine(sample.images, sample.state, nothing, sample.noise)
