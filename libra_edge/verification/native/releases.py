"""Probe releases: the native members and the contract of a release, around the probe graphs."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

from libra_edge.bundle.engine_facts import Engines, PlannerEngine, RefinerEngine, TensorSpec
from libra_edge.bundle.manifest import Parity, ParityCheck, ReleaseFacts
from libra_edge.bundle.members import MEMBERS
from libra_edge.bundle.pack import write_release
from libra_edge.bundle.verify import Release
from libra_edge.policy.config import Embodiment
from libra_edge.policy.tokenizer import word_tokenizer
from libra_edge.verification.native.graphs import (
    Signature,
    apart,
    planner_graph,
    refiner_graph,
    signatures,
)
from libra_edge.verification.native.probe import (
    NARROW,
    OWN,
    PLANNER_APART,
    WEIGHTS,
    WHOLE,
    WIDE,
    Contract,
    contract_of,
)

# Members of the release under test that go along as they are.
KEPT = ("lib/liblibra_edge.so", "lib/libonnxruntime.so", "include/libra_edge.h", "tokenizer.json")
# What a stand-in is told, for policies that take no words.
_WORDS = "open the left drawer, then close it"
# More would take longer to copy than all else; what a robot does is the same with fewer.
_MOST_IMAGE_BYTES = 64 * 1024


def contracts(facts: ReleaseFacts) -> dict[str, Contract]:
    """The release's own contract, one with all that a manifest may say, and the smallest."""
    own = contract_of(facts)
    length = own.instruction_length
    return {
        **_own(own),
        WIDE: Contract(wide_robot(), 7, 4, 3, length),
        NARROW: Contract(narrow_robot(), 2, 1, 1, length),
    }


def _own(own: Contract) -> dict[str, Contract]:
    """The release's contract; with large images once with small ones, and once as it is."""
    robot, found = own.embodiment, {OWN: own}
    if math.prod(own.image_shape) > _MOST_IMAGE_BYTES:
        small = {"image_height": 12, "image_width": 20}
        found = {
            OWN: dataclasses.replace(own, embodiment=robot.model_copy(update=small)),
            WHOLE: own,
        }
    return found


def wide_robot() -> Embodiment:
    """Every kind with every limit, more dimensions than a mask has bits, an odd control rate."""
    changes: tuple[dict[str, Any], ...] = (
        {},
        {"max_step_change": 0.25},
        {"max_acceleration": 0.125},
        {"max_step_change": 0.3, "max_acceleration": 0.1},
        {"max_step_change": 0.3, "max_acceleration": 0.1, "max_jerk": 0.03},
        {"max_jerk": 0.05},
    )
    kinds = [("delta", -0.5, 0.5), ("absolute", 0.1, 0.9), ("gripper", -1.0, 1.5)]
    kinds += [("absolute", -2.0, -0.25), ("delta", -0.1, 0.75)]
    actions: list[dict[str, Any]] = [
        {"kind": kind, "lower": low, "upper": high, **change}
        for kind, low, high in kinds
        for change in changes
    ]
    strict = {"on_limit": "fault"}
    actions += [
        {"kind": kind, "lower": low, "upper": high, **strict, **change}
        for kind, low, high in kinds[:3]
        for change in ({}, {"max_step_change": 2.5})
    ]
    actions += [
        {"kind": "absolute", "lower": -1.0 - d, "upper": 1.0 + d / 2}
        for d in range(66 - len(actions))
    ]
    names = [{"name": f"a{d}", "unit": "m"} for d in range(len(actions) + 1)]
    # What a state of the same name and unit measures; a delta or another unit is not.
    for p, d in enumerate((7, 9, 10, 0)):
        names[d] = {"name": f"s{p}", "unit": "rad"}
    names[11] = {"name": "s4", "unit": "m"}
    actions += [{"kind": "absolute", "lower": -1.0, "upper": 1.0, "max_step_change": 0.8, **strict}]
    return Embodiment.model_validate(
        {
            "name": "wide",
            "control_hz": 30.0,
            "cameras": ["left", "above", "right"],
            "image_height": 5,
            "image_width": 7,
            "state": [{"name": f"s{p}", "unit": "rad"} for p in range(5)],
            "actions": [{**name, **one} for name, one in zip(names, actions, strict=True)],
        }
    )


