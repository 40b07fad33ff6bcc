"""The C example builds without a warning and drives a release."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.runtime import native_build

SOURCE = Path(__file__).parents[2] / "examples/c/control_loop.c"


@pytest.fixture(scope="module")
def program(release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("example") / "control_loop"
    native_build.zig(
        *("cc", *native_build.TARGET, "-std=c11", "-O2", *native_build.STRICT),
        *(f"-I{release / 'include'}", str(SOURCE), str(release / "lib/liblibra_edge.so")),
        *("-o", str(program)),
    )
    return program


def test_control_loop_in_c(program: Path, release: Path) -> None:
    result = native_build.run_c(program, release, "open the tap", "2", "200")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "tiny: 400 steps" in result.stdout
    assert "tick     p50" in result.stdout


def test_control_loop_names_what_is_wrong(program: Path, copy: Callable[[], Path]) -> None:
    release = copy()
    (release / "manifest.json").unlink()
    result = native_build.run_c(program, release, "open the tap")
    assert result.returncode == 2
    assert "manifest.json is missing" in result.stderr
