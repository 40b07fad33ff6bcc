"""`libra-edge train`: demonstrations to a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from libra_edge.data.extras import needs_extra
from libra_edge.data.findings import Finding, stopping

from ._dataset import Strict, say_findings
from ._options import Json
from ._progress import progress
from ._render import Output, say

if TYPE_CHECKING:
    from libra_edge.training.frames import FramePlan


def train(
    dataset: Annotated[Path, typer.Argument(help="LeRobot dataset folder.")],
    out: Annotated[Path, typer.Option(help="Folder of the run: checkpoint, log, resume state.")],
    recipe: Annotated[Path | None, typer.Option(help="Training recipe (TOML).")] = None,
    robot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Description of the robot.",
            show_default="the dataset's meta/libra_edge.json",
        ),
    ] = None,
    start: Annotated[
        Path | None, typer.Option("--from", help="Checkpoint to start from.", show_default="none")
    ] = None,
    backbone: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Pretrained vision-language model for the planner (InternVL or Qwen2.5-VL).",
            show_default="none",
        ),
    ] = None,
    eyes: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Pretrained picture encoder for the refiner (SigLIP or DINOv2).",
            show_default="none",
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in OUT.")] = False,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    strict: Strict = False,
    json: Json = False,
) -> None:
    """Train a policy on demonstrations.

    The dataset is examined first, as `libra-edge dataset check` does. Its pictures are then decoded
    once, at the policy's size, into a file in OUT, which is removed at the end.
    """
    with needs_extra("train", "Training"):
        import torch

        from libra_edge.training.config import TrainingRecipe, read_training_recipe
        from libra_edge.training.run import Progress, prepare

    output = Output("train", json)
    torch.set_num_threads(threads)
    chosen = read_training_recipe(recipe) if recipe else TrainingRecipe()
    say(f"examining {dataset}")
    findings: list[Finding] = []
    with ExitStack() as stack:
        decoding = _Decoding(out, stack)

        def on_findings(found: Sequence[Finding]) -> None:
            findings.extend(found)
            say_findings(found, but=next(iter(stopping(found, strict=strict)), None))

        reports = Progress(on_findings, decoding.begin, decoding.advance)
        trainer = prepare(
            dataset,
            chosen,
            out,
            resume=resume,
            start=start,
            robot=robot,
            strict=strict,
            backbone=backbone,
            eyes=eyes,
            progress=reports,
        )
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
        {
            "checkpoint": str(out),
            "steps": trainer.step,
            "last": last,
            "findings": [finding.to_json() for finding in findings],
        },
        f"trained {trainer.step} steps; checkpoint in {out}",
        next_command=("compile", out, "--data", dataset),
    )


class _Decoding:
    """Says what decoding takes before it begins, then shows how far it is."""

    def __init__(self, out: Path, stack: ExitStack) -> None:
        self._out, self._stack = out, stack
        self._advance: Callable[..., None] = lambda _: None

    def begin(self, plan: FramePlan) -> None:
        views, height, width, _ = plan.shape
        say(
            f"decoding {plan.steps} frames of {views} cameras to {height} x {width}: "
            f"{plan.size_bytes / 1e6:.0f} MB in {self._out} while it trains, "
            f"about {plan.seconds:.0f} s"
        )
        self._advance = self._stack.enter_context(progress("frames", plan.steps))

    def advance(self, steps: int) -> Any:
        self._advance(steps)
