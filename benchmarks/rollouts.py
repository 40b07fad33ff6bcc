"""A policy that LeRobot trained: LeRobot's own rollout and our release on the same episodes.

    python benchmarks/rollouts.py --python PYTHON --policy FOLDER --release RELEASE --task NAME …

PYTHON is the interpreter of an environment with LeRobot. Both get the same scenes, the same
pictures and, where the policy draws noise, the same noise. Appends a table to
docs/measurements/lerobot.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from libra_edge.bundle.time_structure import contract_of
from libra_edge.bundle.verify import verify_integrity
from libra_edge.data.simulator import open_simulator
from libra_edge.data.types import Observation
from libra_edge.evaluation import closed_loop
from libra_edge.evaluation.closed_loop import EpisodeSpec
from libra_edge.policy.execution.noise import chunk_noise

ROOT = Path(__file__).resolve().parents[1]
CHILD = ROOT / "libra_edge/policy/lerobot/answers.py"


class LeRobotController:
    """`Controller` over a child process that runs LeRobot.

    Args:
        python: its interpreter.
        folder: the policy.
        release: ours of the same, for names, limits and the shape of the noise.
    """

    def __init__(self, python: Path, folder: Path, release: Path) -> None:
        manifest = verify_integrity(release)
        self._contract, self._robot = contract_of(manifest), manifest.embodiment
        # Not through a link: a virtual environment is known by the path that it is called by.
        self._child = subprocess.Popen(
            [str(python), str(CHILD), str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def close(self) -> None:
        """End the child."""
        self._child.communicate(timeout=60)

    def reset(self, seed: int, instruction: str) -> None:
        """Start an episode."""
        self._seed, self._step = seed, 0
        self._send({"call": "reset"})

    def act(self, observation: Observation) -> Any:
        """One control step, within the robot's limits as the runtime keeps them."""
        arrays: dict[str, Any] = {
            f"observation.images.{name}": image
            for name, image in zip(self._robot.cameras, observation.images, strict=True)
        }
        arrays["observation.state"] = observation.state
        if self._contract.noise_shape[0]:
            chunk = self._step // self._contract.chunk
            arrays["noise"] = chunk_noise(self._seed, chunk, self._contract.noise_shape)
        named = [(name, array.dtype.str, array.shape) for name, array in arrays.items()]
        self._send({"call": "act", "task": observation.instruction, "arrays": named})
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        for array in arrays.values():
            self._child.stdin.write(np.ascontiguousarray(array).tobytes())
        self._child.stdin.flush()
        dims = self._robot.actions
        self._child.stdout.readline()
        action = np.frombuffer(self._child.stdout.read(4 * len(dims)), np.float32)
        self._step += 1
        limits = ([d.lower for d in dims], [d.upper for d in dims])
        return np.clip(action, *limits).astype(np.float32)

    def _send(self, request: dict[str, Any]) -> None:
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps(request).encode() + b"\n")
        self._child.stdin.flush()


def main() -> int:
    """Run both and append the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", type=Path, required=True)
    parser.add_argument("--policy", type=Path, required=True)
    parser.add_argument("--release", type=Path, required=True)
    parser.add_argument("--task", action="append", required=True)
    parser.add_argument("--episodes", type=int, default=25, help="of each task")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/measurements/lerobot.md")
    arguments = parser.parse_args()
    specs = [
        EpisodeSpec(task, seed) for task in arguments.task for seed in range(arguments.episodes)
    ]
    simulator = partial(open_simulator, "metaworld", "eval")
    theirs = closed_loop.run(
        partial(LeRobotController, arguments.python, arguments.policy, arguments.release),
        simulator,
        specs,
    )
    ours = closed_loop.run(
        partial(closed_loop.open_controller, arguments.release, False), simulator, specs
    )
    kind = verify_integrity(arguments.release).policy.type
    lines = [
        "",
        f"### {kind}",
        "",
        "| task | LeRobot | release | both | only LeRobot | only release |",
    ]
    lines += ["|---|---:|---:|---:|---:|---:|"]
    for task in (*arguments.task, "all"):
        pairs = [
            (a.success, b.success)
            for a, b in zip(theirs, ours, strict=True)
            if task in (a.task, "all")
        ]
        counts = (
            sum(a for a, _ in pairs),
            sum(b for _, b in pairs),
            sum(a and b for a, b in pairs),
            sum(a and not b for a, b in pairs),
            sum(b and not a for a, b in pairs),
        )
        lines.append(f"| {task} of {len(pairs)} | " + " | ".join(map(str, counts)) + " |")
    same = sum(
        (a.success, a.steps) == (b.success, b.steps) for a, b in zip(theirs, ours, strict=True)
    )
    lines += ["", f"{same} of {len(specs)} episodes end in the same control step.", ""]
    with arguments.out.open("a", encoding="utf-8") as page:
        page.write("\n".join(lines))
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
