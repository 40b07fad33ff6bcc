from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from libra_edge.errors import InputError
from libra_edge.policy.checkpoint import checkpoint_sha256, load_checkpoint, save_checkpoint
from tests.tiny import write_tiny_checkpoint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny_checkpoint(tmp_path / "checkpoint")


def change_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def refused(folder: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        load_checkpoint(folder)
    assert caught.value.exit_code == 2
    assert caught.value.remedy
    return caught.value


def test_round_trip(folder: Path) -> None:
    loaded = load_checkpoint(folder)
    saved = load_file(folder / "model.safetensors")
    for name, tensor in loaded.policy.state_dict().items():
        torch.testing.assert_close(tensor, saved[name], rtol=0, atol=0)
    assert not loaded.policy.training


def test_shards_load_like_one_file(folder: Path, tmp_path: Path) -> None:
    whole = load_checkpoint(folder)
    sharded = tmp_path / "sharded"
    texts = (whole.statistics, (folder / "tokenizer.json").read_text())
    save_checkpoint(sharded, whole.policy, *texts, max_shard_size="20KB")
    shards = sorted(sharded.glob("model-*.safetensors"))
    assert len(shards) > 1
    assert not (sharded / "model.safetensors").exists()
    for name, tensor in load_checkpoint(sharded).policy.state_dict().items():
        assert torch.equal(tensor, whole.policy.state_dict()[name])
    shards[-1].unlink()
    assert refused(sharded).code == "checkpoint-shard-missing"
    save_checkpoint(sharded, whole.policy, *texts)
    assert sorted(p.name for p in sharded.iterdir()) == sorted(p.name for p in folder.iterdir())
    load_checkpoint(sharded)


@pytest.mark.parametrize("name", ["../evil.safetensors", "/etc/passwd", "model.bin", 7])
def test_index_cannot_name_other_files(folder: Path, name: object) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    assert refused(folder).code == "checkpoint-index-invalid"


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": 3}'])
def test_broken_index(folder: Path, content: str) -> None:
    (folder / "model.safetensors.index.json").write_text(content)
    assert refused(folder).code == "checkpoint-index-invalid"


def test_missing_tensor(folder: Path) -> None:
    change_tensors(folder, lambda t: t.pop("planner.queries"))
    error = refused(folder)
    assert error.code == "checkpoint-missing-tensor"
    assert "planner.queries" in error.fact


def test_extra_tensor(folder: Path) -> None:
    change_tensors(folder, lambda t: t.update(surprise=torch.zeros(1)))
    assert refused(folder).code == "checkpoint-extra-tensor"


def test_wrong_shape(folder: Path) -> None:
    change_tensors(folder, lambda t: t.update({"planner.queries": torch.zeros(1, 1)}))
    error = refused(folder)
    assert error.code == "checkpoint-wrong-shape"
    assert "[1, 1]" in error.fact


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(folder: Path, value: float) -> None:
    change_tensors(folder, lambda t: t["planner.queries"].fill_(value))
    assert refused(folder).code == "checkpoint-not-finite"


def test_integer_weights(folder: Path) -> None:
    change_tensors(
        folder, lambda t: t.update({"planner.queries": t["planner.queries"].to(torch.int32)})
    )
    assert refused(folder).code == "checkpoint-not-finite"


def test_truncated_at_any_length(folder: Path) -> None:
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    for length in (0, 4, 8, 100, len(whole) // 2, len(whole) - 1):
        weights.write_bytes(whole[:length])
        assert refused(folder).code == "checkpoint-unreadable"


class Exploit:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("pwned",)


@pytest.mark.parametrize("kind", ["pickle", "torch"])
def test_a_renamed_pickle_is_refused_and_never_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    weights = folder / "model.safetensors"
    if kind == "pickle":
        weights.write_bytes(pickle.dumps(Exploit()))
    else:
        torch.save({"a": Exploit()}, weights)
    assert refused(folder).code == "checkpoint-pickle"
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "stats.json"])
def test_missing_files(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert refused(folder).code in ("not-a-checkpoint", "stats-missing")


def test_not_a_folder(tmp_path: Path) -> None:
    assert refused(tmp_path / "nowhere").code == "not-a-checkpoint"


@pytest.mark.parametrize("content", ["", "{}", "not json"])
def test_broken_tokenizer(folder: Path, content: str) -> None:
    (folder / "tokenizer.json").write_text(content)
    assert refused(folder).code == "tokenizer-invalid"


@pytest.mark.parametrize("content", ["", "[]", '{"action": 3}', '{"action": {"q01": "x"}}'])
def test_broken_statistics(folder: Path, content: str) -> None:
    (folder / "stats.json").write_text(content)
    assert refused(folder).code == "stats-invalid"


def test_the_hash_covers_every_file_and_nothing_else(folder: Path) -> None:
    before = checkpoint_sha256(folder)
    (folder / "README.md").write_text("not part of the policy")
    assert checkpoint_sha256(folder) == before
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    assert checkpoint_sha256(folder) != before
