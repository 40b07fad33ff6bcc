"""`libra-edge recipes`."""

from __future__ import annotations

from libra_edge import catalog

from ._options import Json
from ._render import Output


def recipes(json: Json = False) -> None:
    """List the precision recipes, and the targets that can run each."""
    output = Output("recipes", json)
    entries = catalog.list_recipes()
    targets = catalog.list_targets()
    runs_on = {
        name: [t.name for t in targets.values() if recipe.needs <= set(t.precisions)]
        for name, recipe in entries.items()
    }
    output.table(
        ("recipe", "precision", "calibration", "targets", "summary"),
        [
            (n, r.precision, _calibration(r), ", ".join(runs_on[n]) or "–", r.summary)
            for n, r in entries.items()
        ],
    )
    output.finish(
        {
            "recipes": [
                {**recipe.model_dump(mode="json"), "targets": runs_on[name]}
                for name, recipe in entries.items()
            ]
        },
        f"{len(entries)} recipe{'s' * (len(entries) != 1)}",
        next_command=("compile", "CHECKPOINT", "--recipe", "fp32"),
    )


def _calibration(recipe: catalog.Recipe) -> str:
    if not recipe.quantizes:
        return "none"
    where = ", on a GPU" if recipe.needs_gpu else ""
    return f"{recipe.algorithm}, {recipe.samples} frames{where}"
