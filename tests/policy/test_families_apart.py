"""No file outside a family's folder names it; what still does is listed, and may only go."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from libra_edge.policy.imported import families

ROOT = Path(__file__).parents[2]
POLICY = ROOT / "libra_edge/policy"
SOURCES = ("*.py", "*.cc", "*.h", "*.j2", "*.toml")
# Words of the language, and of calls: these families are told apart by their modules' names alone.
PLAIN_WORDS = {"act", "diffusion"}
# What LeRobot's families share, and the script that asks LeRobot itself.
SHARED = POLICY / "lerobot"
# The family that was there before there were families: what still knows it by name.
OWN = "libra_vla"
STILL = {
    *("compiler/engines/large_policy.py", "compiler/graphs/make_graphs.py"),
    *("compiler/quantization/assign.py", "compiler/quantization/calibrate.py"),
    *("compiler/quantization/convert.py", "compiler/quantization/fp16.py"),
    *("compiler/quantization/image_stem.py", "compiler/quantization/unbatched_blocks.py"),
    *("compiler/search/layer_costs.py", "compiler/search/sensitivity.py"),
    "compiler/search/simulation.py",
    *("compiler/work/count.py", "evaluation/torch_controller.py"),
    *("policy/checkpoint.py", "policy/config.py", "policy/imported.py"),
    *("training/losses.py", "training/pretrained.py", "training/run.py", "training/trainer.py"),
    "verification/details/denoising.py",
}


def sources() -> Iterator[Path]:
    for folder in ("libra_edge", "cli", "targets", "calibration"):
        for pattern in SOURCES:
            yield from sorted((ROOT / folder).rglob(pattern))


def outside(name: str) -> Iterator[tuple[Path, str]]:
    for path in sources():
        if POLICY / name not in path.parents and SHARED not in path.parents:
            yield path, path.read_text("utf-8")


def modules(path: Path, text: str) -> set[str]:
    """Every module that a file imports, and the texts that could name one."""
    if path.suffix != ".py":
        return set()
    found: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
    return found


@pytest.mark.parametrize("name", [family.name for family in families()])
def test_no_other_file_names_a_family(name: str) -> None:
    path = f"libra_edge.policy.{name}"
    word = re.compile(rf"(?<![a-z0-9_]){name}(?![a-z0-9_])", re.IGNORECASE)
    wrong = {
        str(file.relative_to(ROOT))
        for file, text in outside(name)
        if any(f"{module}.".startswith(f"{path}.") for module in modules(file, text))
        or (name not in PLAIN_WORDS and word.search(text))
    }
    assert not wrong


def test_every_folder_with_a_family_is_found() -> None:
    folders = {path.parent.name for path in POLICY.glob("*/family.py")}
    assert {family.name for family in families()} == folders
    assert {"act", "diffusion", "pi0", "smolvla"} <= folders


def test_what_knows_our_own_family_only_shrinks() -> None:
    naming = {
        str(file.relative_to(ROOT / "libra_edge"))
        for file, text in outside(OWN)
        if file.suffix == ".py" and re.search(r"policy\.libra_vla|LibraVLA|\"libra_vla\"", text)
    }
    assert naming == STILL, "more than there were, or fewer: then take it off the list"


def test_kinds_of_pretrained_models_are_known_in_their_room_alone() -> None:
    room = POLICY / OWN / "pretrained"
    kinds = re.compile(r"internvl|qwen2_5_vl|siglip|dinov2", re.IGNORECASE)
    told = {
        str(file.relative_to(ROOT))
        for file in sources()
        if room not in file.parents and kinds.search(file.read_text("utf-8"))
    }
    # The families from LeRobot have a tower of their own; people are told in the command's help.
    assert {path for path in told if not path.startswith("libra_edge/policy/")} == {"cli/train.py"}
