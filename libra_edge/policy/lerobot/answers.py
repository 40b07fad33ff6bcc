"""What LeRobot itself answers: a script for the interpreter that a policy was trained with.

    PYTHON answers.py FOLDER [--tokenizer DIR] [--vlm-config DIR]

It stands alone: it is run as a file, in an environment with LeRobot and without Libra Edge. Each
request on standard input is a line of JSON and the arrays that it names, in order. `reset` begins
an episode and is not answered; `act` is answered by one action, `chunk` by all that one call of the
policy gives, in physical units: a line of JSON with the shape, then the bytes, float32. Where
`tokens` and `seen` are among the arrays, they stand for the words of the instruction.

DIR are folders with what a policy's folder only names; without them LeRobot looks for it itself.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any


def main(folder: str, tokenizer: str | None, vlm_config: str | None) -> None:
    """Serve until standard input ends."""
    import numpy as np
    import torch

    # What libraries print must not stand among the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    torch.set_num_threads(1)
    policy, before, after = _load(folder, tokenizer, vlm_config)
    steps = int(getattr(policy.config, "n_obs_steps", 1))
    requests = sys.stdin.buffer
    for line in requests:
        request = json.loads(line)
        if request["call"] == "reset":
            for one in (policy, before, after):
                one.reset()
            continue
        arrays: dict[str, Any] = {}
        for name, dtype, shape in request["arrays"]:
            size = int(np.prod(shape)) * np.dtype(dtype).itemsize
            arrays[name] = np.frombuffer(requests.read(size), dtype).reshape(shape).copy()
        noise = arrays.pop("noise", None)
        words = [arrays.pop(name, None) for name in ("tokens", "seen")]
        told = {} if noise is None else {"noise": torch.from_numpy(noise)[None]}
        tensors: dict[str, Any] = {name: torch.from_numpy(array) for name, array in arrays.items()}
        for name, value in tensors.items():
            if value.dtype == torch.uint8:
                tensors[name] = value.movedim(-1, -3).float() / 255.0
        task = {"task": request["task"]}
        with torch.inference_mode():
            if words[0] is not None:
                batch = before(tensors | task)
                for name, array in zip(("tokens", "attention_mask"), words, strict=True):
                    batch[f"observation.language.{name}"] = torch.from_numpy(array)[None]
                policy.reset()
                action = after(policy.predict_action_chunk(batch, **told))
            elif request["call"] == "act":
                action = after(policy.select_action(before(tensors | task), **told))
            elif steps == 1:
                policy.reset()
                action = after(policy.predict_action_chunk(before(tensors | task), **told))
            else:
                # As while a robot runs: each observation goes through the steps by itself.
                policy.reset()
                seen = [before({n: v[k] for n, v in tensors.items()} | task) for k in range(steps)]
                batch = {name: torch.stack([one[name] for one in seen], 1) for name in tensors}
                action = after(policy.predict_action_chunk(batch, **told))
        found = np.asarray(action, np.float32)[0]
        answers.write(json.dumps(found.shape).encode() + b"\n" + found.tobytes())
        answers.flush()


def _load(folder: str, tokenizer: str | None, vlm_config: str | None) -> tuple[Any, Any, Any]:
    from lerobot.configs.policies import PreTrainedConfig
    from lerobot.policies.factory import get_policy_class, make_pre_post_processors

    config = PreTrainedConfig.from_pretrained(folder)
    config.device, config.pretrained_path = "cpu", Path(folder)
    if hasattr(config, "pretrained_backbone_weights"):
        config.pretrained_backbone_weights = None  # else they are downloaded, then overwritten
    here: dict[str, dict[str, str]] = {"device_processor": {"device": "cpu"}}
    if tokenizer is not None:
        here["tokenizer_processor"] = {"tokenizer_name": tokenizer}
    if vlm_config is not None and hasattr(config, "vlm_model_name"):
        config.vlm_model_name, config.load_vlm_weights = vlm_config, False
        _without_processor(tokenizer or vlm_config)
    policy = get_policy_class(config.type).from_pretrained(folder, config=config).eval()
    ours = {"device_processor": here["device_processor"]}
    before, after = make_pre_post_processors(
        config, pretrained_path=folder, preprocessor_overrides=here, postprocessor_overrides=ours
    )
    return policy, before, after


def _without_processor(tokenizer: str) -> None:
    """Of SmolVLM's processor LeRobot reads two identifiers, which the tokenizer has too."""
    from types import SimpleNamespace

    from lerobot.policies.smolvla import smolvlm_with_expert
    from transformers import AutoTokenizer

    words = AutoTokenizer.from_pretrained(tokenizer)
    found = SimpleNamespace(
        fake_image_token_id=words.convert_tokens_to_ids("<fake_token_around_image>"),
        global_image_token_id=words.convert_tokens_to_ids("<global-img>"),
    )
    smolvlm_with_expert.AutoProcessor = SimpleNamespace(
        from_pretrained=lambda *_, **__: SimpleNamespace(tokenizer=found)
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    for option in ("--tokenizer", "--vlm-config"):
        parser.add_argument(option)
    told = parser.parse_args()
    main(told.folder, told.tokenizer, told.vlm_config)
