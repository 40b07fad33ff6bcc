"""Many releases at once: which pairs, how many at a time, and what becomes of each."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from libra_edge.bundle.signing.keys import generate_key
from libra_edge.catalog import load_recipe, load_target
from libra_edge.cli import app as program
from libra_edge.compiler import many
from libra_edge.errors import ExitCode, InputError
from tests.tiny import write_tiny_checkpoint

TARGETS = [load_target(name) for name in ("cpu-x86_64", "rtx4090", "jetson-agx-orin")]
RECIPES = [load_recipe(name) for name in ("fp32", "fp8")]
# Notes when it began and ended, then says what a compile would say.
JOB = """
import json, sys, time
begin = time.time()
time.sleep(0.3)
open(sys.argv[1], "w").write(json.dumps([begin, time.time()]))
if sys.argv[2] == "bad":
    print(json.dumps({"ok": False, "error": {"code": "parity-failed", "fact": "It differs."}}))
    sys.exit(3)
if sys.argv[2] == "crash":
    sys.exit(9)
print(json.dumps({"ok": True, "result": {"path": sys.argv[1]}}))
"""


def test_pairs_that_make_no_sense_say_why() -> None:
    found = {pair.name: pair.why_not for pair in many.pairs(TARGETS, RECIPES)}
    assert len(found) == 6
    assert found["rtx4090-fp8"] == found["cpu-x86_64-fp32"] == ""
    assert found["jetson-agx-orin-fp8"] == "jetson-agx-orin has no fp8"
    with pytest.raises(InputError, match="matrix-empty"):
        many.pairs(TARGETS[:1], RECIPES[1:])


@pytest.mark.parametrize(
    ("jobs", "budget", "expected"), [(4, 100, 3), (2, 100, 2), (4, 25, 2), (4, 5, 1)]
)
def test_as_many_run_as_fit(tmp_path: Path, jobs: int, budget: int, expected: int) -> None:
    wanted = many.pairs(TARGETS, RECIPES[:1])

    def command(pair: many.Pair) -> list[str]:
        return [sys.executable, "-c", JOB, str(tmp_path / pair.name), "ok"]

    most = 0

    def on_change(done: int, running: str) -> None:
        nonlocal most
        most = max(most, len(running.split(", ")) if running else 0)

    found = many.run(
        wanted, command, jobs=jobs, budget_bytes=budget, each_bytes=10, on_change=on_change
    )
    assert [outcome.status for outcome in found] == ["ok"] * 3
    assert most == expected


def test_one_that_fails_takes_no_other_down(tmp_path: Path) -> None:
    wanted = many.pairs(TARGETS, RECIPES)
    kinds = {"cpu-x86_64-fp32": "bad", "rtx4090-fp32": "crash"}

    def command(pair: many.Pair) -> list[str]:
        kind = kinds.get(pair.name, "ok")
        return [sys.executable, "-c", JOB, str(tmp_path / pair.name), kind]

    ended = 0

    def on_change(done: int, running: str) -> None:
        nonlocal ended
        ended += done

    found = {
        o.pair.name: o
        for o in many.run(
            wanted, command, jobs=8, budget_bytes=8, each_bytes=1, on_change=on_change
        )
    }
    assert ended == len(found) == 6
    assert found["cpu-x86_64-fp32"].status == "failed"
    assert found["cpu-x86_64-fp32"].why == "parity-failed: It differs."
    assert "status 9" in found["rtx4090-fp32"].why
    assert found["rtx4090-fp8"].status == "ok"
    assert found["rtx4090-fp8"].seconds > 0.2
    assert found["jetson-agx-orin-fp8"].status == "skipped"


def test_processes_are_ended_when_we_are(tmp_path: Path) -> None:
    def command(pair: many.Pair) -> list[str]:
        return [sys.executable, "-c", "import time; time.sleep(60)"]

    def stop(done: int, running: str) -> None:
        if running:
            raise KeyboardInterrupt

    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        many.run(
            many.pairs(TARGETS, RECIPES[:1]),
            command,
            jobs=3,
            budget_bytes=3,
            each_bytes=1,
            on_change=stop,
        )
    assert time.monotonic() - begin < 20


def test_command(tmp_path: Path) -> None:
    checkpoint = write_tiny_checkpoint(tmp_path / "checkpoint")
    words = ["compile", str(checkpoint), "--recipe", "fp32,fp8", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(program.app, [*words, "--cache", str(tmp_path / "c"), "--json"])
    assert result.exit_code == 0, result.stderr
    rows = json.loads(result.stdout)["result"]["releases"]
    assert [(row["recipe"], row["status"]) for row in rows] == [("fp32", "ok"), ("fp8", "skipped")]
    assert (tmp_path / "out/tiny-cpu-x86_64-fp32/manifest.json").is_file()
    again = CliRunner().invoke(program.app, [*words, "--form", "unrolled"])
    assert again.exit_code == int(ExitCode.FAILED), "the first release stands there"
    assert "destination-exists" in again.stdout


def test_every_option_reaches_every_compilation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of `compile`'s options, so that a new one cannot be forgotten."""
    monkeypatch.setenv("LIBRA_EDGE_TEST_PASSPHRASE", "open sesame")
    key = tmp_path / "robot.key"
    generate_key(key, b"open sesame")
    given = {
        "--name": "robot",
        "--data": "held-out",
        "--calibrate": "train",
        "--calibration-samples": "128",
        "--max-action-error": "1.5",
        "--gates": "gates.toml",
        "--form": "loop",
        "--engine": "onnxruntime",
        "--cache": "cache",
        "--robot": "robot.json",
        "--tokenizer": "tokenizer.json",
        "--vlm-config": "vlm",
        "--security-epoch": "3",
        "--sign": str(key),
        "--passphrase-env": "LIBRA_EDGE_TEST_PASSPHRASE",
    }
    flags = [
        "--auto-precision",
        "--allow-loose",
        "--engines-on-device",
        "--random-weights",
        "--force",
        "--strict",
    ]
    own = {"--target", "--recipe", "--out", "--jobs", "--memory-gib", "--ray", "--json", "--help"}
    command = program.load_command("compile")
    known = {option for p in command.params for option in p.opts if option.startswith("--")}
    assert known - own == {*given, *flags}
    seen: list[list[str]] = []

    def run(wanted: list[many.Pair], command: Any, **_: Any) -> list[many.Outcome]:
        seen.extend(command(pair) for pair in wanted)
        return []

    monkeypatch.setattr(many, "run", run)
    checkpoint = write_tiny_checkpoint(tmp_path / "checkpoint")
    words = [word for pair in given.items() for word in pair] + flags
    arguments = ["compile", str(checkpoint), "--target", "cpu-x86_64,rtx4090", "--recipe", "fp32"]
    result = CliRunner().invoke(program.app, [*arguments, *words])
    assert result.exit_code == ExitCode.OK, result.output
    assert len(seen) == 2
    for made in seen:
        handed_on = made[made.index("--json") + 1 :]
        assert sorted(handed_on) == sorted(words)
