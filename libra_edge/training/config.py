"""A training recipe: the policy to build and how to train it, as one TOML file."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationError, field_validator

from libra_edge.errors import InputError
from libra_edge.models import Grown, Strict
from libra_edge.paths import StrPath
from libra_edge.policy.config import (
    Embodiment,
    NormalizationConfig,
    PolicyConfig,
    RealTimeConfig,
)

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class CurriculumConfig(Strict):
    """Whose intents the refiner is trained on.

    `dynamic` (the paper): ground truth until the planner's token accuracy passes `threshold`, then
    a share of the planner's own sampled intents that grows to one over `ramp_steps`.
    `teacher`: always ground truth. `own`: always the planner's.
    """

    mode: Literal["dynamic", "teacher", "own"] = "dynamic"
    threshold: Share = 0.8
    ramp_steps: Count = 500


class RealTimeTraining(Strict):
    """What of real time the refiner is shown: see `RealTimeConfig`, where the policy records it.

    `observation_age_steps`: None, or "chunk" in TOML, is H; 0 shows the newest observation alone,
    as sync mode does.
    """

    observation_age_steps: Annotated[int, Field(ge=0, le=1_000)] | None = None
    plan_offsets: bool = True

    @field_validator("observation_age_steps", mode="before")
    @classmethod
    def _chunk_in_words(cls, value: object) -> object:
        # TOML has no null.
        return None if value == "chunk" else value

    def of(self, chunk: int) -> RealTimeConfig:
        """For a policy of H = `chunk`."""
        age = self.observation_age_steps
        return RealTimeConfig(
            observation_age_steps=chunk if age is None else age, plan_offsets=self.plan_offsets
        )


class TrainingConfig(Grown):
    """Optimisation. Learning rate: one cycle; weights that are saved: their moving average.

    Of a pretrained backbone `freeze_backbone` leaves the vision tower as it is (None, or "vision"),
    all of it ("all") or nothing ("nothing"); `freeze_eyes` leaves pretrained eyes as they are. What
    is trained of both has `pretrained_rate` times the learning rate.
    """

    later: ClassVar[tuple[str, ...]] = ("freeze_backbone", "freeze_eyes", "pretrained_rate")

    steps: Count = 3_000
    batch: Count = 64
    seed: Annotated[int, Field(ge=0)] = 0
    learning_rate: Positive = 5e-4
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    warmup_share: Share = 0.1
    gradient_clip: Positive = 1.0
    coarse_weight: Positive = 1.0
    refine_weight: Positive = 1.0
    noise_draws: Count = 4
    ema_decay: Share = 0.995
    random_shift_px: Annotated[int, Field(ge=0, le=64)] = 4
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    save_every: Count = 500
    log_every: Count = 20
    curriculum: CurriculumConfig = CurriculumConfig()
    real_time: RealTimeTraining = RealTimeTraining()
    freeze_backbone: Literal["nothing", "vision", "all"] | None = None
    freeze_eyes: bool = False
    pretrained_rate: Share = 0.1


class TrainingRecipe(Strict):
    """`[training]`, and `[policy]` without what the dataset gives: vocabulary and robot."""

    policy: dict[str, Any] = Field(default_factory=dict)
    training: TrainingConfig = TrainingConfig()

    @property
    def normalization(self) -> NormalizationConfig:
        """Which statistics span states and actions.

        Raises:
            InputError: the table does not say so.
        """
        try:
            return NormalizationConfig.model_validate(self.policy.get("normalization", {}))
        except ValidationError as error:
            raise _invalid("[policy.normalization]", error) from None

    @property
    def instruction_length(self) -> int:
        """T, the tokens that the policy takes."""
        default = PolicyConfig.model_fields["instruction_length"].default
        # What is no length is refused with the whole policy, by its key.
        length = self.policy.get("instruction_length", default)
        return length if isinstance(length, int) else int(default)

    def policy_config(self, vocabulary: int, embodiment: Embodiment) -> PolicyConfig:
        """The policy for a vocabulary and a robot, which records what of real time it is shown.

        Raises:
            InputError: the `[policy]` table does not describe a policy.
        """
        try:
            config = PolicyConfig.model_validate(
                {"vocabulary": vocabulary, "embodiment": embodiment, **self.policy}
            )
            real_time = self.training.real_time.of(config.chunk)
            return config.model_copy(update={"real_time": real_time})
        except ValidationError as error:
            raise _invalid("[policy]", error) from None


def _invalid(where: str, error: ValidationError) -> InputError:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    return InputError(
        "recipe-invalid",
        f"{where}: {key}: {first['msg']}.",
        "Correct the value; docs/reference/config.md lists every key.",
    )


def read_training_recipe(path: StrPath) -> TrainingRecipe:
    """Read a training recipe.

    Raises:
        InputError: missing file, not TOML, unknown key or invalid value.
    """
    path = Path(path)
    try:
        return TrainingRecipe.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise InputError(
            "recipe-missing", f"{path} does not exist.", "Name a training recipe (TOML)."
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError("recipe-invalid", f"{path} is not TOML: {error}.", "Correct it.") from None
    except ValidationError as error:
        raise _invalid(str(path), error) from None
