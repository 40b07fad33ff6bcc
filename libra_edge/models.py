"""The base of every configuration and every record of facts."""

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer


class Strict(BaseModel):
    """Immutable; unknown keys are refused, and numbers that are not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Grown(Strict):
    """A model with keys that came later: unset they are left out, so old bytes stay the same."""

    later: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _without_unset(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = write(self)
        unset = [n for n in self.later if getattr(self, n) == type(self).model_fields[n].default]
        return {name: value for name, value in content.items() if name not in unset}
