"""`libra-edge targets`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import typer

from libra_edge import catalog
from libra_edge.catalog import Target, TargetEngine
from libra_edge.errors import InputError

from ._options import Json
from ._render import Output


def targets(
    show: Annotated[
        Literal["show"] | None, typer.Argument(help="Show one target.", show_default=False)
    ] = None,
    name: Annotated[
        str | None, typer.Argument(help="Which one.", metavar="NAME", show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """List the machines a release can be compiled for, or show one of them.

    `libra-edge targets` lists all, `libra-edge targets show NAME` prints everything about one.
    """
    output = Output("targets", json)
    if show is None:
        _list(output)
    elif name is None:
        raise InputError("usage", "`targets show` needs a name.", "libra-edge targets lists them.")
    else:
        _show(output, catalog.load_target(name))


def _list(output: Output) -> None:
    entries = catalog.list_targets()
    output.table(
        ("target", "arch", "memory", "engines", "precisions", "summary"),
        [
            (
                name,
                target.arch,
                "" if target.memory_gib is None else f"{target.memory_gib:g} GiB",
                ", ".join(engine.kind for engine in target.engines),
                ", ".join(target.precisions),
                target.summary,
            )
            for name, target in entries.items()
        ],
    )
    output.finish(
        {"targets": [target.model_dump(mode="json") for target in entries.values()]},
        f"{len(entries)} target{'s' * (len(entries) != 1)}",
        next_command=("targets", "show", next(iter(entries))),
    )


def _show(output: Output, target: Target) -> None:
    output.facts(f"target {target.name}", _facts(target))
    output.finish(
        {"target": target.model_dump(mode="json")},
        target.summary,
        next_command=("compile", "CHECKPOINT", "--target", target.name),
    )


def _facts(target: Target) -> Mapping[str, object]:
    library = target.onnxruntime
    robot = f"; in the release {', '.join(library.provider_packages)}"
    found = {
        "based on": target.based_on,
        "native code": f"{target.arch}, glibc >= {target.glibc}",
        "compute capability": target.compute_capability,
        "memory": target.memory_gib and f"{target.memory_gib:g} GiB",
        "bandwidth": target.bandwidth_gb_s and f"{target.bandwidth_gb_s:g} GB/s",
        "dense peak": ", ".join(f"{n} {rate:g} T/s" for n, rate in target.peak_tops.items()),
        "software": ", ".join(f"{n} {v}" for n, v in vars(target.software).items() if v),
        "ONNX Runtime": f"wheel {library.package} for {library.platform}"
        + (robot if library.provider_packages else ""),
        "engines": "; ".join(map(_engine, target.engines)),
        "precisions": ", ".join(target.precisions),
        "recipe by default": target.default_recipe,
        "planner by default": _default(target, "planner"),
        "refiner by default": _default(target, "refiner")
        + f"; {target.refiner_form}, where forms cannot be measured",
    }
    return {name: value or "not known" for name, value in found.items() if value is not None}


def _default(target: Target, engine: Literal["planner", "refiner"]) -> str:
    """The kind of engine and what most of its products become, from the recipe's parts."""
    recipe = catalog.load_recipe(target.default_recipe)
    formats = {str(recipe.parts[part]) for part in recipe.parts if part.startswith(engine)}
    what = " and ".join(sorted(formats)) or recipe.precision
    return f"{target.engines[0].kind}, {what}"


def _engine(engine: TargetEngine) -> str:
    where = "built on the robot" if engine.build == "device" else "built while compiling"
    return f"{engine.kind} ({engine.provider}), {where}"
