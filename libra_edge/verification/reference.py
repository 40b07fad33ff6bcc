"""The checkpoint in the program that trained it, as the first stage of the chain.

Whoever verifies names the interpreter; it runs a script of ours that imports nothing of Libra Edge,
in a process of its own, with the folder that the release was compiled from.
"""

from __future__ import annotations

import json
import subprocess
from importlib.resources import as_file, files
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from libra_edge.errors import InputError, NotMeasuredError
from libra_edge.policy.executor import Floats, Images, Instruction, Tokens
from libra_edge.policy.imported import Imported

_IMAGES, _STATE = "observation.images.", "observation.state"


class LeRobotEngines:
    """`Engines` over a child process that runs LeRobot on the folder; a context manager.

    Args:
        python: an interpreter with LeRobot.
        checkpoint: the folder, as we read it.
        vlm_config: the configuration of its vision-language model, where it was named.

    Raises:
        InputError: there is no such interpreter.
    """

    def __init__(self, python: Path, checkpoint: Imported, vlm_config: Path | None = None) -> None:
        self._contract, self._words = checkpoint.config, checkpoint.tokenizer
        beside: list[str] = []
        if self._words is not None:
            beside += ["--tokenizer", str(self._words.path.parent.resolve())]
        if vlm_config is not None:
            folder = vlm_config if vlm_config.is_dir() else vlm_config.parent
            beside += ["--vlm-config", str(folder.resolve())]
        script = files("libra_edge.policy.lerobot") / "answers.py"
        with as_file(script) as path:
            try:
                # As it is written: a virtual environment is known by the path it is called by.
                self._child = subprocess.Popen(
                    [str(python), str(path), str(checkpoint.path.resolve()), *beside],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                )
            except OSError as error:
                raise InputError(
                    "reference-python",
                    f"{python} cannot be started: {error.strerror}.",
                    "Name the interpreter of the environment that the policy was trained in.",
                ) from None

    def __enter__(self) -> LeRobotEngines:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        self._child.kill()
        self._child.communicate()

    def plan(
        self, images: Images, instruction: Instruction, state: Floats
    ) -> tuple[Tokens, Floats]:
        """Nothing: these policies have no planner."""
        return np.empty((0, 0), np.int32), np.empty((0, 0), np.float32)

    def refine(
        self,
        images: Images,
        state: Floats,
        intent: Tokens,
        noise: Floats,
        instruction: Instruction | None = None,
    ) -> Floats:
        """What LeRobot gives for the same observation and the same noise: [rows, D].

        Raises:
            NotMeasuredError: it ended without an answer.
        """
        arrays: dict[str, Any] = dict(self._pictures(images))
        arrays[_STATE] = state
        if noise.size:
            arrays["noise"] = noise
        if self._words is not None and instruction is not None:
            arrays["tokens"] = instruction
            arrays["seen"] = instruction != self._words.pad
        named = [(name, array.dtype.str, array.shape) for name, array in arrays.items()]
        request = {"call": "chunk", "task": "", "arrays": named}
        try:
            to = _open(self._child.stdin)
            to.write(json.dumps(request).encode() + b"\n")
            for array in arrays.values():
                to.write(np.ascontiguousarray(array).tobytes())
            to.flush()
            shape = json.loads(_open(self._child.stdout).readline())
            found = _open(self._child.stdout).read(4 * int(np.prod(shape)))
            return np.frombuffer(found, np.float32).reshape(shape)
        except (OSError, ValueError):
            self._child.kill()
            said = self._child.communicate()[1].decode(errors="replace").strip().splitlines()
            raise NotMeasuredError(
                "reference-crashed",
                f"LeRobot gave no answer: {said[-1] if said else 'it said nothing'}.",
                "Run the policy with that interpreter alone; the environment may lack a package.",
            ) from None

    def _pictures(self, images: Images) -> dict[str, Images]:
        """Each camera's, as the policy's feature: [h, w, 3], or [S, h, w, 3]."""
        robot, steps = self._contract.embodiment, self._contract.observation_steps
        flat, start, found = images.reshape(steps, -1), 0, {}
        for name, (height, width) in zip(robot.cameras, robot.sizes, strict=True):
            size = height * width * 3
            shape = (steps, height, width, 3) if steps > 1 else (height, width, 3)
            found[_IMAGES + name] = flat[:, start : start + size].reshape(shape)
            start += size
        return found


def _open(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise ValueError("the pipe is closed")
    return pipe
