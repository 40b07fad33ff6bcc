"""Checkpoint folders: configuration, weights (one file or shards), statistics, tokenizer.

Nothing here unpickles. Tensors are checked against the configuration by name, shape, dtype and
finiteness before a model uses them.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import save_torch_state_dict

from libra_edge.atomic import new_file, writing
from libra_edge.errors import InputError, LibraWarning
from libra_edge.paths import StrPath
from libra_edge.policy.actions import affine_from_statistics, read_statistics
from libra_edge.policy.config import PolicyConfig, read_config
from libra_edge.policy.libra_vla.model import LibraVLA
from libra_edge.policy.tokenizer import Tokenizer
from libra_edge.policy.weights import read_tensors, weight_files
from libra_edge.policy.wrapped import unwrapped

CONFIG, STATISTICS, TOKENIZER = "config.json", "stats.json", "tokenizer.json"
RANDOM_SEED = 0
Statistics = dict[str, dict[str, list[float]]]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint folder whose configuration and weights fit together."""

    path: Path
    config: PolicyConfig
    statistics: Statistics
    tokenizer: Tokenizer
    policy: LibraVLA
    random_weights: bool = False
    drawn_in_half: bool = False

    @property
    def sha256(self) -> str:
        """Hash of the whole contents of every file that defines the policy."""
        if self.drawn_in_half:
            return hashlib.sha256(f"{self._files_sha256} in 16 bits".encode()).hexdigest()
        return self._files_sha256

    @property
    def _files_sha256(self) -> str:
        return checkpoint_sha256(self.path, random_weights=self.random_weights)


def checkpoint_sha256(path: StrPath, *, random_weights: bool = False) -> str:
    """SHA-256 over the names and contents of the files that define a policy."""
    path = Path(path)
    digest = hashlib.sha256(b"random weights" if random_weights else b"")
    weights = [] if random_weights else weight_files(path)
    files = [path / CONFIG, path / STATISTICS, path / TOKENIZER, *weights]
    for file in sorted(files):
        with file.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        digest.update(f"{file.name} {content}\n".encode())
    return digest.hexdigest()


def _check_tensors(path: Path, found: dict[str, torch.Tensor], model: LibraVLA) -> None:
    needed = model.state_dict()
    for problem, names in (
        ("missing", sorted(needed.keys() - found.keys())),
        ("extra", sorted(found.keys() - needed.keys())),
    ):
        if names:
            raise InputError(
                f"checkpoint-{problem}-tensor",
                f"{path}: {problem} {len(names)} tensor(s): {', '.join(names[:3])}.",
                "config.json and the weights do not belong together; copy both from one run.",
            )
    for name, tensor in found.items():
        if tensor.shape != needed[name].shape:
            raise InputError(
                "checkpoint-wrong-shape",
                f"{path}: {name} is {list(tensor.shape)}, "
                f"config.json needs {list(needed[name].shape)}.",
                "config.json and the weights do not belong together; copy both from one run.",
            )
        if not tensor.is_floating_point() or not torch.isfinite(tensor).all():
            raise InputError(
                "checkpoint-not-finite",
                f"{path}: {name} ({tensor.dtype}) holds values that are not finite floats.",
                "Training diverged or the file is damaged; take an earlier checkpoint.",
            )


def build_policy(config: PolicyConfig, statistics: Statistics) -> LibraVLA:
    """An untrained policy with the normalisation of a dataset's statistics."""
    kinds = config.normalization
    features = (
        ("observation.state", kinds.state, config.state_dim),
        ("action", kinds.action, config.action_dim),
    )
    state, action = (
        affine_from_statistics(kind, statistics.get(feature, {}), dims, feature)
        for feature, kind, dims in features
    )
    return LibraVLA(config, state, action)


def outline(config: PolicyConfig) -> LibraVLA:
    """A policy's layers with names and shapes, and nothing allocated for their weights."""

    def units(dims: int) -> dict[str, list[float]]:
        low, high = [-1.0] * dims, [1.0] * dims
        names = {"q01": low, "q99": high, "min": low, "max": high, "mean": [0.0] * dims}
        return {**names, "std": high}

    statistics: Statistics = {
        "observation.state": units(config.state_dim),
        "action": units(config.action_dim),
    }
    with torch.device("meta"):
        return build_policy(config, statistics).to("meta").eval().requires_grad_(False)


