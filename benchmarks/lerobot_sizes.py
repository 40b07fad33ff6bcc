"""Folders of SmolVLA and pi0 at their real sizes, with random weights.

    python benchmarks/lerobot_sizes.py smolvla|pi0 DATASET OUT

Writes OUT/pretrained_model, OUT/vlm_config and OUT/tokenizer.json: what `libra-edge compile` asks
for, for the robot of a dataset that `libra-edge collect` wrote. Words are those of the small cases
in the tests; widths and depths are those of SmolVLM2-500M (16 of its 32 layers) and its expert, and
of PaliGemma-3B and pi0's. Weights are stored in 32 bits for SmolVLA and in 16 for pi0.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from libra_edge.data.lerobot.robot import read_robot  # noqa: E402
from libra_edge.data.lerobot_writer import EXTRA_PATH  # noqa: E402
from libra_edge.policy.config import Embodiment  # noqa: E402
from libra_edge.policy.lerobot.folder import IMAGES  # noqa: E402
from tests.policy.lerobot_cases import CASES  # noqa: E402

# Sizes by what they are in the small cases; layers are repeated until there are enough.
SMOLVLA: dict[str, Any] = {
    "text": {"width": 960, "feedforward": 2560, "heads": 15, "groups": 5, "head": 64, "layers": 16},
    "expert": {"width": 720, "feedforward": 2048},
    "eyes": {"width": 768, "feedforward": 3072, "heads": 12, "layers": 12, "patch": 16},
    "image": 512,
    "vocabulary": 49280,
    "rows": 50,
    "length": 48,
    "scale": 4,
}
PI0: dict[str, Any] = {
    "text": {
        "width": 2048,
        "feedforward": 16384,
        "heads": 8,
        "groups": 1,
        "head": 256,
        "layers": 18,
    },
    "expert": {"width": 1024, "feedforward": 4096},
    "eyes": {"width": 1152, "feedforward": 4304, "heads": 16, "layers": 27, "patch": 14},
    "image": 224,
    "vocabulary": 257152,
    "rows": 50,
    "length": 48,
    "scale": 1,
}
SIZES = {"smolvla": SMOLVLA, "pi0": PI0}


def main() -> None:
    """See the module."""
    kind, data, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    case, sizes = CASES / kind, SIZES[kind]
    folder = out / "pretrained_model"
    shutil.copytree(case / "pretrained_model", folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(case / name, out / name)
    _write_config(folder, sizes, read_robot(data / EXTRA_PATH).embodiment)
    _write_statistics(folder, json.loads((data / "meta/stats.json").read_text()))
    _write_model_config(case, out, sizes)
    shapes = _shapes(case / "pretrained_model/model.safetensors", _renamed(kind, sizes), sizes)
    total = sum(int(np.prod(shape)) for shape in shapes.values())
    print(f"{kind}: {total / 1e6:.1f} M numbers in {len(shapes)} tensors")
    _write_weights(folder, shapes, torch.float32 if kind == "smolvla" else torch.bfloat16)


def _write_config(folder: Path, sizes: dict[str, Any], robot: Embodiment) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    pairs = zip(robot.cameras, robot.sizes, strict=True)
    cameras = {f"{IMAGES}{name}": {"type": "VISUAL", "shape": [3, *size]} for name, size in pairs}
    state = {"observation.state": {"type": "STATE", "shape": [len(robot.state)]}}
    config["input_features"] = cameras | state
    config["output_features"]["action"]["shape"] = [len(robot.actions)]
    image, rows = sizes["image"], sizes["rows"]
    config |= {"chunk_size": rows, "n_action_steps": rows, "tokenizer_max_length": sizes["length"]}
    if "image_resolution" in config:
        config["image_resolution"] = [image, image]
    else:
        config |= {
            "resize_imgs_with_padding": [image, image],
            "num_vlm_layers": sizes["text"]["layers"],
        }
    path.write_text(json.dumps(config, indent=2))
    steps = folder / "policy_preprocessor.json"
    body = json.loads(steps.read_text())
    for step in body["steps"]:
        if step["registry_name"] == "tokenizer_processor":
            step["config"]["max_length"] = sizes["length"]
    steps.write_text(json.dumps(body, indent=2))


def _write_statistics(folder: Path, known: dict[str, dict[str, Any]]) -> None:
    """The dataset's, for both processors."""
    tensors = {
        f"{feature}.{name}": torch.tensor(known[feature][name], dtype=torch.float32)
        for feature in ("observation.state", "action")
        for name in ("mean", "std", "min", "max")
    }
    for file in folder.glob("policy_*.safetensors"):
        save_file(tensors, file)


def _write_model_config(case: Path, out: Path, sizes: dict[str, Any]) -> None:
    config = json.loads((case / "vlm_config/config.json").read_text())
    text, eyes = sizes["text"], sizes["eyes"]
    config["text_config"] |= {
        "hidden_size": text["width"],
        "intermediate_size": text["feedforward"],
        "num_attention_heads": text["heads"],
        "num_key_value_heads": text["groups"],
        "head_dim": text["head"],
        "num_hidden_layers": text["layers"],
        "vocab_size": sizes["vocabulary"],
    }
    config["vision_config"] |= {
        "hidden_size": eyes["width"],
        "intermediate_size": eyes["feedforward"],
        "num_attention_heads": eyes["heads"],
        "num_hidden_layers": eyes["layers"],
        "patch_size": eyes["patch"],
        "image_size": sizes["image"],
    }
    (out / "vlm_config").mkdir()
    (out / "vlm_config/config.json").write_text(json.dumps(config, indent=2))


