"""What a configuration of pretrained parts may say, and how it is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from libra_edge.errors import InputError
from libra_edge.policy.checkpoint import outline
from libra_edge.policy.config import PolicyConfig, read_config
from tests.tiny import tiny_config

PAPER = Path(__file__).parents[4] / "examples/paper-size/config.json"
VISION, LANGUAGE = "planner.backbone.vision", "planner.backbone.language"
QWEN = {
    "kind": "qwen2_5_vl",
    "pictures": {"mean": [0.5] * 3, "std": [0.5] * 3},
    "vision": {"hidden_size": 32, "intermediate_size": 32, "depth": 2, "num_heads": 2},
    "language": {
        "model_type": "qwen2_5_vl_text",
        "vocab_size": 100_000,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "mrope_section": [1, 1, 2],
    },
    "prompt": {"before": [[1], [2], [3]], "between": [4], "after": [5], "pad": 0},
}


def written(path: Path, key: str, value: Any, content: dict[str, Any] | None = None) -> Path:
    """A configuration with one key changed."""
    content = content or json.loads(PAPER.read_text())
    *tables, last = key.split(".")
    table = content
    for name in tables:
        table = table[name]
    table[last] = value
    (path / "config.json").write_text(json.dumps(content))
    return path / "config.json"


@pytest.mark.parametrize(
    ("key", "value", "where"),
    [
        (f"{VISION}.num_attention_heads", 7, f"{VISION}: Value error, hidden_size 1024"),
        (f"{VISION}.patch_size", 15, f"{VISION}: Value error, image_size 448"),
        (f"{VISION}.image_size", 434, "planner.backbone: Value error, 31 patches"),
        (f"{VISION}.image_size", 10**9, f"{VISION}.image_size"),
        (f"{VISION}.norm_type", "none", f"{VISION}.norm_type"),
        (f"{LANGUAGE}.num_key_value_heads", 3, f"{LANGUAGE}: Value error, 16 heads"),
        (f"{LANGUAGE}.head_dim", 127, f"{LANGUAGE}: Value error, head_dim 127"),
        (f"{LANGUAGE}.vocab_size", 92_552, "planner.backbone: it has 92552 tokens"),
        (f"{LANGUAGE}.mrope_section", [1, 1, 2], f"{LANGUAGE}: Value error, mrope_section"),
        ("planner.backbone.prompt.pad", 92_553, "there is a token 92553"),
        ("planner.backbone.prompt.before", [[1]], "its prompt is for 1 cameras"),
        ("planner.backbone.min_tiles", 2, "min_tiles 2 is more than max_tiles 1"),
        ("planner.backbone.pictures.std", [0.0, 1.0, 1.0], "planner.backbone.pictures.std.0"),
        ("planner.backbone.kind", "another", "planner.backbone"),
        ("planner.head_heads", 7, "planner: width 1024 is not a multiple of 7 heads"),
        ("refiner.eyes.num_attention_heads", 7, "refiner.eyes: Value error, hidden_size 1152"),
        ("refiner.eyes.shortest_edge", 100, "shortest_edge 100 is less than image_size"),
        ("refiner.eyes.kind", "compact", "refiner.eyes.kind"),
        ("refiner.visual_encoder", False, "eyes are for a refiner with a visual_encoder"),
    ],
)
def test_a_wrong_value_is_refused_by_its_key(
    key: str, value: Any, where: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as caught:
        read_config(written(tmp_path, key, value))
    assert caught.value.code == "config-invalid"
    assert where in caught.value.fact


def test_an_unknown_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="config-unknown-key"):
        read_config(written(tmp_path, "planner.backbone.quantization_config", {}))


@pytest.mark.parametrize(
    ("changes", "size", "fact"),
    [
        ({}, (4_000, 4_001), "tokens, at most 16384 are taken"),
        ({}, (8, 1_601), "200 times the other"),
        ({"min_pixels": 2**26, "max_pixels": 2**26}, (8, 8), "at most 16384 are taken"),
        ({"max_pixels": 100, "min_pixels": 50}, (8, 8), "there is no size"),
    ],
)
def test_pictures_that_qwen_cannot_take(
    changes: dict[str, Any], size: tuple[int, int], fact: str, tmp_path: Path
) -> None:
    content = json.loads(PAPER.read_text())
    content["embodiment"] |= {"image_height": size[0], "image_width": size[1]}
    backbone = {**QWEN, "max_pixels": 2**26} | changes
    with pytest.raises(InputError) as caught:
        read_config(written(tmp_path, "planner.backbone", backbone, content))
    assert fact in caught.value.fact


def test_tiles_are_bounded_in_all(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="fewer tiles"):
        read_config(
            written(
                tmp_path,
                "planner.backbone",
                json.loads(PAPER.read_text())["planner"]["backbone"]
                | {"min_tiles": 60, "max_tiles": 64},
            )
        )


def test_what_came_later_is_left_out_where_it_is_not_used() -> None:
    content = json.loads(tiny_config().to_json())
    assert "head_width" not in content["planner"]
    assert "eyes" not in content["refiner"]
    assert PolicyConfig.model_validate(content) == tiny_config()


def test_the_file_holds_all_of_it() -> None:
    config = read_config(PAPER)
    assert PolicyConfig.model_validate_json(config.to_json()) == config
    assert config.to_json() == PAPER.read_text()


def test_without_transformers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    room = "libra_edge.policy.libra_vla.pretrained"
    for name in ("build", "internvl", "eyes"):
        monkeypatch.delitem(sys.modules, f"{room}.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match="extra-missing") as caught:
        outline(read_config(PAPER))
    assert "libra-edge[compile]" in caught.value.remedy
