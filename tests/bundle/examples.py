"""A small release with made-up members: the bundle never looks inside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from libra_edge.bundle.manifest import ReleaseFacts
from libra_edge.bundle.members import MEMBERS
from libra_edge.bundle.pack import write_release


def facts_body(name: str = "example") -> dict[str, Any]:
    """The JSON form of a manifest's facts, consistent in itself."""

    def tensor(name: str, dtype: str, *shape: int) -> dict[str, Any]:
        return {"name": name, "dtype": dtype, "shape": list(shape)}

    images, state = tensor("images", "uint8", 1, 8, 8, 3), tensor("state", "float32", 2)
    engine = {
        "kind": "onnxruntime",
        "provider": "CPUExecutionProvider",
        "session_options": {"session.intra_op.allow_spinning": "0"},
    }
    return {
        "schema_version": 1,
        "name": name,
        "policy": {
            "type": "libra_vla",
            "checkpoint_sha256": "ab" * 32,
            "bins": 10,
            "chunk": 2,
            "chunks_per_plan": 3,
            "plan_steps": 6,
            "denoise_steps": 4,
            "prediction_type": "sample",
            "scheduler": "ddim",
            "instruction_length": 5,
        },
        "embodiment": {
            "name": "arm",
            "control_hz": 80.0,
            "cameras": ["front"],
            "image_height": 8,
            "image_width": 8,
            "state": [{"name": "x", "unit": "m"}, {"name": "grip", "unit": "1"}],
            "actions": [
                {"name": "x", "unit": "m", "kind": "delta", "lower": -1.0, "upper": 1.0},
            ],
        },
        "target": "cpu-x86_64",
        "recipe": "fp32",
        "engines": {
            "planner": {
                **engine,
                "member": "engines/planner.onnx",
                "inputs": [images, tensor("instruction", "int64", 5), state],
                "outputs": [tensor("intent", "int32", 6, 1), tensor("margin", "float32", 6, 1)],
            },
            "refiner": {
                **engine,
                "member": "engines/refiner.onnx",
                "form": "loop",
                "inputs": [images, state, tensor("intent", "int32", 2, 1)],
                "outputs": [tensor("actions", "float32", 2, 1)],
            },
        },
        "runtime": {
            "abi_version": 1,
            "arch": "x86_64-linux-gnu",
            "glibc": "2.35",
            "onnxruntime_version": "1.31.1",
        },
        "decisions": [
            {"stage": "fuse", "subject": "refiner", "choice": "loop", "reason": "faster × 1.2"}
        ],
        "parity": {
            "verdict": "pass",
            "samples": 8,
            "checks": [
                {"stage": "fuse", "metric": "actions", "threshold": 1e-4, "verdict": "pass"}
            ],
        },
        "tools": {"torch": "2.13.0"},
    }


def runnable_body(name: str = "example") -> dict[str, Any]:
    """The same of a policy that the C runtime runs too, so that the agent installs it."""
    body = facts_body(name)
    noise = {"name": "noise", "dtype": "float32", "shape": [2, 1]}
    body["engines"]["refiner"]["inputs"].append(noise)
    return body


def facts(name: str = "example") -> ReleaseFacts:
    return ReleaseFacts.model_validate(facts_body(name))


def files() -> dict[str, bytes]:
    """Members of every size class around the container's 512-byte blocks."""
    sizes = (0, 1, 511, 512, 513, 1024, 5000)
    return {
        name: bytes([index + 1]) * sizes[index % len(sizes)]
        for index, name in enumerate(sorted(MEMBERS))
    }


def make_release(folder: Path, name: str = "example") -> Path:
    write_release(folder / name, facts(name), files())
    return folder / name
