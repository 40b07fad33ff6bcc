"""`flash`, `status`, `rollback` and `doctor --robot`, as a technician meets them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from libra_edge.cli import app as program
from tests.deploy.robots import GOLDEN, current, write

RUN = [sys.executable, "-c", "from libra_edge.cli.app import main; main()"]
UNSIGNED = "--allow-unsigned"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    write(tmp_path)
    write(tmp_path, "second", members={"engines/planner.onnx": bytes(500_000)})
    return tmp_path


def invoke(*words: str) -> Result:
    return CliRunner().invoke(program.app, list(words))


def invoke_json(*words: str) -> tuple[int, dict[str, Any]]:
    result = invoke(*words, "--json")
    envelope = json.loads(result.stdout)
    assert envelope["ok"] == (result.exit_code == 0)
    return result.exit_code, envelope


def test_a_technicians_day(folder: Path) -> None:
    shown = []
    for words, last in (
        (("flash", "example", "./robot", "--dry-run"), "nothing was changed"),
        (("flash", "example", "./robot", "--mark-good"), "./robot runs example ("),
        (("flash", "example", "./robot"), "already runs example"),
        (("flash", "second", "./robot", "--no-activate"), "lies in slot b of ./robot, not active"),
        (("flash", "second", "./robot"), "./robot runs second ("),
        (("status", "./robot"), "./robot runs second"),
        (("rollback", "./robot"), "./robot runs example"),
        (("doctor", "--robot", "./robot"), "./robot can take a release"),
    ):
        extra = (UNSIGNED,) if words[0] == "flash" else ()
        result = invoke(*words, *extra)
        assert result.exit_code == 0, (words, result.stderr)
        assert last in result.stdout.splitlines()[-1], words
        shown += result.stdout.splitlines() + result.stderr.splitlines()
    assert max(map(len, shown)) <= 80, [line for line in shown if len(line) > 80]
    assert any("unless it is marked good" in line for line in shown)
    assert current(folder / "robot") == "example"


def test_json(folder: Path) -> None:
    status, plan = invoke_json("flash", "example", "./robot", UNSIGNED, "--dry-run")
    assert status == 0
    assert plan["result"]["condition"] == "planned"
    assert plan["result"]["plan"]["send_bytes"] > 0
    assert not (folder / "robot").exists()
    done = invoke_json("flash", "example", "./robot", UNSIGNED)[1]["result"]
    assert (done["condition"], done["after"]["active"]) == ("active", "a")
    assert invoke_json("status", "./robot")[1]["result"]["slots"]["a"]["release"] == "example"
    assert invoke_json("doctor", "--robot", "./robot")[1]["result"]["checks"]
    status, refused = invoke_json("rollback", "./robot")
    assert (status, refused["error"]["code"]) == (5, "no-previous")


def test_a_broken_release_and_its_exit_code(folder: Path) -> None:
    write(folder, "broken", members={GOLDEN: b"BAD"})
    assert invoke("flash", "example", "./robot", UNSIGNED).exit_code == 0
    status, envelope = invoke_json("flash", "broken", "./robot", UNSIGNED)
    assert (status, envelope["error"]["code"]) == (3, "self-test-failed")
    assert "still runs example" in envelope["error"]["remedy"]
    assert invoke("flash", "broken", "./robot").exit_code == 5  # unsigned
    assert current(folder / "robot") == "example"


@pytest.mark.parametrize(
    ("words", "status", "code"),
    [
        (("status", "./nothing"), 6, "no-agent"),
        (("rollback", "./nothing"), 6, "no-agent"),
        (("status", "-x@h"), 2, "usage"),
        (("status", "u@-h"), 2, "robot-invalid"),
        (("status", "./robot", "--root", "/opt"), 2, "robot-twice"),
        (("flash", "nothing", "./robot"), 2, "not-a-release"),
        (("status", "robot", "--ssh-config", "nothing"), 2, "no-ssh-config"),
    ],
)
def test_what_is_said_where_it_does_not_work(
    folder: Path, words: tuple[str, ...], status: int, code: str
) -> None:
    found, envelope = invoke_json(*words)
    assert (found, envelope["error"]["code"]) == (status, code)
    assert envelope["error"]["remedy"]


def test_ctrl_c(folder: Path) -> None:
    assert invoke("flash", "example", "./robot", UNSIGNED).exit_code == 0
    (folder / "robot" / "slow").write_text("30")
    process = subprocess.Popen(
        [*RUN, "flash", "second", "./robot", UNSIGNED],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "80"},
        # A suite in the background has Ctrl-C switched off, and its children with it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    for _ in range(600):
        if any(p.stat().st_size == 500_000 for p in folder.glob("robot/incoming/*.part")):
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "still runs example" in errors
    assert current(folder / "robot") == "example"
    (folder / "robot" / "slow").unlink()
    assert invoke("flash", "second", "./robot", UNSIGNED).exit_code == 0
    assert current(folder / "robot") == "second"


def test_a_stick(folder: Path) -> None:
    (folder / "stick").mkdir()
    result = invoke("flash", "example", "stick", "--stick", UNSIGNED)
    assert result.exit_code == 0
    assert "./libra-agent install example.libra --allow-unsigned" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert invoke_json("flash", "example", "stick", "--stick", UNSIGNED)[1]["result"][
        "condition"
    ] == ("already there")
