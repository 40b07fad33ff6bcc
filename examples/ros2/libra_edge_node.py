"""A ROS 2 node that runs a release: camera images and joint states in, commands out.

    python libra_edge_node.py RELEASE "open the drawer" --cameras /front/image /wrist/image

Subscribes to one `sensor_msgs/Image` topic per camera of the release, in its order, and to
`/joint_states`; publishes a `sensor_msgs/JointState` on `/libra_edge/command` at the release's
control rate. State dimensions are joint positions by name, action dimensions likewise.

The message mapping below needs no ROS and is unit-tested; the node needs rclpy, which comes with a
ROS 2 installation (source its setup file first).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from libra_edge.binding.policy import Policy
from libra_edge.binding.values import TickInfo
from libra_edge.policy.executor import State

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
CHANNELS = {"rgb8": (0, 1, 2), "bgr8": (2, 1, 0), "rgba8": (0, 1, 2), "bgra8": (2, 1, 0)}


def image_from_message(message: Any, height: int, width: int) -> Pixels:
    """A `sensor_msgs/Image` as RGB uint8 [height, width, 3]; rows may be padded.

    Raises:
        ValueError: another encoding or size; the camera has to be set to what the policy saw.
    """
    if message.encoding not in CHANNELS:
        raise ValueError(f"encoding {message.encoding} is none of {', '.join(CHANNELS)}")
    if (message.height, message.width) != (height, width):
        raise ValueError(f"{message.width}x{message.height} pixels, not {width}x{height}")
    depth = 4 if message.encoding.endswith("a8") else 3
    rows = np.frombuffer(bytes(message.data), np.uint8).reshape(height, message.step)
    pixels = rows[:, : width * depth].reshape(height, width, depth)
    return np.ascontiguousarray(pixels[:, :, list(CHANNELS[message.encoding])])


def state_from_message(message: Any, names: Sequence[str]) -> Floats:
    """Positions of a `sensor_msgs/JointState`, float32 [P], in the order of `names`.

    Raises:
        ValueError: a name is missing.
    """
    found = dict(zip(message.name, message.position, strict=True))
    missing = [name for name in names if name not in found]
    if missing:
        raise ValueError(f"joint_states has no {', '.join(missing)}")
    return np.array([found[name] for name in names], dtype=np.float32)


def command_to_message(action: Floats, names: Sequence[str], message: Any) -> Any:
    """An action [D] as positions of a `sensor_msgs/JointState`."""
    message.name = list(names)
    message.position = [float(value) for value in action]
    return message


def stamp_ns(stamp: Any) -> int:
    """A `builtin_interfaces/Time` in nanoseconds."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def may_be_sent(info: TickInfo) -> bool:
    """Before the first command there is nothing to hold, and after a fault nobody should move."""
    return info.state is not State.FAULT and not info.no_command


def names_of(release: Path) -> tuple[list[str], list[str]]:
    """Names of the state and action dimensions."""
    embodiment = json.loads((release / "manifest.json").read_text("utf-8"))["embodiment"]
    state, action = ([dim["name"] for dim in embodiment[key]] for key in ("state", "actions"))
    return state, action


def spin(release: Path, instruction: str, topics: Sequence[str]) -> None:
    """Run the node until it is stopped."""
    import rclpy
    from rclpy.node import Node
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import Image, JointState

    class LibraEdge(Node):  # type: ignore[misc]
        def __init__(self, policy: Policy) -> None:
            super().__init__("libra_edge")
            self.policy, self.info = policy, policy.info
            self.state_names, self.action_names = names_of(release)
            self.images: list[Pixels | None] = [None] * self.info.cameras
            self.stamps = [0] * self.info.cameras
            self.state: Floats | None = None
            self.told: tuple[State, str] | None = None
            self.publisher = self.create_publisher(JointState, "/libra_edge/command", 1)
            for camera, topic in enumerate(topics):
                self.create_subscription(
                    Image,
                    topic,
                    lambda message, camera=camera: self.on_image(camera, message),
                    qos_profile_sensor_data,
                )
            self.create_subscription(
                JointState, "/joint_states", self.on_state, qos_profile_sensor_data
            )
            self.create_timer(1.0 / self.info.control_hz, self.on_timer)

        def on_image(self, camera: int, message: Any) -> None:
            size = self.info.image_height, self.info.image_width
            self.images[camera] = image_from_message(message, *size)
            self.stamps[camera] = stamp_ns(message.header.stamp)

        def on_state(self, message: Any) -> None:
            self.state = state_from_message(message, self.state_names)

        def on_timer(self) -> None:
            seen = [image for image in self.images if image is not None]
            if self.state is not None and len(seen) == len(self.images):
                # The oldest view counts: one stuck camera has to hold the robot.
                self.policy.observe(np.stack(seen), self.state, min(self.stamps))
            action, info = self.policy.tick(self.get_clock().now().nanoseconds)
            if may_be_sent(info):
                message = command_to_message(action, self.action_names, JointState())
                message.header.stamp = self.get_clock().now().to_msg()
                self.publisher.publish(message)
            if (info.state, info.reason) != self.told:
                self.told = info.state, info.reason
                self.get_logger().info(f"{info.state.name} {info.reason}".rstrip())

    with Policy(release) as policy:
        if len(topics) != policy.info.cameras:
            sys.exit(f"{release} needs {policy.info.cameras} camera topics, not {len(topics)}")
        policy.reset(time.time_ns() % 2**32, instruction)
        policy.start()
        rclpy.init()
        node = LibraEdge(policy)
        try:
            rclpy.spin(node)
        finally:
            node.destroy_node()
            rclpy.try_shutdown()


def main() -> None:
    """Parse, check for ROS, run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("release", type=Path)
    parser.add_argument("instruction")
    parser.add_argument("--cameras", nargs="+", required=True, metavar="TOPIC")
    arguments = parser.parse_args()
    try:
        import rclpy  # noqa: F401
    except ImportError:
        sys.exit("rclpy is not installed: install ROS 2 and source its setup file.")
    spin(arguments.release, arguments.instruction, arguments.cameras)


if __name__ == "__main__":
    main()
