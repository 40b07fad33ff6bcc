"""Folders of other policies, named for what they are."""

from __future__ import annotations

import json
from pathlib import Path

from libra_edge.errors import InputError

# Why a policy of another type is not compiled, where there is more to say than that.
_WHY = {
    "pi05": "its prompt holds the state, so its words change with every observation",
    "pi0_fast": "it writes actions token by token, with no bound on their number",
    "xvla": "its backbone, Florence-2, and its prompts for each robot are none that is compiled",
    "groot": "its backbone, Eagle, and its heads for each robot are none that is compiled",
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
    compiled = _compiled()
    whose = "a transformers model" if "type" not in content else "a LeRobot policy"
    fact = f"{path.parent} holds {whose} of the type {kind!r}"
    if kind in compiled:
        return InputError(
            "checkpoint-other-policy",
            f"{fact}, and this command is for policies of the type {own!r}.",
            "Compile it with `libra-edge compile … --robot FILE`; a release of it can be simulated "
            "and verified like any other.",
        )
    if kind in _WHY:
        fact += f": {_WHY[kind]}"
    return InputError(
        "checkpoint-other-policy",
        f"{fact}.",
        f"Policies of the types {', '.join([own, *compiled])} are compiled here: train one of them "
        f"on the same dataset (`libra-edge train DATASET` for {own}), or run this one with the "
        "program that trained it.",
    )


def _compiled() -> list[str]:
    """Types of the families there are, which are called as their folders."""
    return sorted(path.parent.name for path in Path(__file__).parent.glob("*/family.py"))