def load_checkpoint(
    path: StrPath, *, random_weights: bool = False, in_half: bool = False
) -> Checkpoint:
    """Read a checkpoint folder into a policy in eval mode, float32, on the CPU.

    Args:
        path: the folder.
        random_weights: draw the weights, always the same, and read none: the policy is for
            measuring alone, and so is what is made of it.
        in_half: draw them as 16-bit floats, for a policy whose 32-bit form would fill the memory.

    Raises:
        InputError: anything about the folder that does not fit, by name.
    """
    path = Path(path)
    if not path.is_dir():
        raise InputError(
            "not-a-checkpoint", f"{path} is not a folder.", "Name a checkpoint folder."
        )
    _require_links_lead_somewhere(path)
    config = read_config(path / CONFIG)
    statistics = read_statistics(path / STATISTICS)
    tokenizer = Tokenizer(path / TOKENIZER, config.instruction_length)
    if tokenizer.vocabulary > config.vocabulary:
        raise InputError(
            "tokenizer-mismatch",
            f"{path}: tokenizer.json has {tokenizer.vocabulary} tokens, "
            f"config.json {config.vocabulary}.",
            "Use the tokenizer.json that the policy was trained with.",
        )
    if random_weights:
        drawn = _draw(config, statistics, torch.float16 if in_half else torch.float32)
        return Checkpoint(
            path, config, statistics, tokenizer, drawn, random_weights=True, drawn_in_half=in_half
        )
    policy = build_policy(config, statistics)
    tensors: dict[str, torch.Tensor] = {}
    for file in weight_files(path):
        tensors.update(read_tensors(file))
    tensors, said = unwrapped(path, tensors, policy.state_dict().keys())
    if said is not None:
        warnings.warn(LibraWarning("checkpoint-unwrapped", said), stacklevel=2)
    _check_tensors(path, tensors, policy)
    policy.load_state_dict(tensors)
    return Checkpoint(path, config, statistics, tokenizer, policy.float().eval())


def _require_links_lead_somewhere(path: Path) -> None:
    """Members may be links into a cache, as Hugging Face's; a link to nothing has its own error."""
    for file in sorted(path.iterdir()):
        if file.is_symlink() and not file.exists():
            raise InputError(
                "checkpoint-link-broken",
                f"{file} is a link to {file.readlink()}, which does not exist.",
                "Copy the folder with its links followed (cp -L, rsync -L), or download it again.",
            )


def _draw(config: PolicyConfig, statistics: Statistics, dtype: torch.dtype) -> LibraVLA:
    torch.manual_seed(RANDOM_SEED)
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        policy = build_policy(config, statistics).eval()
        return policy if dtype == torch.float16 else policy.float()
    finally:
        torch.set_default_dtype(usual)


def save_checkpoint(
    path: StrPath,
    policy: LibraVLA,
    statistics: Statistics,
    tokenizer_json: str,
    max_shard_size: str = "4GB",
) -> None:
    """Write a checkpoint folder; weights over `max_shard_size` are split into shards.

    Each file appears whole or not at all. Other files in the folder stay, old weights do not.
    """
    path = Path(path)
    weights = {name: value.contiguous().cpu() for name, value in policy.state_dict().items()}
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
    with (
        writing(path),
        tempfile.TemporaryDirectory(prefix=".weights.partial-", dir=path) as scratch,
    ):
        save_torch_state_dict(weights, scratch, max_shard_size=max_shard_size)
        written = sorted(Path(scratch).iterdir())
        for file in written:
            with new_file(path / file.name) as stream, file.open("rb") as source:
                shutil.copyfileobj(source, stream)
    texts = {
        CONFIG: policy.config.to_json(),
        STATISTICS: json.dumps(statistics, indent=1, sort_keys=True) + "\n",
        TOKENIZER: tokenizer_json,
    }
    for name, text in texts.items():
        with new_file(path / name) as stream:
            stream.write(text.encode())
    for file in path.glob("model*.safetensors*"):
        if file.name not in {new.name for new in written}:
            file.unlink()
