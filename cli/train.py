"""`libra-edge train`: demonstrations to a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ._progress import progress
from ._render import Output, say


def train(
    dataset: Annotated[Path, typer.Argument(help="LeRobot v3 dataset folder.")],
    out: Annotated[Path, typer.Option(help="Folder of the run: checkpoint, log, resume state.")],
    recipe: Annotated[Path | None, typer.Option(help="Training recipe (TOML).")] = None,
    start: Annotated[
        Path | None, typer.Option("--from", help="Checkpoint to start from.", show_default="none")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in OUT.")] = False,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Train a policy on demonstrations."""
    import torch

    from libra_edge.training.config import TrainingRecipe, read_training_recipe
    from libra_edge.training.run import prepare

    output = Output("train", json)
    torch.set_num_threads(threads)
    chosen = read_training_recipe(recipe) if recipe else TrainingRecipe()
    say(f"reading {dataset}")
    trainer = prepare(dataset, chosen, out, resume=resume, start=start)
    say(f"training on {trainer.device} ({trainer.device_reason}), from step {trainer.step}")
    last: dict[str, float] = {}
    with progress("training steps", chosen.training.steps - trainer.step) as advance:

        def on_step(_: int, scalars: dict[str, float]) -> None:
            last.update(scalars)
            advance(
                1,
                f"accuracy {scalars['planner/token_accuracy']:.3f}, "
                f"denoising {scalars['loss/refine']:.4f}",
            )

        trainer.run(on_step)
    output.facts("last step", {name: f"{value:.4g}" for name, value in last.items()})
    output.finish(
        {"checkpoint": str(out), "steps": trainer.step, "last": last},
        f"trained {trainer.step} steps; checkpoint in {out}",
        next_command=("simulate", out),
    )
