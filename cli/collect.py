"""`libra-edge collect`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from libra_edge.data.extras import needs_extra
from libra_edge.data.simulator import open_simulator

from ._options import Json
from ._render import Output, progress


class Split(StrEnum):
    """Which variations of a task: the ones to learn from, or the ones held out."""

    train = "train"
    eval = "eval"


def collect(
    out: Annotated[Path, typer.Option("--out", "-o", help="Dataset folder to create.")],
    task: Annotated[
        list[str] | None,
        typer.Option(help="Task to record; may be repeated.", show_default="all"),
    ] = None,
    simulator: Annotated[str, typer.Option(help="Simulator.")] = "metaworld",
    episodes: Annotated[int, typer.Option(min=1, help="Episodes per task.")] = 60,
    seed: Annotated[int, typer.Option(min=0, help="First seed; others give other scenes.")] = 0,
    split: Annotated[Split, typer.Option(help="Variations to record.")] = Split.train,
    noise: Annotated[
        float, typer.Option(min=0.0, help="Disturbance, as a fraction of each action's range.")
    ] = 0.1,
    noisy_share: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of the episodes that are disturbed.")
    ] = 0.5,
    lossy: Annotated[bool, typer.Option("--lossy", help="AV1 in place of exact pixels.")] = False,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Processes.")] = 1,
    json: Json = False,
) -> None:
    """Record demonstrations of scripted experts as a LeRobot v3 dataset.

    In disturbed episodes the robot is pushed off the expert's path while the expert's own action
    is recorded, so that the data shows how to come back.
    """
    with needs_extra("sim", "Recording"):
        from libra_edge.data.collect import CollectConfig
        from libra_edge.data.collect import collect as record
        from libra_edge.data.types import Episode

    output = Output("collect", json)
    tasks = tuple(task or open_simulator(simulator, split.value).tasks)
    config = CollectConfig(
        tasks=tasks,
        episodes_per_task=episodes,
        seed=seed,
        split=split.value,
        noise_std=noise,
        noisy_share=noisy_share,
    )
    frames: dict[str, int] = dict.fromkeys(tasks, 0)
    with progress("episodes", len(tasks) * episodes) as advance:

        def on_episode(episode: Episode) -> None:
            frames[episode.task] += len(episode)
            advance(1, episode.task)

        record(simulator, config, out, jobs, "av1" if lossy else "lossless", on_episode)
    output.table(
        ("task", "episodes", "frames"), [(name, episodes, count) for name, count in frames.items()]
    )
    total = sum(frames.values())
    output.finish(
        {"path": str(out), "episodes_per_task": episodes, "frames": frames},
        f"{len(tasks) * episodes} episodes, {total} frames in {out}",
        next_command=f"libra-edge train {out} --out runs/first",
    )
