"""`libra-edge compile` and the benchmark, as a user runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from libra_edge.cli import app as program
from libra_edge.compiler.pipeline import Compiled
from libra_edge.errors import ExitCode

ROOT = Path(__file__).parents[2]


def test_compile_prints_parity_with_speed(
    compiled: Compiled, work: Path, checkpoint: Path, tmp_path: Path
) -> None:
    words = ["compile", str(checkpoint), "--out", str(tmp_path / "out"), "--name", "tiny-demo"]
    result = CliRunner().invoke(program.app, [*words, "--cache", str(work / "cache")])
    assert result.exit_code == 0, result.stderr
    for stage in ("exported", "fused", "engine", "C ABI"):
        assert stage in result.stdout
    assert result.stdout.index("verdict") < result.stdout.index("speed")
    assert "refiner form: " in result.stdout
    last = result.stdout.splitlines()[-1]
    assert last.startswith("ok: ")
    assert compiled.manifest.release_id[:12] in last
    assert f"next: libra-edge simulate {tmp_path / 'out'}" in result.stderr.replace("\n", "")


def test_compile_json(work: Path, checkpoint: Path, tmp_path: Path) -> None:
    words = ["compile", str(checkpoint), "-o", str(tmp_path / "out"), "--form", "loop", "--json"]
    result = CliRunner().invoke(program.app, [*words, "--cache", str(work / "cache")])
    assert result.exit_code == 0, result.stderr
    body = json.loads(result.stdout)["result"]
    assert body["manifest"]["engines"]["refiner"]["form"] == "loop"
    assert {check["verdict"] for check in body["checks"]} == {"pass"}
    assert "loop" in body["medians_ms"]
    assert "unrolled" not in body["medians_ms"]


def test_loose_gates_are_refused_or_shown(work: Path, checkpoint: Path, tmp_path: Path) -> None:
    gates = tmp_path / "gates.toml"
    gates.write_text("[gates]\ntokens = 0.5\n")
    words = ["compile", str(checkpoint), "-o", str(tmp_path / "out"), "--gates", str(gates)]
    words += ["--cache", str(work / "cache")]
    refused = CliRunner().invoke(program.app, words)
    assert refused.exit_code == int(ExitCode.USAGE)
    assert "gates-loose" in refused.stderr
    taken = CliRunner().invoke(program.app, [*words, "--allow-loose"])
    assert taken.exit_code == 0, taken.stderr
    assert "gate of this release: tokens 0.5, the recipe's is 0.999 (LOOSE)" in taken.stdout


@pytest.mark.parametrize(
    ("extra", "code"),
    [
        (["--target", "cpu-x86_46"], "unknown-target"),
        (["--gates", "nowhere.toml"], "gates-unreadable"),
        (["--recipe", "int9"], "unknown-recipe"),
        (["--data", "nowhere"], "dataset-missing"),
        (["--form", "scan"], "usage"),
    ],
)
def test_a_request_that_does_not_fit_exits_2(
    checkpoint: Path, tmp_path: Path, extra: list[str], code: str
) -> None:
    words = ["compile", str(checkpoint), "--out", str(tmp_path / "out"), "--json", *extra]
    result = CliRunner().invoke(program.app, [*words, "--cache", str(tmp_path / "cache")])
    assert result.exit_code == 2
    assert json.loads(result.stdout)["error"]["code"] == code
    assert not (tmp_path / "out").exists()


def test_benchmark_writes_parity_beside_every_figure(checkpoint: Path, tmp_path: Path) -> None:
    command = [sys.executable, "benchmarks/refiner.py", checkpoint, "--budget-s", "0"]
    result = subprocess.run(
        [*command, "--out", tmp_path / "page.md"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode in (0, 1), result.stderr
    page = (tmp_path / "page.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("|")][2:]
    assert len(rows) == 5
    assert all("of range" in row or "tokens differ" in row for row in rows)
    assert page.count("met: parity of") == 5
    assert "missed**: parity" not in page
    assert str(tmp_path) not in page


def test_nothing_but_progress_is_said(checkpoint: Path, tmp_path: Path) -> None:
    words = ["compile", checkpoint, "--out", "out", "--cache", "cache", "--json"]
    result = subprocess.run(
        [sys.executable, "-c", "from libra_edge.cli.app import main; main()", *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(result.stdout)["ok"]
    assert all(line.startswith(("compile: ", "next: ")) for line in result.stderr.splitlines())
