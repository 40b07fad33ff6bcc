"""The base of every configuration and every record of facts."""

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """Immutable; unknown keys are refused, and numbers that are not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