def narrow_robot() -> Embodiment:
    """One of everything."""
    return Embodiment.model_validate(
        {
            "name": "narrow",
            "control_hz": 0.5,
            "cameras": ["only"],
            "image_height": 1,
            "image_width": 1,
            "state": [{"name": "s", "unit": ""}],
            "actions": [
                {"name": "a", "unit": "m/s²", "kind": "gripper", "lower": 0.25, "upper": 1.0}
            ],
        }
    )


def probe_facts(facts: ReleaseFacts, contract: Contract, **changes: Any) -> ReleaseFacts:
    """What the manifest of a probe release says: a pass, and nothing of how it was compiled."""
    engines: dict[str, dict[str, Any]] = {
        name: {
            "kind": "onnxruntime",
            "provider": "CPUExecutionProvider",
            "session_options": {},
            "inputs": _specs(inputs),
            "outputs": _specs(outputs),
            "member": f"engines/{name}.onnx",
        }
        for name, (inputs, outputs) in signatures(contract).items()
    }
    told = facts.policy
    policy = told.model_copy(
        update={
            "bins": contract.bins,
            "chunk": contract.chunk,
            "chunks_per_plan": contract.chunks_per_plan,
            "plan_steps": contract.plan_steps,
            "instruction_length": contract.instruction_length,
            "predicted": None,
            "observation_steps": 1,
            "denoise_steps": max(told.denoise_steps, 1),
            "prediction_type": "sample" if told.denoise_steps == 0 else told.prediction_type,
            "scheduler": "ddim" if told.denoise_steps == 0 else told.scheduler,
        }
    )
    kept = ("target", "recipe", "runtime", "tools")
    content: dict[str, Any] = {
        **{name: getattr(facts, name) for name in kept},
        "name": "probe",
        "policy": policy,
        "embodiment": contract.embodiment,
        "engines": Engines(
            planner=PlannerEngine(**engines["planner"]),
            refiner=RefinerEngine(**engines["refiner"], form="loop"),
        ),
        "decisions": (),
        "parity": parity("pass"),
    }
    return ReleaseFacts(**content | changes)


def _specs(signature: Signature) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec.model_validate({"name": name, "dtype": dtype, "shape": shape})
        for name, (dtype, shape) in signature.items()
    )


def parity(verdict: str) -> Parity:
    """One check with this verdict, and so all of them."""
    threshold = None if verdict == "not measured" else 0.0
    check = {"stage": "probe", "metric": "none", "threshold": threshold, "verdict": verdict}
    return Parity.model_validate(
        {"verdict": verdict, "samples": 1, "checks": (ParityCheck.model_validate(check),)}
    )


def write_probe(release: Release, contract: Contract, out: Path) -> Path:
    """A probe release around the native members of another."""
    own = [name for name in KEPT if name in release.manifest.members]
    files: dict[str, Path | bytes] = {name: release.member(name) for name in own}
    files.setdefault("tokenizer.json", word_tokenizer([_WORDS]).to_str().encode())
    files["engines/planner.onnx"] = planner_graph(contract)
    files["engines/refiner.onnx"] = refiner_graph(contract)
    files |= {name: name.encode() for name in MEMBERS - files.keys()}
    write_release(out, probe_facts(release.manifest, contract), files)
    return out


def write_apart(contract: Contract, folder: Path) -> None:
    """A planner whose weights lie in the working directory, for a child that runs in `folder`."""
    graph, weights = apart(planner_graph(contract), WEIGHTS)
    (folder / PLANNER_APART).write_bytes(graph)
    (folder / WEIGHTS).write_bytes(weights)
