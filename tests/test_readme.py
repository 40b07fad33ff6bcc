"""The commands of the README and the tutorial, run as they stand."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# The examples are long: fewer episodes and observations show that the commands work.
SHORTER = {"--episodes": "1", "--samples": "20"}


def commands(page: str) -> list[list[str]]:
    text = (ROOT / page).read_text("utf-8")
    blocks = "\n".join(re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
    lines = blocks.replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.startswith("libra-edge ")]


@pytest.mark.parametrize("page", ["README.md", "docs/tutorial.md"])
def test_commands_run_in_order(page: str, tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    found = commands(page)
    assert len(found) >= 5
    for words in found:
        for flag, value in SHORTER.items():
            if flag in words:
                words[words.index(flag) + 1] = value
            elif (flag, words[1]) in {("--episodes", "simulate"), ("--samples", "verify")}:
                words += [flag, value]
        result = subprocess.run(
            [sys.executable, "-m", "libra_edge.cli", *words[1:]],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, (words, result.stderr)
