from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from libra_edge.errors import InputError
from libra_edge.policy.config import ActionDim, PolicyConfig, read_config
from tests.tiny import tiny_config


def test_json_round_trip(tmp_path: Path) -> None:
    config = tiny_config()
    (tmp_path / "config.json").write_text(config.to_json())
    assert read_config(tmp_path / "config.json") == config
    assert config.plan_steps == config.chunk * config.chunks_per_plan


def read_changed(tmp_path: Path, change: dict[str, object]) -> InputError:
    content = json.loads(tiny_config().to_json()) | change
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(InputError) as caught:
        read_config(tmp_path / "config.json")
    return caught.value


def test_unknown_key_names_the_nearest(tmp_path: Path) -> None:
    error = read_changed(tmp_path, {"chunck": 4})
    assert error.code == "config-unknown-key"
    assert "'chunck'" in error.fact
    assert "'chunk'" in error.remedy


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"schema_version": 2}, "schema_version"),
        ({"bins": 1}, "bins"),
        ({"chunk": 0}, "chunk"),
        ({"refiner": {"width": 10, "heads": 4}}, "heads"),
        ({"schedule": {"scheduler": "flow_euler"}}, "velocity"),
        ({"schedule": {"train_steps": 4, "denoise_steps": 5}}, "denoise_steps"),
        ({"schedule": {"clip_sample": float("nan")}}, "clip_sample"),
    ],
)
def test_invalid_values_are_named(tmp_path: Path, change: dict[str, object], where: str) -> None:
    error = read_changed(tmp_path, change)
    assert error.code == "config-invalid"
    assert where in error.fact
    assert error.exit_code == 2


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[]", b"{"])
def test_not_a_configuration(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(InputError):
        read_config(tmp_path / "config.json")


def test_repeated_names_are_refused() -> None:
    content = tiny_config().model_dump()
    content["embodiment"]["cameras"] = ("front", "front")
    with pytest.raises(ValueError, match="camera names repeat"):
        PolicyConfig.model_validate(content)


def test_limits_added_later_leave_old_bytes_alone() -> None:
    old = {"name": "a", "unit": "m", "kind": "delta", "lower": -1.0, "upper": 1.0}
    assert ActionDim.model_validate(old).model_dump(mode="json") == old
    new = old | {"on_limit": "fault", "max_step_change": 0.5, "max_acceleration": 0.1}
    assert ActionDim.model_validate(new).model_dump(mode="json") == new
    for bad in ({"on_limit": "stop"}, {"max_step_change": 0}, {"max_acceleration": -1}):
        with pytest.raises(ValidationError):
            ActionDim.model_validate(old | bad)
