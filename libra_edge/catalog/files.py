"""The files of targets and recipes: found, read, and refused with the nearest name."""

from __future__ import annotations

import re
import tomllib
from importlib.resources import files
from math import log2
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from libra_edge.catalog.entries import BITS, Entry
from libra_edge.catalog.recipes import PARTS, LayerPrecision, Recipe
from libra_edge.catalog.targets import RuntimeLibrary, Software, Target, TargetEngine
from libra_edge.errors import IncompatibleError, InputError, did_you_mean
from libra_edge.limits import Limits

EntryT = TypeVar("EntryT", bound=Entry)
_FOLDERS: dict[type[Entry], tuple[str, str]] = {
    Target: ("target", "libra_edge.targets"),
    Recipe: ("recipe", "libra_edge.calibration"),
}


_INNER: dict[str, type[BaseModel]] = {
    "engines": TargetEngine,
    "software": Software,
    "onnxruntime": RuntimeLibrary,
    "gates": Limits,
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
    missing = recipe.needs - set(target.precisions)
    if not missing:
        return
    nearest = nearest_recipe(target, recipe)
    machines = [t.name for t in list_targets().values() if recipe.needs <= set(t.precisions)]
    raise IncompatibleError(
        "recipe-unsupported",
        f"Target {target.name!r} cannot run recipe {recipe.name!r} ({', '.join(sorted(missing))}); "
        f"{', '.join(machines) or 'no target here'} can.",
        f"Nearest on {target.name}: --recipe {nearest.name} ({nearest.summary}).",
    )


def nearest_recipe(target: Target, recipe: Recipe) -> Recipe:
    """Of the recipes a target can run, the one whose layers differ least in bits."""
    able = [r for r in list_recipes().values() if r.needs <= set(target.precisions)]
    return min(able, key=lambda other: (_distance(recipe, other), other.name))


def _distance(one: Recipe, other: Recipe) -> float:
    """Octaves of width between two recipes' weights and activations, over all parts."""

    def widths(recipe: Recipe) -> list[float]:
        layers = [recipe.layer("", part) for part in PARTS]
        return [log2(BITS[n]) for layer in layers for n in (layer.weights, layer.activations)]

    return sum(abs(a - b) for a, b in zip(widths(one), widths(other), strict=True))


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
        if model is Target and "based_on" in body:
            body = {**_base(name, body["based_on"]), **body}
        return model.model_validate({"name": name, **body})
    except tomllib.TOMLDecodeError as error:
        raise InputError(
            f"{kind}-invalid", f"{kind} {name!r} is not TOML: {error}.", "Correct the file."
        ) from None
    except ValidationError as error:
        raise _explain(model, kind, name, error) from None


def _base(name: str, base: object) -> dict[str, object]:
    """What the profile that a target is based on says."""
    known = _names(Target)
    if base not in known or base == name:
        raise InputError(
            "target-invalid",
            f"target {name!r} is based on {base!r}, which is not another target.",
            did_you_mean(str(base), set(known) - {name}),
        )
    body = tomllib.loads((files(_FOLDERS[Target][1]) / f"{base}.toml").read_text("utf-8"))
    if "based_on" in body:
        raise InputError(
            "target-invalid",
            f"target {name!r} is based on {base!r}, which is itself based on another.",
            f"Base it on {body['based_on']!r}.",
        )
    return body


def _explain(model: type[Entry], kind: str, name: str, error: ValidationError) -> InputError:
    # A misspelt key is also a missing one; the misspelling is what helps.
    first: Any = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    where = ".".join(str(part) for part in first["loc"] if part != "[key]") or "the file"
    remedy = "Correct the value in the file."
    if first["type"] == "extra_forbidden":
        inner = _INNER.get(str(first["loc"][0]), LayerPrecision)
        known = inner.model_fields if len(first["loc"]) > 1 else model.model_fields
        remedy = did_you_mean(str(first["loc"][-1]), set(known) - {"name"})
        return InputError(f"{kind}-invalid", f"{kind} {name!r}: unknown key {where!r}.", remedy)
    if first["type"] == "literal_error":
        words = re.findall(r"'([^']+)'", first["ctx"]["expected"])
        remedy = did_you_mean(str(first["input"]), words) if words else remedy
    return InputError(f"{kind}-invalid", f"{kind} {name!r}: {where}: {first['msg']}.", remedy)


def _names(model: type[Entry]) -> list[str]:
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
