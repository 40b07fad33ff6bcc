"""Compiles the demo policy's architecture with another M and random weights, to measure speed.

    python benchmarks/random_release.py CHUNKS_PER_PLAN OUT

Its actions mean nothing; its engines are those of a policy of this size.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from libra_edge.policy.checkpoint import build_policy, save_checkpoint
from libra_edge.policy.config import read_config

ROOT = Path(__file__).resolve().parents[1]
CHECKPOINT = ROOT / "examples/metaworld/checkpoint"


def write_checkpoint(chunks_per_plan: int, path: Path) -> None:
    """The demo checkpoint's configuration and statistics, M changed, weights drawn."""
    torch.manual_seed(0)
    config = read_config(CHECKPOINT / "config.json")
    config = config.model_copy(update={"chunks_per_plan": chunks_per_plan})
    statistics = json.loads((CHECKPOINT / "stats.json").read_text("utf-8"))
    policy = build_policy(config, statistics)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    save_checkpoint(path, policy, statistics, (CHECKPOINT / "tokenizer.json").read_text("utf-8"))


def main() -> int:
    """Draw the weights and run `libra-edge compile`."""
    chunks_per_plan, out = int(sys.argv[1]), Path(sys.argv[2])
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "checkpoint"
        write_checkpoint(chunks_per_plan, checkpoint)
        command = [sys.executable, "-m", "libra_edge.cli", "compile", str(checkpoint)]
        command += ["--data", str(ROOT / "examples/metaworld/heldout"), "--out", str(out)]
        return subprocess.run([*command, "--force"]).returncode


if __name__ == "__main__":
    sys.exit(main())
