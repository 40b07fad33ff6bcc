"""The fault catalogue: what can go wrong between a policy and its release, one function each.

A fault harms the graphs, the members or the manifest of a good release; the release is then made
anew around them, with golden vectors from the faulty engines, so that hashes and golden vectors
agree with the fault and only the comparison with the checkpoint can tell.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import ModelProto

from libra_edge.bundle.manifest import Manifest
from tests.attacks.engines.runtime_faults import RUNTIME_FAULTS


@dataclass
class Case:
    """A release in the making.

    planner, refiner: the plain graphs, the refiner's as a Loop; other_planner, other_refiner: of
    a policy with other weights; facts: replaces fields of the manifest; members: replaces files;
    sources: text of the runtime's sources to replace, by file.
    """

    manifest: Manifest
    planner: ModelProto
    refiner: ModelProto
    other_planner: ModelProto
    other_refiner: ModelProto
    random: np.random.Generator
    facts: dict[str, Any] = field(default_factory=dict)
    members: dict[str, bytes] = field(default_factory=dict)
    sources: dict[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def cameras(self) -> int:
        return len(self.manifest.embodiment.cameras)

    @property
    def dims(self) -> int:
        return len(self.manifest.embodiment.actions)

    @property
    def chunk(self) -> int:
        return self.manifest.policy.chunk

    @property
    def both(self) -> tuple[ModelProto, ModelProto]:
        return self.planner, self.refiner


Fault = Callable[[Case], None]
FAULTS: dict[str, Fault] = {}
# Where bisecting must find a fault: graph, denoising step, and words of the culprit.
PLACES: dict[str, tuple[str, int | None, str]] = {
    "transposed weight": ("planner", None, "planner.backbone.blocks.0.attention.output"),
    "word embeddings of the next word": ("planner", None, "planner.backbone.words"),
    "bias of one logit": ("planner", None, "planner.output"),
    "zeroed attention head": ("refiner", None, "refiner.encoder.0.attention.output"),
    "scale off by two": ("refiner", 0, "refiner.blocks.0.mlp.0"),
    "layers of the denoiser swapped": ("refiner", 0, "refiner.blocks.0.mlp.0"),
    "one bit of one weight": ("refiner", 0, "refiner.blocks.1.mlp.2"),
    "modulation of another step": ("refiner", 0, "0/loop/row"),
    "a step is missing": ("refiner", None, "denoising steps, the policy takes"),
}


def fault(function: Fault) -> Fault:
    """Put a fault into the catalogue under its name."""
    FAULTS[function.__name__.replace("_", " ")] = function
    return function


# What the release says of itself.


@fault
def wider_limits_in_the_manifest(case: Case) -> None:
    body = case.manifest.embodiment
    wider = [
        dim.model_copy(update={"upper": dim.upper * 10, "lower": dim.lower * 10})
        for dim in body.actions
    ]
    case.facts["embodiment"] = body.model_copy(update={"actions": tuple(wider)})


@fault
def camera_names_swapped(case: Case) -> None:
    body = case.manifest.embodiment
    case.facts["embodiment"] = body.model_copy(update={"cameras": body.cameras[::-1]})


@fault
def chunks_and_steps_mixed_up(case: Case) -> None:
    policy = case.manifest.policy
    case.facts["policy"] = policy.model_copy(update={"bins": policy.bins + 1})


@fault
def vocabulary_in_another_order(case: Case) -> None:
    words = case.members["tokenizer.json"].decode()
    case.members["tokenizer.json"] = (
        words.replace("open", "\0").replace("close", "open").replace("\0", "close").encode()
    )


# The native runtime: its engines may be right and be used wrongly.


def _of_the_runtime(file: str, right: str, wrong: str) -> Fault:
    def apply(case: Case) -> None:
        case.sources[file] = (right, wrong)

    return apply


FAULTS |= {name: _of_the_runtime(*line) for name, line in RUNTIME_FAULTS.items()}
