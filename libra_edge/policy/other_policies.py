"""Folders of other policies, named for what they are."""

from __future__ import annotations

import json
from pathlib import Path

from libra_edge.errors import InputError

_OTHER_POLICIES = {
    "act": "Action Chunking Transformer",
    "diffusion": "Diffusion Policy",
    "groot": "NVIDIA GR00T",
    "pi0": "π0",
    "pi0_fast": "π0-FAST",
    "pi05": "π0.5",
    "smolvla": "SmolVLA",
    "tdmpc": "TD-MPC",
    "vqbet": "VQ-BeT",
    "xvla": "X-VLA",
}


def other_policy(text: str, path: Path, own: str) -> InputError | None:
    """The error for a folder that holds a policy, but none that is compiled here.

    Args:
        text: of its `config.json`.
        path: of that file.
        own: the type that is compiled here.
    """
    try:
        content = json.loads(text)
    except ValueError:
        return None
    if not isinstance(content, dict):
        return None
    kind = content.get("type", content.get("model_type"))
    if not isinstance(kind, str) or kind == own:
        return None
    name = _OTHER_POLICIES.get(kind)
    whose = "a transformers model" if "type" not in content else "a LeRobot policy"
    return InputError(
        "checkpoint-other-policy",
        f"{path.parent} holds {whose} of the type {kind!r}" + (f" ({name})." if name else "."),
        f"Policies of the type {own!r} are compiled here: train one on the same dataset with "
        "`libra-edge train DATASET`, or run this one with the program that trained it.",
    )
