"""`libra-edge estimate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from libra_edge.catalog import list_targets, load_recipe, load_target
from libra_edge.data.extras import needs_extra
from libra_edge.policy.config import read_config

from ._options import Json
from ._render import Output

if TYPE_CHECKING:
    from libra_edge.compiler.work.estimate import Estimate


def estimate(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            help="Checkpoint folder; only config.json is read.",
            metavar="CHECKPOINT",
            show_default=False,
        ),
    ],
    target: Annotated[
        str, typer.Option(help="Targets, separated by commas; see `libra-edge targets`.")
    ] = "all",
    recipe: Annotated[
        str, typer.Option(help="Recipes, separated by commas; see `libra-edge recipes`.")
    ] = "fp16,int8,fp8,int4-awq",
    json: Json = False,
) -> None:
    """Bound a policy's latency on targets, without building anything.

    From the operations, bytes and kernels of its graphs and the rates in the targets' profiles: no
    device is faster than this, real ones are slower. `average` is the planner's share and the
    refiner.
    """
    output = Output("estimate", json)
    config = read_config(checkpoint / "config.json")
    names = sorted(list_targets()) if target == "all" else target.split(",")
    targets = [load_target(name) for name in names]
    recipes = [load_recipe(name) for name in recipe.split(",")]
    with needs_extra("compile", "Counting a policy's operations"):
        from libra_edge.compiler.work.count import count
        from libra_edge.compiler.work.estimate import estimate as estimated
    rows = list(estimated(config, targets, recipes))
    parameters = count(config, recipes[0]).parameters
    output.table(
        ("target", "recipe", "planner ms", "refiner ms", "average ms", "memory", "limited by"),
        [_row(row) for row in rows],
    )
    output.text("")
    output.finish(
        {
            "parameters": parameters,
            "chunks_per_plan": config.chunks_per_plan,
            "rows": [_json(row) for row in rows],
        },
        f"{parameters / 1e6:,.1f} M parameters, K = {config.schedule.denoise_steps}, "
        f"M = {config.chunks_per_plan}: bounds, not measurements",
    )


def _row(row: Estimate) -> tuple[object, ...]:
    memory = f"{row.memory_bytes / 2**30:.2f} GiB"
    if row.bound is None:
        return row.target.name, row.recipe.name, "–", "–", "–", memory, row.why
    both = [bound for bound in (row.bound.planner, row.bound.refiner) if bound is not None]
    times = (f"{ms:.3g}" for ms in (*(bound.ms for bound in both), row.bound.average_ms))
    limits = "/".join(dict.fromkeys(bound.limit for bound in both))
    return row.target.name, row.recipe.name, *times, memory, limits


def _json(row: Estimate) -> dict[str, Any]:
    bound = row.bound
    planner = bound and bound.planner
    return {
        "target": row.target.name,
        "recipe": row.recipe.name,
        "memory_bytes": row.memory_bytes,
        "planner_ms": planner and planner.ms,
        "planner_limit": planner and planner.limit,
        "refiner_ms": bound and bound.refiner.ms,
        "refiner_limit": bound and bound.refiner.limit,
        "average_ms": bound and bound.average_ms,
        "why_not": row.why or None,
    }
