"""The message mapping of the ROS 2 example, without ROS."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from libra_edge.binding.policy import Policy
from libra_edge.binding.values import RunOptions
from libra_edge.policy.executor import State
from tests.runtime import tiny_release as tiny

NODE = Path(__file__).parents[2] / "examples/ros2/libra_edge_node.py"


@pytest.fixture(scope="module")
def node() -> ModuleType:
    spec = importlib.util.spec_from_file_location("libra_edge_node", NODE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def message(pixels: Any, encoding: str, padding: int = 0) -> SimpleNamespace:
    height, width, depth = pixels.shape
    rows = np.concatenate([pixels.reshape(height, -1), np.zeros((height, padding), np.uint8)], 1)
    step, data = width * depth + padding, rows.tobytes()
    return SimpleNamespace(encoding=encoding, height=height, width=width, step=step, data=data)


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8"])
@pytest.mark.parametrize("padding", [0, 5])
def test_images_become_rgb(node: ModuleType, encoding: str, padding: int) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    sent = rgb[:, :, ::-1] if encoding.startswith("bgr") else rgb
    if encoding.endswith("a8"):
        sent = np.concatenate([sent, np.full((4, 6, 1), 7, np.uint8)], axis=2)
    found = node.image_from_message(message(sent, encoding, padding), 4, 6)
    np.testing.assert_array_equal(found, rgb)
    assert found.flags["C_CONTIGUOUS"]


def test_other_images_are_refused(node: ModuleType) -> None:
    pixels = np.zeros((4, 6, 3), np.uint8)
    with pytest.raises(ValueError, match="encoding"):
        node.image_from_message(message(pixels, "mono8"), 4, 6)
    with pytest.raises(ValueError, match="6x4 pixels"):
        node.image_from_message(message(pixels, "rgb8"), 6, 4)


def test_joints_go_by_name(node: ModuleType) -> None:
    joints = SimpleNamespace(name=["b", "a", "c"], position=[2.0, 1.0, 3.0])
    found = node.state_from_message(joints, ["a", "b"])
    np.testing.assert_array_equal(found, np.array([1, 2], np.float32))
    with pytest.raises(ValueError, match="no d"):
        node.state_from_message(joints, ["a", "d"])
    sent = node.command_to_message(found, ["a", "b"], SimpleNamespace())
    assert (sent.name, sent.position) == (["a", "b"], [1.0, 2.0])


def test_stamps(node: ModuleType) -> None:
    assert node.stamp_ns(SimpleNamespace(sec=3, nanosec=5)) == 3_000_000_005


def test_what_may_be_sent(node: ModuleType, policy: Policy) -> None:
    policy.start(RunOptions(manual=True))
    info = policy.tick(0)[1]
    assert not node.may_be_sent(info)  # nothing was ever sent: there is nothing to hold
    assert node.may_be_sent(replace(info, no_command=False))
    assert not node.may_be_sent(replace(info, no_command=False, state=State.FAULT))


def test_names_come_from_the_manifest(node: ModuleType, release: Path) -> None:
    state, action = node.names_of(release)
    assert state == [f"s{p}" for p in range(tiny.P)]
    assert action == [f"a{d}" for d in range(tiny.D)]


def test_without_ros_it_says_so(release: Path) -> None:
    command = [sys.executable, str(NODE), str(release), "open the tap", "--cameras", "/a", "/b"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1
    assert "rclpy is not installed" in result.stderr
