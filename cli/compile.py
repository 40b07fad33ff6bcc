"""`libra-edge compile`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from libra_edge.bundle.members import SIGNATURE
from libra_edge.data.extras import needs_extra
from libra_edge.errors import InputError

from ._dataset import Strict, doubts_shown
from ._matrix import OF_THE_MATRIX, compile_matrix
from ._options import (
    AllowLoose,
    Force,
    GatesFile,
    Json,
    Ray,
    Robot,
    TokenizerFile,
    VlmConfig,
    given_words,
)
from ._parity import gate_changes, parity_table
from ._passphrase import PassphraseEnv, from_variable, load_key
from ._progress import progress
from ._render import Output

if TYPE_CHECKING:
    from libra_edge.compiler.pipeline import Compiled
    from libra_edge.compiler.search.search import Found


def compile_(
    context: typer.Context,
    checkpoint: Annotated[
        Path, typer.Argument(help="Checkpoint folder.", metavar="CHECKPOINT", show_default=False)
    ],
    target: Annotated[
        str, typer.Option(help="See `libra-edge targets`; several, separated by commas.")
    ] = "cpu-x86_64",
    recipe: Annotated[
        str | None,
        typer.Option(
            help="See `libra-edge recipes`; several, separated by commas.",
            show_default="the target's",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Release directory.", show_default="NAME-TARGET-RECIPE"),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the release.", show_default="the robot's")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DATASET",
            help="LeRobot dataset for gates and golden vectors.",
            show_default="made-up observations",
        ),
    ] = None,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            metavar="DATASET",
            help="LeRobot dataset to calibrate on: training data.",
            show_default="none; recipes that quantise need one",
        ),
    ] = None,
    calibration_samples: Annotated[
        int | None,
        typer.Option(min=1, help="Frames to calibrate on.", show_default="the recipe's"),
    ] = None,
    auto_precision: Annotated[
        bool,
        typer.Option(
            "--auto-precision",
            help="Keep the recipe's worst layers in high precision until the gates hold.",
        ),
    ] = False,
    max_action_error: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            metavar="PERCENT",
            help="With --auto-precision: gate of action errors, of each dimension's range.",
            show_default="the recipe's",
        ),
    ] = None,
    gates: GatesFile = None,
    allow_loose: AllowLoose = False,
    form: Annotated[
        Literal["loop", "unrolled"] | None,
        typer.Option(help="Form of the refiner.", show_default="the faster"),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder of stage outputs.", show_default="the user's cache")
    ] = None,
    engine: Annotated[
        str | None, typer.Option(help="Engine kind.", show_default="the target's first")
    ] = None,
    engines_on_device: Annotated[
        bool, typer.Option("--engines-on-device", help="Leave building engines to the robot.")
    ] = False,
    random_weights: Annotated[
        bool,
        typer.Option("--random-weights", help="Draw the weights: a release to measure, no policy."),
    ] = False,
    robot: Robot = None,
    tokenizer: TokenizerFile = None,
    vlm_config: VlmConfig = None,
    security_epoch: Annotated[
        int,
        typer.Option(
            min=0, help="Robots refuse a release whose key has signed a higher one.", metavar="N"
        ),
    ] = 0,
    sign: Annotated[
        Path | None,
        typer.Option(
            metavar="KEY", help="Sign the release with this private key.", show_default=False
        ),
    ] = None,
    passphrase_env: PassphraseEnv = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Releases at a time.", show_default="the processors")
    ] = None,
    memory_gib: Annotated[
        float | None,
        typer.Option(min=0.1, help="Memory for all of them.", show_default="what is free"),
    ] = None,
    ray: Ray = None,
    force: Force = False,
    strict: Strict = False,
    json: Json = False,
) -> None:
    """Compile a checkpoint into a release.

    Every stage is held against the one before it; if one differs, nothing is written. With several
    targets or recipes, the pairs that make sense are compiled in parallel, below --out.
    """
    output = Output("compile", json)
    with needs_extra("compile", "Compiling"):
        from libra_edge.compiler.pipeline import STAGES, compile_checkpoint
        from libra_edge.compiler.request import Request
    if sign is None and passphrase_env is not None:
        raise InputError("usage", "--passphrase-env is for --sign.", "Leave it out.")
    if ray is not None and memory_gib is not None:
        raise InputError(
            "usage",
            "--memory-gib is for this machine; Ray counts the memory of its nodes itself.",
            "Leave out --memory-gib or --ray.",
        )
    if "," in target or (recipe is not None and "," in recipe):
        if sign is not None:
            _require_key_of_many(sign, passphrase_env)
        words = given_words(context, but=OF_THE_MATRIX)
        compile_matrix(output, checkpoint, target, recipe, out, name, words, jobs, memory_gib, ray)
        return
    if jobs is not None or memory_gib is not None or ray is not None:
        raise InputError(
            "usage",
            "--jobs, --memory-gib and --ray are for several releases.",
            "Name several targets or recipes, separated by commas.",
        )
    request = Request(
        checkpoint=checkpoint,
        target=target,
        recipe=recipe,
        out=out,
        name=name,
        data=data,
        calibrate=calibrate,
        calibration_samples=calibration_samples,
        auto_precision=auto_precision,
        max_action_error=None if max_action_error is None else max_action_error / 100,
        gates=gates,
        allow_loose=allow_loose,
        form=form,
        cache=cache,
        force=force,
        engine=engine,
        engines_on_device=engines_on_device,
        random_weights=random_weights,
        robot=robot,
        tokenizer=tokenizer,
        vlm_config=vlm_config,
        security_epoch=security_epoch,
        sign=None if sign is None else load_key(sign, passphrase_env),
    )
    with (
        doubts_shown(strict=strict) as doubts,
        progress("compile", len(STAGES), even=False) as advance,
    ):
        begun: list[str] = []

        def on_stage(stage: str, note: str) -> None:
            advance(0 if not begun or stage == begun[-1] else 1, f"{stage}: {note}")
            begun.append(stage)

        compiled = compile_checkpoint(request, on_stage)
        advance(1, "done")
    _show(output, compiled, doubts)


def _require_key_of_many(key: Path, env: str | None) -> None:
    """Refuse before the work what none of many processes could ask for.

    Raises:
        InputError: the key or its passphrase is not usable.
    """
    from libra_edge.bundle.signing.keys import load_private

    load_private(key, None if env is None else from_variable(env))


def _show(output: Output, compiled: Compiled, doubts: list[dict[str, Any]]) -> None:
    manifest = compiled.manifest
    parity_table(output, compiled.checks)
    gate_changes(output, manifest.gates, "of this release")
    chosen = manifest.engines.refiner.form
    if compiled.medians_ms:
        output.table(
            ("speed (1 thread, median)", "ms", "in the release"),
            [
                (
                    f"refiner, {name}" if name != "planner" else name,
                    f"{ms:.2f}",
                    "yes" if name in ("planner", chosen) else "no",
                )
                for name, ms in compiled.medians_ms.items()
            ],
        )
    if compiled.found is not None:
        _show_kept(output, compiled.found)
    output.text("")
    for decision in manifest.decisions:
        output.text(f"{decision.subject}: {decision.choice} ({decision.reason})")
    output.text(f"figures: {compiled.report}")
    output.finish(
        {
            "path": str(compiled.path),
            "release_id": manifest.release_id,
            "report": str(compiled.report),
            "signed": (compiled.path / SIGNATURE).is_file(),
            "manifest": manifest.model_dump(mode="json"),
            "checks": [check.to_json() for check in compiled.checks],
            "medians_ms": dict(compiled.medians_ms),
            "dataset_doubts": doubts,
            "kept": [vars(kept) for kept in compiled.found.kept] if compiled.found else None,
        },
        f"{compiled.path}: {_counted(compiled)}, release {manifest.release_id[:12]}",
        next_command=("simulate" if compiled.medians_ms else "pack", compiled.path),
    )


def _show_kept(output: Output, found: Found) -> None:
    output.text("")
    output.table(
        ("kept in high precision", "gate used alone", "tokens", "action", f"cost ({found.unit})"),
        [
            (
                kept.layer,
                f"{kept.gate_used:.0%}",
                f"{kept.tokens:.4f}",
                f"{kept.action:.2%}",
                kept.cost,
            )
            for kept in found.kept
        ],
    )
    output.text(
        f"{len(found.kept)} of {len(found.kept) + len(found.quantized)} layers kept; the rest "
        f"together uses {found.gate_used:.0%} of the gates in simulation"
    )


def _counted(compiled: Compiled) -> str:
    passed = sum(check.verdict == "pass" for check in compiled.checks)
    left = len(compiled.checks) - passed
    random = ", RANDOM WEIGHTS" if compiled.manifest.random_weights else ""
    return f"{passed} checks passed" + (f", {left} not measured here" if left else "") + random