def _renamed(kind: str, sizes: dict[str, Any]) -> dict[str, tuple[dict[str, Any], int]]:
    """Which model a tensor belongs to, by a part of its name, and how many layers it has."""
    deep = sizes["text"]["layers"]
    expert = sizes["text"] | sizes["expert"]
    eyes = sizes["eyes"] | {"groups": sizes["eyes"]["heads"]}
    eyes["head"] = eyes["width"] // eyes["heads"]
    beside = "lm_expert" if kind == "smolvla" else "gemma_expert"
    return {
        beside: (expert, deep),
        "vision": (eyes, sizes["eyes"]["layers"]),
        "": (sizes["text"], deep),
    }


def _shapes(
    file: Path, models: dict[str, tuple[dict[str, Any], int]], sizes: dict[str, Any]
) -> dict[str, tuple[int, ...]]:
    """Every tensor of the real model, from the names of the small one."""
    found: dict[str, tuple[int, ...]] = {}
    with safe_open(file, framework="pt") as reader:
        small = {name: tuple(reader.get_slice(name).get_shape()) for name in reader.keys()}  # noqa: SIM118
    for name, shape in small.items():
        model, layers = next(one for part, one in models.items() if part in name)
        real = _real(name, shape, model, models, sizes)
        match = re.fullmatch(r"(.*layers\.)(\d+)(\..*)", name)
        if match is None:
            found[name] = real
            continue
        # Every second layer of SmolVLA's expert reads the language model.
        period = 2 if "lm_expert" in name else 1
        for number in range(int(match[2]) % period, layers, period):
            found[f"{match[1]}{number}{match[3]}"] = real
    return found


def _real(
    name: str,
    shape: tuple[int, ...],
    model: dict[str, Any],
    models: dict[str, tuple[dict[str, Any], int]],
    sizes: dict[str, Any],
) -> tuple[int, ...]:
    width, inside = model["width"], model["feedforward"]
    queries, keys = model["heads"] * model["head"], model["groups"] * model["head"]
    expert = next(iter(models.values()))[0]["width"]
    text = sizes["text"]["width"]
    if "layers." in name and ("k_proj" in name or "v_proj" in name) and len(shape) == 2:
        # What the expert reads of the language model has as many rows as columns in the small one.
        return keys, keys if "lm_expert" in name and shape[0] == shape[1] else width
    by_part: list[tuple[str, tuple[int, ...]]] = [
        ("q_proj.weight", (queries, width)),
        ("q_proj.bias", (queries,)),
        ("k_proj.bias", (keys,)),
        ("v_proj.bias", (keys,)),
        ("o_proj.weight", (width, queries)),
        ("out_proj.weight", (width, queries))
        if "vision" in name
        else ("gate_proj", (inside, width)),
        ("out_proj.bias", (width,)) if "vision" in name else ("up_proj", (inside, width)),
        ("gate_proj", (inside, width)),
        ("up_proj", (inside, width)),
        ("down_proj", (width, inside)),
        ("fc1.weight", (inside, width)),
        ("fc1.bias", (inside,)),
        ("fc2.weight", (width, inside)),
        ("fc2.bias", (width,)),
        ("patch_embedding.weight", (width, 3, *([sizes["eyes"]["patch"]] * 2))),
        ("patch_embedding.bias", (width,)),
        ("position_embedding", ((sizes["image"] // sizes["eyes"]["patch"]) ** 2, width)),
        ("norm", (width,)),
        ("embed_tokens", (sizes["vocabulary"], width)),
        ("lm_head", (sizes["vocabulary"], width)),
        ("modality_projection", (text, sizes["eyes"]["width"] * sizes["scale"] ** 2)),
        ("multi_modal_projector.linear.weight", (text, sizes["eyes"]["width"])),
        ("multi_modal_projector.linear.bias", (text,)),
        ("state_proj.weight", (text if sizes is SMOLVLA else expert, shape[-1])),
        ("state_proj.bias", (text if sizes is SMOLVLA else expert,)),
        ("action_in_proj.weight", (expert, shape[-1])),
        ("action_out_proj.weight", (shape[0], expert)),
        ("action_out_proj.bias", shape),
        ("action_time_mlp_in.weight", (expert, 2 * expert)),
        ("action_time_mlp_out.weight", (expert, expert)),
        ("bias", (expert,)),
    ]
    return next(real for part, real in by_part if part in name)


def _write_weights(folder: Path, shapes: dict[str, tuple[int, ...]], dtype: torch.dtype) -> None:
    """Random weights that keep activations as large as they are, in shards of about 2 GB."""
    (folder / "model.safetensors").unlink()
    generator = torch.Generator().manual_seed(0)
    shards: list[dict[str, torch.Tensor]] = [{}]
    size = 0
    for name, shape in shapes.items():
        if size > 2e9:
            shards.append({})
            size = 0
        weight = torch.randn(shape, generator=generator, dtype=torch.float32)
        if "norm" in name and len(shape) == 1:
            centre = 0.0 if name.endswith("bias") or _adds_one(name) else 1.0
            weight = weight * 0.05 + centre
        elif len(shape) == 1:
            weight *= 0.02
        else:
            weight *= 0.7 / float(np.sqrt(np.prod(shape[1:])))
        shards[-1][name] = weight.to(dtype)
        size += weight.numel() * dtype.itemsize
    count = len(shards)
    if count == 1:
        save_file(shards[0], folder / "model.safetensors")
        return
    names = [f"model-{i + 1:05}-of-{count:05}.safetensors" for i in range(count)]
    for name, shard in zip(names, shards, strict=True):
        save_file(shard, folder / name)
    table = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
    index = {"metadata": {}, "weight_map": table}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _adds_one(name: str) -> bool:
    """Whether a norm adds one to its weight, as Gemma's do."""
    return "paligemma_with_expert" in name and "vision" not in name


if __name__ == "__main__":
    main()
