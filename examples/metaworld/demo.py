"""`make demo`: compile the shipped checkpoint for this machine and run the release.

Runs the commands a user would run and shows each one. Without a software renderer the closed
loop is replaced by recorded observations, and says so.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

from libra_edge.data.simulator import open_simulator
from libra_edge.errors import LibraError

HERE = Path(__file__).resolve().parent
RELEASE = "out/metaworld-demo"
EPISODES_PER_TASK = 2


def show(title: str) -> None:
    """Print a heading."""
    print(f"\n== {title}", flush=True)


def libra_edge(*arguments: str) -> None:
    """Run one command, visibly; leave with its status if it fails."""
    print(f"$ libra-edge {shlex.join(arguments)}", flush=True)
    status = subprocess.run([sys.executable, "-m", "libra_edge.cli", *arguments]).returncode
    if status:
        sys.exit(status)


def missing_renderer() -> LibraError | None:
    """Why the simulator cannot draw here, or None where it can."""
    try:
        simulator = open_simulator("metaworld", "eval")
        simulator.reset(simulator.tasks[0], seed=0)
        simulator.close()
    except LibraError as error:
        return error
    return None


def main() -> None:
    """Compile, prove, run."""
    shown = HERE.relative_to(Path.cwd()) if HERE.is_relative_to(Path.cwd()) else HERE
    checkpoint, heldout = str(shown / "checkpoint"), str(shown / "heldout")
    training = str(shown / "training")
    show("Compile a trained checkpoint into a release")
    libra_edge("compile", checkpoint, "--data", heldout, "--out", RELEASE, "--force")
    show("Run the release through its C runtime")
    reason = missing_renderer()
    if reason is None:
        libra_edge("simulate", RELEASE, "--mode", "async", "--episodes", str(EPISODES_PER_TASK))
    else:
        print(f"The simulator cannot draw on this machine: {reason.fact}")
        print(f"To see the robot move: {reason.remedy}")
        print("Instead, the release is shown recorded observations. This is not a closed loop.")
        libra_edge("simulate", RELEASE, "--replay", heldout)
    show("What you have")
    print(f"The release:          {RELEASE}")
    follow = {
        "What is in it:": ("inspect", RELEASE),
        "Is it the policy?": ("verify", RELEASE, "--checkpoint", checkpoint, "--data", heldout),
        "As one file:": ("pack", RELEASE),
        "In 8-bit integers:": (
            *("compile", checkpoint, "--data", heldout, "--recipe", "int8"),
            *("--calibrate", training, "--out", f"{RELEASE}-int8", "--force"),
        ),
    }
    for title, words in follow.items():
        print(f"{title:22}{shlex.join(['libra-edge', *words])}")
    print("(activate the environment first: source .venv/bin/activate)")


if __name__ == "__main__":
    main()
