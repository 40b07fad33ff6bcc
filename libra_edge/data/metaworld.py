"""Meta-World: a simulated Sawyer arm with 50 tasks and a scripted expert for each.

Variations (where the objects stand) are drawn from the pair (split, seed): the training and the
held-out ("eval") variations come from disjoint generators and never meet. Goal markers and other
sites are not rendered, as no real camera would show them and they would give the task away.
"""

from __future__ import annotations

import os
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes.util import find_library
from typing import Any

import numpy as np
import numpy.typing as npt

from libra_edge.data.extras import needs_extra
from libra_edge.data.simulator import Split
from libra_edge.data.types import FloatArray, Observation, UInt8Array
from libra_edge.errors import InputError, did_you_mean
from libra_edge.policy.config import ActionDim, Embodiment, StateDim

INSTRUCTIONS: dict[str, tuple[str, ...]] = {
    "faucet-open": (
        "open the faucet",
        "turn on the faucet",
        "rotate the faucet to open it",
    ),
    "faucet-close": (
        "close the faucet",
        "turn off the faucet",
        "rotate the faucet to close it",
    ),
    "drawer-open": (
        "open the drawer",
        "pull the drawer open",
        "slide out the drawer",
    ),
    "button-press-topdown": (
        "press the button from above",
        "push the button down",
        "press down the red button",
    ),
    "handle-press": (
        "press the handle down",
        "push down the handle",
        "lower the handle",
    ),
}

CAMERAS = ("corner2", "gripperPOV")
# The built-in corner2 hangs too far away to resolve a faucet at 96 pixels.
CORNER2_POSITION_M = (0.75, 0.075, 0.7)
IMAGE_SIZE_PX = 96
# Meta-World draws a faucet to be closed from this range, one to be opened from half of it: the
# place alone would often tell the task. Here both are drawn from the wider one.
FAUCET_X_M = (-0.1, 0.1)
_SPLIT_KEY = {"train": 0, "eval": 1}


class MetaWorld:
    """Meta-World behind the `Simulator` protocol.

    Args:
        split: "train" or "eval" variations.
        max_steps: longest episode a closed loop should run, in control steps of 12.5 ms.
    """

    def __init__(self, split: Split = "train", max_steps: int = 300) -> None:
        self.split = split
        self.max_steps = max_steps
        self._scenes: dict[str, _Scene] = {}
        self._scene: _Scene | None = None
        self._instruction = ""

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks that have instructions here."""
        return tuple(INSTRUCTIONS)

    def embodiment(self) -> Embodiment:
        """The Sawyer arm: its hand moves by up to 1 cm per control step and axis."""
        return Embodiment(
            name="metaworld-sawyer",
            control_hz=80.0,
            cameras=CAMERAS,
            image_height=IMAGE_SIZE_PX,
            image_width=IMAGE_SIZE_PX,
            state=(
                StateDim(name="x", unit="m"),
                StateDim(name="y", unit="m"),
                StateDim(name="z", unit="m"),
                StateDim(name="gripper", unit="fraction open"),
            ),
            actions=(
                ActionDim(name="x", unit="cm", kind="delta", lower=-1.0, upper=1.0),
                ActionDim(name="y", unit="cm", kind="delta", lower=-1.0, upper=1.0),
                ActionDim(name="z", unit="cm", kind="delta", lower=-1.0, upper=1.0),
                ActionDim(name="gripper", unit="effort", kind="gripper", lower=-1.0, upper=1.0),
            ),
        )

    def instructions(self, task: str) -> tuple[str, ...]:
        """The sentences that ask for `task`."""
        if task not in INSTRUCTIONS:
            raise InputError(
                "task-unknown",
                f"Meta-World has no task {task!r} with instructions here.",
                did_you_mean(task, INSTRUCTIONS),
            )
        return INSTRUCTIONS[task]

    def reset(self, task: str, seed: int, instruction: str | None = None) -> Observation:
        """Set up variation `seed` of `task`; it also picks the instruction unless one is given."""
        sentences = self.instructions(task)
        rng = np.random.default_rng([_SPLIT_KEY[self.split], zlib.crc32(task.encode()), seed])
        self._instruction = instruction or sentences[int(rng.integers(len(sentences)))]
        if task not in self._scenes:
            self._scenes[task] = _Scene(task)
        self._scene = self._scenes[task]
        self._scene.reset(int(rng.integers(2**31)))
        return self._observe()

    def step(self, action: FloatArray) -> tuple[Observation, bool]:
        """Apply float32 [4] for one control step; returns what is seen next, and success."""
        success = self._active().step(action)
        return self._observe(), success

    def expert_action(self) -> FloatArray:
        """The scripted expert's action for the present scene, clipped to the limits."""
        return self._active().expert_action()

    def close(self) -> None:
        """Free the renderers."""
        for scene in self._scenes.values():
            scene.close()
        self._scenes.clear()
        self._scene = None

    def _active(self) -> _Scene:
        if self._scene is None:
            raise RuntimeError("reset() comes before step() and expert_action()")
        return self._scene

    def _observe(self) -> Observation:
        scene = self._active()
        return Observation(scene.render(), scene.state(), self._instruction)


