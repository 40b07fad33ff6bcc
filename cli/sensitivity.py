"""`libra-edge sensitivity`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from libra_edge.atomic import new_directory
from libra_edge.bundle.manifest import canonical_json
from libra_edge.data.extras import needs_extra
from libra_edge.errors import InputError

from ._options import Json
from ._progress import progress
from ._render import Output

if TYPE_CHECKING:
    from libra_edge.compiler.search.sensitivity import Measured

SCHEMA_VERSION = 1
SHOWN = 20


def sensitivity(
    checkpoint: Annotated[
        Path, typer.Argument(help="Checkpoint folder.", metavar="CHECKPOINT", show_default=False)
    ],
    recipe: Annotated[str, typer.Option(help="See `libra-edge recipes`.")],
    calibrate: Annotated[
        Path, typer.Option(metavar="DATASET", help="LeRobot dataset to calibrate on.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to create.")],
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DATASET",
            help="LeRobot dataset to measure on.",
            show_default="frames of the calibration data",
        ),
    ] = None,
    target: Annotated[str, typer.Option(help="See `libra-edge targets`.")] = "cpu-x86_64",
    samples: Annotated[int, typer.Option(min=1, help="Observations to measure on.")] = 128,
    calibration_samples: Annotated[
        int | None,
        typer.Option(min=1, help="Frames to calibrate on.", show_default="the recipe's"),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder of stage outputs.", show_default="the user's cache")
    ] = None,
    json: Json = False,
) -> None:
    """Measure what quantising each layer alone does to the policy's outputs.

    Writes sensitivity.json, sensitivity.md and sensitivity.svg, the worst layer first. `gate used`
    is the largest share of the recipe's parity gates that a layer uses up by itself.
    """
    output = Output("sensitivity", json)
    if out.exists():
        raise InputError("destination-exists", f"{out} exists.", "Name another folder with --out.")
    with needs_extra("compile", "Measuring layers"):
        from libra_edge.compiler.search.sensitivity import Request, measure
    request = Request(
        checkpoint=checkpoint,
        recipe=recipe,
        calibrate=calibrate,
        data=data,
        target=target,
        samples=samples,
        calibration_samples=calibration_samples,
        cache=cache,
    )
    with progress("sensitivity", 100) as advance:
        before = 0

        def on_progress(done: int, of: int, what: str) -> None:
            nonlocal before
            percent = 100 * done // of
            advance(percent - before, what)
            before = percent

        measured = measure(request, on_progress)
        advance(100 - before, "done")
    _write(out, measured)
    _show(output, out, measured)


def _title(measured: Measured) -> str:
    return f"Sensitivity of {measured.checkpoint.config.embodiment.name} to {measured.recipe.name}"


def _write(out: Path, measured: Measured) -> None:
    from libra_edge.report.sensitivities import markdown, svg

    title, dims = _title(measured), measured.checkpoint.config.embodiment.actions
    about = [
        f"Each layer quantised alone, on {measured.samples} observations; `gate used` is the "
        "largest share of a parity gate that it uses up by itself. Physical errors are 99th "
        "percentiles, after the planner's own tokens."
    ]
    with new_directory(out) as folder:
        report = {"schema_version": SCHEMA_VERSION, **measured.to_json()}
        (folder / "sensitivity.json").write_bytes(canonical_json(report))
        (folder / "sensitivity.md").write_text(markdown(title, about, measured.layers, dims))
        (folder / "sensitivity.svg").write_text(svg(title, measured.layers))


def _show(output: Output, out: Path, measured: Measured) -> None:
    output.table(
        ("layer, quantised alone", "gate used", "tokens", "action"),
        [
            (
                one.layer,
                f"{one.gate_used:.1%}",
                f"{one.effect.tokens:.4f}",
                f"{one.effect.action:.2%}",
            )
            for one in measured.layers[:SHOWN]
        ],
    )
    allowed, together = measured.allowed, measured.together
    output.text(
        f"gates: tokens {allowed.tokens:g}, differing margins below {allowed.margin:.3g}, action "
        f"{allowed.action:.1%} of range (p99)"
    )
    used = allowed.used(together)
    output.text(
        f"all {len(measured.layers)} layers together: tokens {together.tokens:.4f}, largest "
        f"differing margin {together.margin:.3g}, action {together.action:.2%}; "
        f"gate used {used:.0%}"
    )
    name = measured.recipe.name
    output.finish(
        {"path": str(out), **measured.to_json()},
        f"{out}: {len(measured.layers)} layers on {measured.samples} observations",
        next_command=(
            *("compile", measured.checkpoint.path, "--recipe", name),
            *(("--auto-precision",) if used > 1 else ()),
            *("--calibrate", "DATASET"),
        ),
    )
