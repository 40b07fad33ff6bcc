"""The probe engines in NumPy: whole numbers and single roundings, so that every engine agrees.

The first three bytes of an observation's images command them: a code, the size of the actions, and
the place where the code does its harm or, without one, the size of the noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from libra_edge.bundle.manifest import ReleaseFacts
from libra_edge.policy.config import Embodiment

Floats = npt.NDArray[np.float32]
Tokens = npt.NDArray[np.int32]
Images = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]

# Contracts: the release's own, one with all that a manifest may say, the smallest; the first with
# its images as large as they are, where the others have smaller ones.
OWN, WIDE, NARROW, WHOLE = "own", "wide", "narrow", "own, images whole"
# Codes: what an observation makes of the next planner or refiner call.
FINE = 0
MARGIN_NAN, MARGIN_INF, MARGIN_MINUS_INF, INTENT_PAST_END, INTENT_BELOW, INTENT_HUGE = range(1, 7)
PLANNER_FAILS, ACTION_NAN, ACTION_INF, ACTION_MINUS_INF, REFINER_FAILS = range(7, 12)
ACTION_ABOVE, ACTION_BELOW, ACTION_HIGH, ACTION_LOW = 12, 13, 14, 15
CODES = 16
HARMS = range(1, CODES)
COMMAND_BYTES = 3
# One unit of the second and the third byte, as a share of the half range and of the noise.
UNIT = np.float32(1 / 64)
QUIET = 1
LEVELS = 2048
LARGEST_STATE = np.float32(1e6)
# So that remainders are taken of positive numbers.
SHIFT = 1 << 50
PIXELS = 256
FAILING_INDEX = 99
# A graph that asks for weights in the working directory, and what it would find there.
PLANNER_APART, WEIGHTS = "planner-apart.onnx", "weights"

MARGINS = np.zeros(CODES, dtype=np.float32)
MARGINS[[MARGIN_NAN, MARGIN_INF, MARGIN_MINUS_INF]] = np.nan, np.inf, -np.inf
ACTIONS = np.zeros(CODES, dtype=np.float32)
ACTIONS[[ACTION_NAN, ACTION_INF, ACTION_MINUS_INF]] = np.nan, np.inf, -np.inf
ACTIONS[[ACTION_ABOVE, ACTION_BELOW]] = 1.5, -1.5
# Inside the limits, but far from where a dimension that may not leave them is.
ACTIONS[[ACTION_HIGH, ACTION_LOW]] = 0.95, -0.95


def codes(*chosen: int) -> npt.NDArray[np.bool_]:
    """A table of all codes, true for some."""
    return np.isin(np.arange(CODES), chosen)


HARMS_MARGIN = codes(MARGIN_NAN, MARGIN_INF, MARGIN_MINUS_INF)
HARMS_INTENT = codes(INTENT_PAST_END, INTENT_BELOW, INTENT_HUGE)
HARMS_ACTION = ACTIONS != 0


# Of the planner that stands in where a policy has none; longer chunks take longer to script.
STAND_IN_BINS, STAND_IN_CHUNK, STAND_IN_WORDS = 10, 8, 4


class EngineFailure(Exception):
    """The engine cannot run on this observation."""


@dataclass(frozen=True)
class Contract:
    """What the probe engines and the reference need to know of a release: N, H, M, T and robot."""

    embodiment: Embodiment
    bins: int
    chunk: int
    chunks_per_plan: int
    instruction_length: int

    @property
    def plan_steps(self) -> int:
        """L = M * H."""
        return self.chunk * self.chunks_per_plan

    @property
    def dims(self) -> int:
        """D."""
        return len(self.embodiment.actions)

    @property
    def image_shape(self) -> tuple[int, int, int, int]:
        """[V, height, width, 3]."""
        robot = self.embodiment
        return len(robot.cameras), robot.image_height, robot.image_width, 3


def contract_of(facts: ReleaseFacts) -> Contract:
    """What a manifest says of sizes and robot.

    The robot of a policy without a planner is driven by a stand-in with one, and one size for all
    cameras: the scripts are about the library, which is the same for all policies.
    """
    policy, robot = facts.policy, facts.embodiment
    if policy.plans:
        return Contract(
            robot, policy.bins, policy.chunk, policy.chunks_per_plan, policy.instruction_length
        )
    alike = robot.model_copy(update={"camera_sizes": None})
    chunk = min(policy.chunk, STAND_IN_CHUNK)
    return Contract(alike, STAND_IN_BINS, chunk, 2, policy.instruction_length or STAND_IN_WORDS)


class Constants:
    """The numbers inside the probe graphs, the same for the same contract."""

    def __init__(self, contract: Contract) -> None:
        rng = np.random.default_rng(20)
        robot, size = contract.embodiment, int(np.prod(contract.image_shape))
        plan, chunk = (contract.plan_steps, contract.dims), (contract.chunk, contract.dims)
        spread = np.linspace(0, size - 1, min(size, PIXELS)).round().astype(np.int64)
        ends = np.array([0, 1, 2, size - 1], dtype=np.int64)
        self.pixels: Numbers = np.unique(np.concatenate([spread, ends]))
        self.pixel_weights = self._weights(rng, len(self.pixels))
        self.state_weights = self._weights(rng, len(robot.state))
        self.word_weights = self._weights(rng, contract.instruction_length)
        self.plan_ramp: Numbers = rng.integers(0, contract.bins, plan)
        self.chunk_ramp: Numbers = rng.integers(0, LEVELS, chunk)
        self.special_intents: Numbers = np.zeros(CODES, dtype=np.int64)
        self.special_intents[[INTENT_PAST_END, INTENT_BELOW, INTENT_HUGE]] = (
            *(contract.bins, -1),
            2**31 - 1,
        )
        lower, upper = (
            np.array([getattr(dim, end) for dim in robot.actions], dtype=np.float32)
            for end in ("lower", "upper")
        )
        half = np.float32(0.5)
        self.center: Floats = half * lower + half * upper
        self.half: Floats = half * upper - half * lower
        # A dimension that may not leave its limits stays inside unless a code sends it out.
        faults = np.array([dim.on_limit == "fault" for dim in robot.actions])
        self.gain = np.where(faults, 0, UNIT).astype(np.float32)
        self.offset = np.where(faults, 0.25, 0).astype(np.float32)
        self.noise_gain = np.where(faults, 0, UNIT).astype(np.float32)
        self.noise_offset = np.where(faults, UNIT, 0).astype(np.float32)

    @staticmethod
    def _weights(rng: np.random.Generator, count: int) -> Numbers:
        """Odd numbers, so that they count modulo powers of two too."""
        return rng.integers(1, 500, count) * 2 + 1


class Probe:
    """Both engines; `plan` and `refine` are those of `libra_edge.policy.executor.Engines`."""

    def __init__(self, contract: Contract) -> None:
        self.contract, self.constants = contract, Constants(contract)

    def plan(self, images: Images, instruction: Numbers, state: Floats) -> tuple[Tokens, Floats]:
        """Intent int32 [L, D] and margin float32 [L, D]; raises EngineFailure on command."""
        c, (code, _, place) = self.constants, self._command(images)
        if code == PLANNER_FAILS:
            raise EngineFailure
        total = self._seen(images, state) + int(instruction @ c.word_weights)
        intent = (total + c.plan_ramp) % self.contract.bins
        margin = intent.astype(np.float32) * np.float32(0.125) + np.float32(0.5)
        here = self._place(intent.shape, place)
        if HARMS_MARGIN[code]:
            margin[here] = MARGINS[code]
        if HARMS_INTENT[code]:
            intent[here] = c.special_intents[code]
        return intent.astype(np.int32), margin

    def refine(
        self,
        images: Images,
        state: Floats,
        intent: Tokens,
        noise: Floats,
        instruction: object = None,
    ) -> Floats:
        """Actions float32 [H, D]; raises EngineFailure on command."""
        c, (code, size, place) = self.constants, self._command(images)
        if code == REFINER_FAILS:
            raise EngineFailure
        total = self._seen(images, state) + c.chunk_ramp + 37 * intent.astype(np.int64)
        share = (total % LEVELS - LEVELS // 2).astype(np.float32) * np.float32(2 / LEVELS)
        gain = np.float32(size) * c.gain + c.offset
        loud = np.float32(place if code == FINE else QUIET) * c.noise_gain + c.noise_offset
        wanted = share * gain + noise * loud
        if HARMS_ACTION[code]:
            wanted[self._place(wanted.shape, place)] = ACTIONS[code]
        return np.asarray(wanted * c.half + c.center)

    def _seen(self, images: Images, state: Floats) -> int:
        c = self.constants
        places = np.clip(state * np.float32(8), -LARGEST_STATE, LARGEST_STATE)
        pixels = images.reshape(-1)[c.pixels].astype(np.int64)
        seen = pixels @ c.pixel_weights + np.floor(places).astype(np.int64) @ c.state_weights
        return SHIFT + int(seen)

    @staticmethod
    def _command(images: Images) -> tuple[int, int, int]:
        code, size, place = (int(byte) for byte in images.reshape(-1)[:COMMAND_BYTES])
        return code % CODES, size, place

    @staticmethod
    def _place(shape: tuple[int, ...], place: int) -> tuple[int, int]:
        row, column = divmod(place * (shape[0] * shape[1] - 1) // 255, shape[1])
        return row, column
