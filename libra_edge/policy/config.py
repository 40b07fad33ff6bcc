"""What a Libra-VLA checkpoint is, in one versioned, strict configuration.

Symbols of the paper (arXiv 2604.24921): N = `bins`, H = `chunk`, M = `chunks_per_plan`,
L = M*H = `plan_steps`, K = `schedule.denoise_steps`.
"""

from __future__ import annotations

from ctypes import c_float
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import (
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from libra_edge.errors import InputError, did_you_mean
from libra_edge.models import Grown, Strict
from libra_edge.paths import StrPath
from libra_edge.policy.libra_vla.config import PlannerConfig, RefinerConfig
from libra_edge.policy.libra_vla.pretrained.config import KINDS, CompactBackboneConfig, Size
from libra_edge.policy.other_policies import other_policy

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
ImageSize = tuple[Size, Size]
# Printable: a C caller is handed it as text.
Unit = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{0,64}$")]
Bins = Annotated[int, Field(ge=2, le=1_000)]
Steps = Annotated[int, Field(ge=1, le=1_000)]
InstructionLength = Annotated[int, Field(ge=1, le=4_096)]
# What stays finite, and above zero, in the float32 of the engines and the runtime.
Limit = Annotated[float, Field(ge=-1e30, le=1e30)]
CHANGES = ("step_change", "acceleration", "jerk")
ChangeLimit = Annotated[float, Field(ge=1e-30, le=1e30)]
Normalization = Literal["quantiles", "min_max", "mean_std", "identity"]
PredictionType = Literal["epsilon", "sample", "velocity"]
Scheduler = Literal["ddim", "dpm_solver_pp", "flow_euler"]
TimestepSpacing = Literal["leading", "trailing", "linspace"]


class StateDim(Strict):
    """One dimension of the robot's proprioceptive state."""

    name: Name
    unit: Unit


class ActionDim(Grown):
    """One dimension of the action, with its limits in physical units.

    `kind` fixes the hold action: `absolute` and `gripper` keep the last command, `delta` is zero.
    `max_step_change` bounds the command's change from one control step to the next (unit per
    step), `max_acceleration` the change of that change, `max_jerk` the change of that one; None
    leaves them free. `on_limit` says whether an action outside any of these is clamped or latches
    FAULT. A state of the same name and unit measures an absolute dimension: it sets out from there.
    """

    later: ClassVar[tuple[str, ...]] = ("on_limit", *(f"max_{n}" for n in CHANGES))

    name: Name
    unit: Unit
    kind: Literal["absolute", "delta", "gripper"]
    lower: Limit
    upper: Limit
    on_limit: Literal["clamp", "fault"] = "clamp"
    max_step_change: ChangeLimit | None = None
    max_acceleration: ChangeLimit | None = None
    max_jerk: ChangeLimit | None = None

    @model_validator(mode="after")
    def _ordered(self) -> ActionDim:
        if c_float(self.lower).value >= c_float(self.upper).value:
            raise ValueError(f"action {self.name!r}: lower {self.lower} is not below {self.upper}")
        return self


class Embodiment(Grown):
    """The robot as the policy sees it: cameras, state, actions, control rate.

    `camera_sizes`, [height, width] of each camera, is there where they differ; `image_height` and
    `image_width` are the largest then.
    """

    later: ClassVar[tuple[str, ...]] = ("camera_sizes",)

    name: Name
    control_hz: Annotated[float, Field(gt=0, le=10_000)]
    cameras: Annotated[tuple[Name, ...], Field(min_length=1, max_length=16)]
    image_height: Size
    image_width: Size
    state: Annotated[tuple[StateDim, ...], Field(min_length=1, max_length=1024)]
    actions: Annotated[tuple[ActionDim, ...], Field(min_length=1, max_length=1024)]
    camera_sizes: Annotated[tuple[ImageSize, ...], Field(min_length=1, max_length=16)] | None = None

    @property
    def sizes(self) -> tuple[ImageSize, ...]:
        """Height and width of each camera's image, in pixels."""
        one = (self.image_height, self.image_width)
        return self.camera_sizes or (one,) * len(self.cameras)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Of all images of one moment, uint8: [V, h, w, 3], or [bytes] where sizes differ."""
        if self.camera_sizes is None:
            return (len(self.cameras), self.image_height, self.image_width, 3)
        return (sum(height * width * 3 for height, width in self.camera_sizes),)

    @model_validator(mode="after")
    def _sizes_differ(self) -> Embodiment:
        sizes = self.camera_sizes
        if sizes is None:
            return self
        if len(sizes) != len(self.cameras) or len(set(sizes)) == 1:
            raise ValueError("camera_sizes is for cameras of different sizes, one of each camera")
        largest = tuple(max(side) for side in zip(*sizes, strict=True))
        if largest != (self.image_height, self.image_width):
            raise ValueError("image_height and image_width are not the largest of camera_sizes")
        return self

    @model_validator(mode="after")
    def _unique_names(self) -> Embodiment:
        for what, names in (
            ("camera", self.cameras),
            ("state", tuple(d.name for d in self.state)),
            ("action", tuple(d.name for d in self.actions)),
        ):
            if len(set(names)) != len(names):
                raise ValueError(f"{what} names repeat: {', '.join(names)}")
        return self


class NormalizationConfig(Strict):
    """How dataset statistics map state and action to the policy's unit range."""

    state: Normalization = "mean_std"
    action: Normalization = "quantiles"


class ScheduleConfig(Strict):
    """Diffusion or flow-matching process, what the refiner predicts, and how it is sampled.

    `train_steps` discretises training time; `denoise_steps` (K) is what a robot runs.
    `clip_sample` bounds the predicted clean action (normalised units); null, or "none" in TOML,
    leaves it free.
    """

    train_steps: Annotated[int, Field(ge=1, le=10_000)] = 100
    prediction_type: PredictionType = "sample"
    scheduler: Scheduler = "ddim"
    timestep_spacing: TimestepSpacing = "trailing"
    denoise_steps: Steps = 10
    clip_sample: Annotated[float, Field(gt=0)] | None = 1.0

    @field_validator("clip_sample", mode="before")
    @classmethod
    def _none_in_words(cls, value: object) -> object:
        # TOML has no null.
        return None if value == "none" else value

    @property
    def flow_matching(self) -> bool:
        """Whether the process is flow matching (linear path) rather than DDPM."""
        return self.scheduler == "flow_euler"

    @property
    def spread_points(self) -> int:
        """Training time steps that the spacing spreads: K, or K + 1 whose last is not visited.

        The multistep solver's convention in diffusers, but for `trailing`.
        """
        extra = self.scheduler == "dpm_solver_pp" and self.timestep_spacing != "trailing"
        return self.denoise_steps + int(extra)

    @model_validator(mode="after")
    def _consistent(self) -> ScheduleConfig:
        if self.spread_points > self.train_steps:
            raise ValueError(
                f"denoise_steps {self.denoise_steps} visits {self.spread_points} points of only "
                f"{self.train_steps} train_steps"
            )
        if self.flow_matching and self.prediction_type != "velocity":
            raise ValueError("scheduler flow_euler needs prediction_type velocity")
        return self


class RealTimeConfig(Strict):
    """What a refiner was shown of real time.

    Observations 0 to `observation_age_steps` control steps older than the first action; where
    `plan_offsets`, chunks from any step of a plan that leaves H planned, not from multiples of H.
    """

    observation_age_steps: Annotated[int, Field(ge=0, le=1_000)]
    plan_offsets: bool


class PolicyConfig(Grown):
    """A whole Libra-VLA policy. `refiner = None` is the monolithic ablation (Libra-Base).

    `real_time` is None where training did not say.
    """

    later: ClassVar[tuple[str, ...]] = ("real_time",)

    schema_version: Literal[1] = 1
    type: Literal["libra_vla"] = "libra_vla"
    embodiment: Embodiment
    normalization: NormalizationConfig = NormalizationConfig()
    bins: Bins = 10
    chunk: Steps = 5
    chunks_per_plan: Steps = 2
    instruction_length: InstructionLength = 12
    vocabulary: Annotated[int, Field(ge=2, le=1_000_000)]
    planner: PlannerConfig = PlannerConfig()
    refiner: RefinerConfig | None = RefinerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    real_time: RealTimeConfig | None = None

    plans: ClassVar[bool] = True
    observation_steps: ClassVar[int] = 1

    @property
    def plan_steps(self) -> int:
        """L = M*H, the control steps one plan covers."""
        return self.chunk * self.chunks_per_plan

    @property
    def rows(self) -> int:
        """Control steps that one refiner call gives."""
        return self.chunk

    @property
    def noise_shape(self) -> tuple[int, int]:
        """Of the noise that one refiner call takes."""
        return self.chunk, self.action_dim

    @property
    def num_cameras(self) -> int:
        """V, the number of camera views."""
        return len(self.embodiment.cameras)

    @property
    def state_dim(self) -> int:
        """P, the number of state dimensions."""
        return len(self.embodiment.state)

    @property
    def action_dim(self) -> int:
        """D, the number of action dimensions."""
        return len(self.embodiment.actions)

    @model_validator(mode="after")
    def _heads_divide_width(self) -> PolicyConfig:
        backbone = self.planner.backbone
        pairs = [("planner", self.planner.width, self.planner.head_heads)]
        if isinstance(backbone, CompactBackboneConfig):
            pairs.insert(0, ("planner.backbone", backbone.width, backbone.heads))
        if self.refiner is not None:
            pairs.append(("refiner", self.refiner.width, self.refiner.heads))
        for where, width, heads in pairs:
            if width % heads:
                raise ValueError(f"{where}: width {width} is not a multiple of {heads} heads")
        return self

    @model_validator(mode="after")
    def _backbone_takes_it(self) -> PolicyConfig:
        backbone = self.planner.backbone
        if isinstance(backbone, CompactBackboneConfig):
            return self
        size = (self.embodiment.image_height, self.embodiment.image_width)
        length = self.instruction_length
        if problem := backbone.refuses(size, self.num_cameras, self.vocabulary, length):
            raise ValueError(f"planner.backbone: {problem}")
        return self

    def to_json(self) -> str:
        """The file form: every key present, indented, newline at the end."""
        return self.model_dump_json(indent=2) + "\n"


def _explain(error: ValidationError, path: Path) -> InputError:
    first = error.errors()[0]
    # The kind of a backbone stands in the place where pydantic looked, and in no file.
    loc = [part for i, part in enumerate(first["loc"]) if part not in KINDS or i == 0]
    where = ".".join(str(part) for part in loc) or "the top level"
    if first["type"] == "extra_forbidden":
        keys = PolicyConfig.model_fields if len(first["loc"]) == 1 else ()
        remedy = did_you_mean(str(first["loc"][-1]), keys) if keys else "Remove the key."
        return InputError("config-unknown-key", f"{path}: unknown key {where!r}.", remedy)
    return InputError(
        "config-invalid",
        f"{path}: {where}: {first['msg']}.",
        "Correct the value; docs/reference/config.md lists every key.",
    )


def read_config(path: StrPath) -> PolicyConfig:
    """Read a checkpoint's `config.json`.

    Raises:
        InputError: the file is missing, not JSON, has unknown keys or invalid values.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        inner = path.parent / "pretrained_model"
        if (inner / path.name).is_file():
            raise InputError(
                "not-a-checkpoint",
                f"{path.parent} is a LeRobot training folder; the policy is in {inner}.",
                f"Name {inner}.",
            ) from None
        raise InputError(
            "not-a-checkpoint",
            f"{path.parent} has no {path.name}.",
            "Name a checkpoint folder: config.json, model.safetensors, stats.json, tokenizer.json.",
        ) from None
    except UnicodeDecodeError:
        raise InputError(
            "config-invalid", f"{path} is not UTF-8 text.", "Name a checkpoint folder."
        ) from None
    if other := other_policy(text, path, str(PolicyConfig.model_fields["type"].default)):
        raise other
    try:
        return PolicyConfig.model_validate_json(text)
    except ValidationError as error:
        raise _explain(error, path) from None
