"""Compile a checkpoint, check the release against it, and let it act on one observation."""

import sys

import numpy as np

from libra_edge import Policy, compile_checkpoint, open_release, verify_release


def main(checkpoint: str, out: str) -> None:
    """Make a release at `out`, prove it, and print the first action."""
    compiled = compile_checkpoint(checkpoint, out=out)
    verified = verify_release(compiled.path, checkpoint, samples=16)
    if verified.exit_code != 0:
        sys.exit("the release is not the policy: " + ", ".join(c.stage for c in verified.checks))
    robot = open_release(out).manifest.embodiment
    with Policy(out) as policy:
        policy.set_instruction(np.zeros(policy.info.instruction_length, np.int64))
        policy.observe(
            np.zeros((len(robot.cameras), robot.image_height, robot.image_width, 3), np.uint8),
            np.zeros(len(robot.state), np.float32),
        )
        action, info = policy.step()
    for dim, value in zip(robot.actions, action, strict=True):
        print(f"{dim.name}: {value:.3f} {dim.unit}")
    print(f"step {info.step}: {info.state.name}")


if __name__ == "__main__":
    main(*sys.argv[1:])