class _Scene:
    """One task's MuJoCo model, its renderer and its expert."""

    def __init__(self, task: str) -> None:
        mujoco, metaworld = _import_simulation()
        self._mujoco = mujoco
        self._env = metaworld.env_dict.ALL_V3_ENVIRONMENTS[f"{task}-v3"]()
        self._expert = metaworld.policies.ENV_POLICY_MAP[f"{task}-v3"]()
        # The experts of some tasks read the goal, and every reset draws its own variation.
        self._env._partially_observable = False
        self._env._freeze_rand_vec = False
        self._env._set_task_called = True
        self._env.seeded_rand_vec = True
        if task.startswith("faucet-"):
            places = self._env._random_reset_space
            places.low[0], places.high[0] = FAUCET_X_M
        self._full_state: npt.NDArray[np.float64] = np.zeros(0)
        self._make_renderer()

    def _make_renderer(self) -> None:
        mujoco, model = self._mujoco, self._env.model
        model.cam_pos[model.camera("corner2").id] = CORNER2_POSITION_M
        # Software rendering spends 9 tenths of its time on multisampling, shadows and reflections.
        model.vis.quality.offsamples = 0
        with _renderer_errors():
            self._renderer = mujoco.Renderer(model, IMAGE_SIZE_PX, IMAGE_SIZE_PX)
        self._renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = False
        self._renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
        self._visible = mujoco.MjvOption()
        self._visible.sitegroup[:] = 0

    def reset(self, seed: int) -> None:
        self._env.seed(seed)
        self._full_state, _ = self._env.reset()

    def step(self, action: FloatArray) -> bool:
        self._full_state, _, _, _, info = self._env.step(action)
        return bool(info["success"])

    def expert_action(self) -> FloatArray:
        action = self._expert.get_action(self._full_state)
        clipped: FloatArray = np.clip(action, -1.0, 1.0).astype(np.float32)
        return clipped

    def state(self) -> FloatArray:
        return self._full_state[:4].astype(np.float32)

    def render(self) -> UInt8Array:
        views = []
        for camera in CAMERAS:
            self._renderer.update_scene(self._env.data, camera, self._visible)
            # The corner camera is mounted upside down.
            image = self._renderer.render()
            views.append(image[::-1, ::-1] if camera == "corner2" else image)
        return np.stack(views)

    def close(self) -> None:
        self._renderer.close()
        self._env.close()


def _import_simulation() -> tuple[Any, Any]:
    """The modules mujoco and metaworld, with a renderer that is there unless the user chose one."""
    if os.environ.setdefault("MUJOCO_GL", _renderer()) == "osmesa":
        # Mesa's rasteriser starts one thread per core, which only costs time at 96 pixels.
        os.environ.setdefault("LP_NUM_THREADS", "1")
    # Mesa would keep shaders in the user's cache folder; these are few and soon compiled.
    os.environ.setdefault("MESA_SHADER_CACHE_DISABLE", "true")
    with needs_extra("sim", "Meta-World"), _renderer_errors():
        import metaworld
        import metaworld.env_dict
        import metaworld.policies
        import mujoco
    # The experts steer with gains that overshoot on purpose; their actions are clipped here.
    warnings.filterwarnings("ignore", message=r"Constant\(s\) may be too high")
    return mujoco, metaworld


def _renderer() -> str:
    """Mesa off screen, which needs no device; where it is not installed, EGL."""
    return "osmesa" if find_library("OSMesa") or not find_library("EGL") else "egl"


@contextmanager
def _renderer_errors() -> Iterator[None]:
    """Name the remedy for a missing OpenGL library, which shows as any of these errors."""
    try:
        yield
    except ModuleNotFoundError:
        raise
    except (ImportError, AttributeError, OSError, RuntimeError) as error:
        raise InputError(
            "renderer-missing",
            f"MuJoCo cannot render with MUJOCO_GL={os.environ['MUJOCO_GL']}: {error}.",
            "Install a renderer (Debian, Ubuntu: apt-get install libosmesa6), or set "
            "MUJOCO_GL=egl on a machine with a GPU.",
        ) from error
