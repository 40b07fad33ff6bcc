"""`libra-edge collect`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from libra_edge.data.extras import needs_extra
from libra_edge.data.simulator import open_simulator
from libra_edge.errors import InputError
from libra_edge.workers.where import Workers

from ._options import Jobs, Json, Ray
from ._progress import progress
from ._render import Output


class Split(StrEnum):
    """Which variations of a task: the ones to learn from, or the ones held out."""

    train = "train"
    eval = "eval"


def collect(
    out: Annotated[Path, typer.Option("--out", "-o", help="Dataset folder to create.")],
    task: Annotated[
        list[str] | None,
        typer.Option(
            help="Task to record, NAME or NAME=EPISODES; may be repeated.", show_default="all"
        ),
    ] = None,
    simulator: Annotated[str, typer.Option(help="Simulator.")] = "metaworld",
    episodes: Annotated[
        int, typer.Option(min=1, help="Episodes of each task that names no number.")
    ] = 60,
    seed: Annotated[int, typer.Option(min=0, help="First seed; others give other scenes.")] = 0,
    split: Annotated[Split, typer.Option(help="Variations to record.")] = Split.train,
    noise: Annotated[
        float, typer.Option(min=0.0, help="Disturbance, as a fraction of each action's range.")
    ] = 0.1,
    noisy_share: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of the episodes that are disturbed.")
    ] = 0.5,
    detour_share: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, help="Share of the episodes that start with a detour."),
    ] = 0.0,
    lossy: Annotated[bool, typer.Option("--lossy", help="AV1 in place of exact pixels.")] = False,
    jobs: Jobs = None,
    ray: Ray = None,
    json: Json = False,
) -> None:
    """Record demonstrations of scripted experts as a LeRobot v3 dataset.

    In disturbed episodes the robot is pushed off the expert's path while the expert's own action
    is recorded, so that the data shows how to come back. After a detour (a random action, held,
    not recorded) the robot's place says nothing about its task: only the instruction does.
    """
    with needs_extra("sim", "Recording"):
        from libra_edge.data.collect import CollectConfig
        from libra_edge.data.collect import collect as record
        from libra_edge.data.types import Episode

    output = Output("collect", json)
    asked = task or open_simulator(simulator, split.value).tasks
    counts = dict(_count(item, episodes) for item in asked)
    config = CollectConfig(
        episodes=counts,
        seed=seed,
        split=split.value,
        noise_std=noise,
        noisy_share=noisy_share,
        detour_share=detour_share,
    )
    frames: dict[str, int] = dict.fromkeys(counts, 0)
    with progress("episodes", sum(counts.values())) as advance:

        def on_episode(episode: Episode) -> None:
            frames[episode.task] += len(episode)
            advance(1, episode.task)

        record(
            simulator, config, out, Workers(jobs, ray), "av1" if lossy else "lossless", on_episode
        )
    output.table(
        ("task", "episodes", "frames"), [(name, counts[name], n) for name, n in frames.items()]
    )
    total = sum(frames.values())
    output.finish(
        {"path": str(out), "episodes": counts, "frames": frames},
        f"{sum(counts.values())} episodes, {total} frames in {out}",
        next_command=("train", out, "--out", "runs/first"),
    )


def _count(item: str, default: int) -> tuple[str, int]:
    """Task and number of episodes from NAME or NAME=EPISODES."""
    name, separator, count = item.partition("=")
    if not separator:
        return name, default
    if not count.isdecimal() or int(count) < 1:
        raise InputError(
            "nothing-to-collect",
            f"--task {item} names no number of episodes.",
            f"Write --task {name}={default}, for example.",
        )
    return name, int(count)
