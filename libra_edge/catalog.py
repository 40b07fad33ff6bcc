"""Targets and recipes: one TOML file each, in `targets/` and `calibration/`."""

from __future__ import annotations

import tomllib
from fnmatch import fnmatchcase
from importlib.resources import files
from math import log2
from typing import Annotated, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from libra_edge.errors import IncompatibleError, InputError, did_you_mean
from libra_edge.limits import Limits

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]
# What a target's engines can run: the arithmetic of a policy's matrix products.
Precision = Literal[
    "fp32", "fp16", "int8", "int8-weights", "int4-weights", "fp8", "int4-fp8", "nvfp4"
]
Number = Literal["fp32", "fp16", "int8", "int4", "fp8", "nvfp4"]
Algorithm = Literal["none", "max", "percentile", "entropy", "mse", "smoothquant", "awq"]
PartName = Literal[
    "planner.backbone",
    "planner.head",
    "refiner.encoder",
    "refiner.blocks",
    "embeddings",
    "outputs",
]
PARTS: tuple[PartName, ...] = get_args(PartName)


Version = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+){0,3}$")]
Positive = Annotated[float, Field(gt=0, strict=False)]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: Name
    schema_version: Literal[1]
    summary: Annotated[str, Field(min_length=1, max_length=120)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class TargetEngine(_Part):
    """One engine kind a target can run, with the ONNX Runtime provider and options it needs.

    build: on the `host` that compiles, or on the `device` when the release is installed;
    options: of the build, as the engine kind documents them.
    """

    kind: Name
    provider: str
    session_options: dict[str, str] = {}
    build: Literal["host", "device"] = "host"
    options: dict[str, str] = {}


class Software(_Part):
    """Versions a target is expected to have; an engine built for one is not loaded on another."""

    jetpack: Version | None = None
    cuda: Version | None = None
    tensorrt: Version | None = None
    driver: Version | None = None


class RuntimeLibrary(_Part):
    """The package, at the version installed here, whose wheel holds the target's ONNX Runtime.

    platform: of the wheel; provider_packages: what the robot needs besides for its providers.
    """

    package: str
    platform: str
    provider_packages: Annotated[tuple[str, ...], Field(strict=False)] = ()


class Target(_Entry):
    """A kind of machine: what native code it runs and which engines it has, best first.

    compute_capability, memory_gib (of the accelerator, or shared), bandwidth_gb_s and peak_tops
    (dense, 10^12 operations per second by number format) are absent where they are not known;
    refiner_form: the refiner's, where the forms cannot be measured against each other;
    based_on: the profile whose values count where this one says nothing.
    """

    based_on: Name | None = None
    arch: Annotated[str, Field(pattern=r"^[a-z0-9_]+-linux-gnu$")]
    glibc: Annotated[str, Field(pattern=r"^2\.[0-9]{1,3}$")]
    compute_capability: Annotated[str, Field(pattern=r"^[0-9]{1,2}\.[0-9]$")] | None = None
    memory_gib: Positive | None = None
    bandwidth_gb_s: Positive | None = None
    peak_tops: dict[Number, Positive] = {}
    precisions: Annotated[tuple[Precision, ...], Field(min_length=1, strict=False)]
    default_recipe: Name
    refiner_form: Literal["loop", "unrolled"] = "loop"
    software: Software = Software()
    onnxruntime: RuntimeLibrary
    engines: Annotated[tuple[TargetEngine, ...], Field(min_length=1, strict=False)]

    @property
    def memory_bytes(self) -> int | None:
        """What the accelerator has, or None."""
        return None if self.memory_gib is None else int(self.memory_gib * 2**30)

    @model_validator(mode="after")
    def _engines_differ(self) -> Target:
        pairs = [(engine.kind, engine.provider) for engine in self.engines]
        if len(set(pairs)) != len(pairs):
            raise ValueError("two engines have the same kind and provider")
        return self


class LayerPrecision(BaseModel):
    """How one layer's weights are stored, and what its input is rounded to before it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    weights: Number
    activations: Number

    @property
    def high(self) -> bool:
        """Whether nothing is quantised."""
        return self == HIGH

    def __str__(self) -> str:
        return (
            self.weights
            if self.weights == self.activations
            else (f"{self.weights} weights, {self.activations} activations")
        )


HIGH = LayerPrecision(weights="fp32", activations="fp32")


class Recipe(_Entry):
    """How the numbers of a policy are stored and computed.

    precision: what a target must be able to run; algorithm: how ranges are found; percentile: of
    absolute activations, for that algorithm; block: inputs of an output that share a scale, where
    weights have 4 bits; samples: calibration samples wanted; keep: patterns (`*` matches anything)
    of layers that stay in high precision; parts: per part of the policy what its layers become,
    high precision where a part is left out; gates: what a release has to pass, by default.
    """

    precision: Precision
    algorithm: Algorithm = "none"
    percentile: Annotated[float, Field(gt=50, le=100)] = 99.99
    block: Literal[16, 32, 64, 128] = 32
    samples: Annotated[int, Field(ge=1, le=4096)] = 256
    needs_gpu: bool = False
    keep: Annotated[tuple[str, ...], Field(strict=False)] = ()
    parts: dict[PartName, LayerPrecision] = {}
    gates: Limits

    @model_validator(mode="after")
    def _algorithm_fits(self) -> Recipe:
        if bool(self.parts) != (self.algorithm != "none"):
            raise ValueError("a recipe with parts needs an algorithm, and only such a one")
        return self

    @property
    def quantizes(self) -> bool:
        """Whether any layer changes."""
        return bool(self.parts)

    def layer(self, name: str, part: PartName) -> LayerPrecision:
        """What the layer called `name`, in `part`, becomes."""
        if any(fnmatchcase(name, pattern) for pattern in self.keep):
            return HIGH
        return self.parts.get(part, HIGH)


EntryT = TypeVar("EntryT", bound=_Entry)
_FOLDERS: dict[type[_Entry], tuple[str, str]] = {
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
    if recipe.precision in target.precisions:
        return
    nearest = nearest_recipe(target, recipe)
    machines = [t.name for t in list_targets().values() if recipe.precision in t.precisions]
    raise IncompatibleError(
        "recipe-unsupported",
        f"Target {target.name!r} cannot run recipe {recipe.name!r} ({recipe.precision}); "
        f"{', '.join(machines) or 'no target here'} can.",
        f"Nearest on {target.name}: --recipe {nearest.name} ({nearest.summary}).",
    )


def nearest_recipe(target: Target, recipe: Recipe) -> Recipe:
    """Of the recipes a target can run, the one whose layers differ least in bits."""
    able = [r for r in list_recipes().values() if r.precision in target.precisions]
    return min(able, key=lambda other: (_distance(recipe, other), other.name))


_BITS: dict[Number, int] = {"fp32": 32, "fp16": 16, "int8": 8, "fp8": 8, "int4": 4, "nvfp4": 4}


def _distance(one: Recipe, other: Recipe) -> float:
    """Octaves of width between two recipes' weights and activations, over all parts."""

    def widths(recipe: Recipe) -> list[float]:
        layers = [recipe.layer("", part) for part in PARTS]
        return [log2(_BITS[n]) for layer in layers for n in (layer.weights, layer.activations)]

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


def _explain(model: type[_Entry], kind: str, name: str, error: ValidationError) -> InputError:
    # A misspelt key is also a missing one; the misspelling is what helps.
    first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    where = ".".join(str(part) for part in first["loc"]) or "the file"
    remedy = "Correct the value in the file."
    if first["type"] == "extra_forbidden":
        inner = _INNER.get(str(first["loc"][0]), LayerPrecision)
        known = inner.model_fields if len(first["loc"]) > 1 else model.model_fields
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
