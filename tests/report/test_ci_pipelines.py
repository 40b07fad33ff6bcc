"""The example pipelines are YAML, and their commands are this program's own."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from libra_edge.cli import app as program
from libra_edge.errors import InputError
from libra_edge.report.ci_pipelines import PIPELINES, write_pipelines


def commands(text: str) -> list[list[str]]:
    folded = re.sub(r">-\n\s+", "", text)
    folded = re.sub(r"\n\s+(?=--)", " ", folded)
    return [
        shlex.split(line.partition("libra-edge ")[2])
        for line in folded.splitlines()
        if re.search(r"(- |run: )libra-edge ", line)
    ]


def test_pipelines_call_options_that_exist(tmp_path: Path) -> None:
    for path in write_pipelines(tmp_path):
        text = path.read_text()
        assert isinstance(yaml.safe_load(text), dict)
        found = commands(text)
        assert [words[0] for words in found] == ["compile", "verify"]
        for name, *words in found:
            known = {o for p in program.load_command(name).params for o in p.opts}
            used = {word for word in words if word.startswith("--")}
            assert used
            assert used <= known


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / ".gitlab-ci.yml").write_text("mine")
    with pytest.raises(InputError, match="ci-exists"):
        write_pipelines(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".gitlab-ci.yml"]


def test_command_needs_no_release(tmp_path: Path) -> None:
    done = CliRunner().invoke(program.app, ["verify", "--init-ci", str(tmp_path)])
    assert done.exit_code == 0, done.stderr
    assert all((tmp_path / place).is_file() for place in PIPELINES.values())
    again = CliRunner().invoke(program.app, ["verify", "--init-ci", str(tmp_path)])
    assert again.exit_code != 0
