"""Targets and recipes: one TOML file each, in `targets/` and `calibration/`."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from libra_edge.errors import IncompatibleError, InputError, did_you_mean

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]
Precision = Literal["fp32"]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: Name
    schema_version: Literal[1]
    summary: Annotated[str, Field(min_length=1, max_length=120)]


class TargetEngine(BaseModel):
    """One engine kind a target can run, with the ONNX Runtime provider and options it needs."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    kind: Name
    provider: str
    session_options: dict[str, str] = {}


class Target(_Entry):
    """A kind of machine: what native code it runs and which engines it has, best first."""

    arch: Annotated[str, Field(pattern=r"^[a-z0-9_]+-linux-gnu$")]
    glibc: Annotated[str, Field(pattern=r"^2\.[0-9]{1,3}$")]
    precisions: Annotated[tuple[Precision, ...], Field(min_length=1, strict=False)]
    default_recipe: Name
    engines: Annotated[tuple[TargetEngine, ...], Field(min_length=1, strict=False)]

    @model_validator(mode="after")
    def _engines_differ(self) -> Target:
        pairs = [(engine.kind, engine.provider) for engine in self.engines]
        if len(set(pairs)) != len(pairs):
            raise ValueError("two engines have the same kind and provider")
        return self


class Recipe(_Entry):
    """How the numbers of a policy are stored and computed."""

    precision: Precision


EntryT = TypeVar("EntryT", bound=_Entry)
_FOLDERS: dict[type[_Entry], tuple[str, str]] = {
    Target: ("target", "libra_edge.targets"),
    Recipe: ("recipe", "libra_edge.calibration"),
}


def list_targets() -> dict[str, Target]:
    """Every target by name, sorted."""
    return {name: _load(Target, name) for name in _names(Target)}


def list_recipes() -> dict[str, Recipe]:
    """Every recipe by name, sorted."""
    return {name: _load(Recipe, name) for name in _names(Recipe)}


def load_target(name: str) -> Target:
    """The target called `name`.

    Raises:
        InputError: there is none (the remedy names the nearest), or its file is not valid.
    """
    return _load(Target, name)


def load_recipe(name: str) -> Recipe:
    """The recipe called `name`.

    Raises:
        InputError: there is none (the remedy names the nearest), or its file is not valid.
    """
    return _load(Recipe, name)


def require_supported(target: Target, recipe: Recipe) -> None:
    """Refuse a recipe whose precision the target cannot run.

    Raises:
        IncompatibleError: the pair does not fit.
    """
    if recipe.precision not in target.precisions:
        raise IncompatibleError(
            "recipe-unsupported",
            f"Target {target.name!r} cannot run recipe {recipe.name!r} ({recipe.precision}).",
            f"Choose a recipe of {', '.join(target.precisions)}; `libra-edge recipes` lists them.",
        )


def parse_entry(model: type[EntryT], name: str, text: str) -> EntryT:
    """Read one TOML file's text as a target or recipe called `name`.

    Raises:
        InputError: not TOML, an unknown key, or a missing or invalid value.
    """
    kind = _FOLDERS[model][0]
    try:
        body = tomllib.loads(text)
        if "name" in body:
            raise InputError(
                f"{kind}-invalid", f"{kind} {name!r}: unknown key 'name'.", "The file's name is it."
            )
        return model.model_validate({"name": name, **body})
    except tomllib.TOMLDecodeError as error:
        raise InputError(
            f"{kind}-invalid", f"{kind} {name!r} is not TOML: {error}.", "Correct the file."
        ) from None
    except ValidationError as error:
        raise _explain(model, kind, name, error) from None


def _explain(model: type[_Entry], kind: str, name: str, error: ValidationError) -> InputError:
    # A misspelt key is also a missing one; the misspelling is what helps.
    first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    where = ".".join(str(part) for part in first["loc"]) or "the file"
    remedy = "Correct the value in the file."
    if first["type"] == "extra_forbidden":
        known = TargetEngine.model_fields if len(first["loc"]) > 1 else model.model_fields
        remedy = did_you_mean(str(first["loc"][-1]), set(known) - {"name"})
        return InputError(f"{kind}-invalid", f"{kind} {name!r}: unknown key {where!r}.", remedy)
    return InputError(f"{kind}-invalid", f"{kind} {name!r}: {where}: {first['msg']}.", remedy)


def _names(model: type[_Entry]) -> list[str]:
    folder = files(_FOLDERS[model][1])
    return sorted(
        p.name.removesuffix(".toml") for p in folder.iterdir() if p.name.endswith(".toml")
    )


def _load(model: type[EntryT], name: str) -> EntryT:
    kind, package = _FOLDERS[model]
    known = _names(model)
    if name not in known:
        raise InputError(
            f"unknown-{kind}", f"There is no {kind} {name!r}.", did_you_mean(name, known)
        )
    return parse_entry(model, name, (files(package) / f"{name}.toml").read_text("utf-8"))
