"""`make demo-flash`, with a release whose agent is the stand-in."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.deploy.robots import needs_sshd, write

ROOT = Path(__file__).parents[1]


@needs_sshd
def test_the_demo_runs_and_fits_a_terminal(tmp_path: Path) -> None:
    pytest.importorskip("ansible", reason="needs the extra fleet")
    # Short, as /tmp is: paths are part of what has to fit.
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as temporary:
        run = subprocess.run(
            [sys.executable, ROOT / "examples/flash/demo.py", write(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "TMPDIR": temporary, "COLUMNS": "80"},
        )
        assert run.returncode == 0, run.stdout
        assert not list(Path(temporary).iterdir())
    for words in ("self-test-failed", "runs first", "0 of 1", "2 of 2 robots", "already runs"):
        assert words in run.stdout, words
    lines = run.stdout.splitlines()
    assert sum(line.startswith("$ ") for line in lines) >= 10
    # An error's fact and remedy are a line each, however long, and so is a command to copy.
    free = ("error", "  remedy", "next: ")
    long = [line for line in lines if len(line) > 80 and not line.startswith(free)]
    assert not long
