"""The folders that LeRobot wrote, its answers to them, and copies that are broken in one place."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from libra_edge.data.lerobot.robot import RobotFile, write_robot
from libra_edge.parity.samples import Sample
from libra_edge.policy.config import Embodiment
from libra_edge.policy.family import ReadOptions
from libra_edge.policy.lerobot.pictures import flattened

CASES = Path(__file__).parent / "cases"
IMAGES = "observation.images."


@dataclass(frozen=True)
class Case:
    """A folder, the robot it was made for, and observations with LeRobot's actions [N, H, D]."""

    folder: Path
    robot: Embodiment
    tasks: list[str]
    samples: list[Sample]
    actions: Any
    path: Any
    span: Any

    @property
    def words(self) -> Path:
        """The tokenizer that the folder names."""
        return self.folder.parent / "tokenizer.json"

    @property
    def options(self) -> ReadOptions:
        """What the folder does not hold."""
        vlm = self.folder.parent / "vlm_config"
        return ReadOptions(
            self.robot,
            self.words if self.words.is_file() else None,
            vlm if vlm.is_dir() else None,
        )

    def flags(self, robot: Path) -> list[str]:
        """The same for the command line."""
        paths = {"robot": robot, "tokenizer": self.options.tokenizer}
        paths["vlm-config"] = self.options.vlm_config
        return [w for name, path in paths.items() if path for w in (f"--{name}", str(path))]


def robot_for(folder: Path) -> Embodiment:
    """A description that fits: limits somewhat beyond what the statistics say."""
    config = json.loads((folder / "config.json").read_text())
    inputs = config["input_features"]
    sizes = {
        name.removeprefix(IMAGES): tuple(one["shape"][1:])
        for name, one in inputs.items()
        if one["type"] == "VISUAL"
    }
    differ = len(set(sizes.values())) > 1
    dims = config["output_features"]["action"]["shape"][0]
    return Embodiment.model_validate(
        {
            "name": "arm",
            "control_hz": 30.0,
            "cameras": list(sizes),
            "image_height": max(height for height, _ in sizes.values()),
            "image_width": max(width for _, width in sizes.values()),
            "camera_sizes": list(sizes.values()) if differ else None,
            "state": [
                {"name": f"s{i}", "unit": "rad"}
                for i in range(inputs["observation.state"]["shape"][0])
            ],
            "actions": [
                {"name": f"a{i}", "unit": "rad", "kind": "absolute", "lower": -900, "upper": 900}
                for i in range(dims)
            ],
        }
    )


def case(name: str) -> Case:
    """One of the folders."""
    folder = CASES / name / "pretrained_model"
    known = np.load(CASES / name / "reference.npz")
    pictures = [known[key] for key in known.files if key.startswith("image.")]
    steps = known["state"].shape[1] if known["state"].ndim == 3 else 1
    samples = []
    for n, state in enumerate(known["state"]):
        seen = [torch.from_numpy(p[n]).reshape(steps, *p.shape[-3:]) for p in pictures]
        noise = known["noise"][n] if "noise" in known.files else np.empty(0, np.float32)
        images = flattened(seen, steps).numpy()
        samples.append(Sample(images, _words(known, n), state, noise, 0))
    actions = known["actions"]
    flat = actions.reshape(-1, actions.shape[-1])
    # A dimension whose statistics are constant hardly moves.
    span = np.maximum(flat.max(0) - flat.min(0), 1e-3)
    path = known["path"] if "path" in known.files else None
    tasks = [str(task) for task in known["task"]] if "tokens" in known.files else []
    return Case(folder, robot_for(folder), tasks, samples, actions, path, span)


def _words(known: Any, n: int) -> Any:
    """LeRobot's tokens, padded by what the model's tokenizer pads with."""
    if "tokens" not in known.files:
        return np.empty(0, np.int64)
    return known["tokens"][n].astype(np.int64)


def write_robot_file(robot: Embodiment, path: Path) -> Path:
    """The description as users write it."""
    path.write_text(write_robot(RobotFile(embodiment=robot)), encoding="utf-8")
    return path


def changed(folder: Path, out: Path, change: Callable[[Path], None]) -> Path:
    """A copy of a folder with a change."""
    shutil.copytree(folder, out)
    change(out)
    return out


def edit(name: str, **changes: Any) -> Callable[[Path], None]:
    """Other values at the top level of a JSON file; None stays null, `...` deletes."""

    def apply(folder: Path) -> None:
        body = json.loads((folder / name).read_text())
        body |= {key: value for key, value in changes.items() if value is not ...}
        for key in [key for key, value in changes.items() if value is ...]:
            del body[key]
        (folder / name).write_text(json.dumps(body))

    return apply


def edit_steps(name: str, change: Callable[[list[dict[str, Any]]], None]) -> Callable[[Path], None]:
    """Other processing steps."""

    def apply(folder: Path) -> None:
        body = json.loads((folder / name).read_text())
        change(body["steps"])
        (folder / name).write_text(json.dumps(body))

    return apply


def edit_tensors(
    pattern: str, change: Callable[[dict[str, torch.Tensor]], None]
) -> Callable[[Path], None]:
    """Other tensors in the one file that fits the pattern."""

    def apply(folder: Path) -> None:
        (file,) = folder.glob(pattern)
        tensors = load_file(file)
        change(tensors)
        save_file(tensors, file)

    return apply


def names() -> list[str]:
    """Every case that is here."""
    return sorted(path.name for path in CASES.iterdir() if path.is_dir())
