"""Drives a policy with LeRobot itself, for `benchmarks/rollouts.py`: run by LeRobot's interpreter.

Reads one request after another from standard input, a line of JSON and the arrays that it names,
and answers each with the bytes of one action. Imports nothing of Libra Edge.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np
import torch
from lerobot.configs.policies import PreTrainedConfig
from lerobot.policies.factory import get_policy_class, make_pre_post_processors


def main(folder: str) -> None:
    """Serve until standard input ends."""
    # What libraries print must not stand among the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    torch.set_num_threads(1)
    config = PreTrainedConfig.from_pretrained(folder)
    config.device, config.pretrained_path = "cpu", Path(folder)
    policy = get_policy_class(config.type).from_pretrained(folder, config=config).eval()
    here = {"device_processor": {"device": "cpu"}}
    before, after = make_pre_post_processors(
        config,
        pretrained_path=folder,
        preprocessor_overrides=here,
        postprocessor_overrides=here,
    )
    requests = sys.stdin.buffer
    for line in requests:
        request = json.loads(line)
        if request.get("reset"):
            policy.reset()
            before.reset()
            after.reset()
            continue
        arrays = {}
        for name, dtype, shape in request["arrays"]:
            size = int(np.prod(shape)) * np.dtype(dtype).itemsize
            arrays[name] = np.frombuffer(requests.read(size), dtype).reshape(shape).copy()
        noise = arrays.pop("noise", None)
        batch = {name: torch.from_numpy(array) for name, array in arrays.items()}
        for name, value in batch.items():
            if value.dtype == torch.uint8:
                batch[name] = value.permute(2, 0, 1).float() / 255.0
        batch["task"] = request["task"]
        with torch.inference_mode():
            told = {} if noise is None else {"noise": torch.from_numpy(noise)[None]}
            action = after(policy.select_action(before(batch), **told))
        answers.write(np.asarray(action, np.float32).reshape(-1).tobytes())
        answers.flush()


if __name__ == "__main__":
    main(sys.argv[1])
