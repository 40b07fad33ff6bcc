"""`libra-edge simulate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from libra_edge.binding.live_policy import LivePolicy, summary_rows
from libra_edge.binding.replay import is_recording
from libra_edge.binding.replay import replay as repeat_run
from libra_edge.bundle.verify import is_release, open_release
from libra_edge.data.extras import needs_extra
from libra_edge.data.simulator import Simulator, open_simulator
from libra_edge.errors import ExitCode, InputError
from libra_edge.evaluation import closed_loop
from libra_edge.evaluation.kept import policy_identity, read_results
from libra_edge.evaluation.motion import combined, motion_rows
from libra_edge.workers.ledger import Ledger
from libra_edge.workers.where import WHOLE, Shard, Workers

from ._dataset import Strict, doubts_shown
from ._options import Jobs, Json, Ray
from ._progress import progress
from ._render import Output
from .collect import Split

if TYPE_CHECKING:
    from libra_edge.evaluation.film import Film


class Mode(StrEnum):
    """How the runtime is driven."""

    sync = "sync"
    live = "async"


def simulate(
    policy: Annotated[
        Path,
        typer.Argument(
            metavar="CHECKPOINT|RELEASE",
            help="Checkpoint folder, release directory or .libra file.",
            show_default=False,
        ),
    ],
    task: Annotated[
        list[str] | None,
        typer.Option(help="Task to run; may be repeated.", show_default="all"),
    ] = None,
    simulator: Annotated[str, typer.Option(help="Simulator.")] = "metaworld",
    episodes: Annotated[int, typer.Option(min=1, help="Episodes per task, or to replay.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="First seed.")] = 0,
    split: Annotated[Split, typer.Option(help="Variations; eval is held out.")] = Split.eval,
    swap: Annotated[
        list[str] | None,
        typer.Option(metavar="TASK=OTHER", help="Tell the robot OTHER in TASK's scene."),
    ] = None,
    shuffle_intents: Annotated[
        bool, typer.Option("--shuffle-intents", help="Feed the refiner random intents.")
    ] = False,
    replay: Annotated[
        Path | None,
        typer.Option(
            metavar="DATASET|RECORDING",
            help="Show a dataset's observations, or repeat what --record wrote; needs no renderer.",
        ),
    ] = None,
    record: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write every call of the run; releases only."),
    ] = None,
    video: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.mp4",
            help="Film the episodes: cameras, instruction, state, plan age, chunks and holds.",
        ),
    ] = None,
    jobs: Jobs = None,
    ray: Ray = None,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="K/N",
            help="Run the K-th of N shares of the episodes, for `libra-edge merge`.",
            show_default="all",
        ),
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Keep the results there as they come; a run that stopped goes on from them.",
        ),
    ] = None,
    mode: Annotated[
        Mode, typer.Option(help="async: engines in threads, at the robot's rate; releases only.")
    ] = Mode.sync,
    strict: Strict = False,
    json: Json = False,
) -> None:
    """Run a policy in the simulator and report its success per task.

    A release is run by the runtime a robot has, a checkpoint by PyTorch. Intervals are Wilson's
    at 95 %.
    """
    output = Output("simulate", json)
    workers = Workers(jobs, ray)
    alone = workers.count == 1 and ray is None
    _check_spread(replay, record, video, mode, alone, shard, results)
    if replay is not None and is_recording(replay):
        _check_repeat(shuffle_intents, record, task, swap, mode)
        _check_video(video, replay, alone)
        _repeat(output, policy, replay)
        return
    if record is not None:
        _check_record(replay, alone)
    if video is not None:
        _check_video(video, replay, alone)
    controller = partial(closed_loop.open_controller, policy, shuffle_intents, record=record)
    live = None
    if mode is Mode.live:
        _check_live(policy, shuffle_intents, replay, alone)
        live = LivePolicy(open_release(policy).path, record=record)
    if replay is not None:
        _replay(output, policy, replay, episodes, controller, strict=strict)
        return
    open_simulated = partial(open_simulator, simulator, split.value)
    opened = open_simulated()
    closed_loop.check_fits(closed_loop.policy_embodiment(policy), opened.embodiment())
    specs = closed_loop.plan_episodes(
        opened, task or opened.tasks, episodes, seed, _parse_swap(swap or [])
    )
    settings: dict[str, object] = {
        "policy": str(policy),
        "simulator": simulator,
        "split": split.value,
        "shuffle_intents": shuffle_intents,
        "mode": mode.value,
        "record": None if record is None else str(record),
        "video": None if video is None else str(video),
    }
    part = WHOLE if shard is None else Shard.parse(shard)
    decides = [policy_identity(policy), [asdict(spec) for spec in specs]]
    ledger = Ledger(results, "simulate", settings, decides, len(specs), part)
    units = ledger.missing
    with progress("episodes", len(units)) as advance, _film(video, opened) as film:
        coming = iter(units)

        def on_result(result: closed_loop.EpisodeResult) -> None:
            ledger.add(next(coming), asdict(result))
            advance(1, f"{result.task} {'ok' if result.success else 'failed'}")

        chosen = controller if live is None else lambda: live
        wanted = [specs[number] for number in units]
        closed_loop.run(chosen, open_simulated, wanted, workers, on_result, film)
    if live is not None:
        settings["runtime"] = live.stats
        _show_runtime(output, live.stats)
    if part != WHOLE:
        settings["shard"] = shard
    rows = [ledger.results[number] for number in sorted(ledger.results)]
    report(output, settings, read_results(rows))


def _check_live(policy: Path, shuffle_intents: bool, replay: Path | None, alone: bool) -> None:
    if not is_release(policy) or shuffle_intents or replay is not None or not alone:
        raise InputError(
            "usage",
            "--mode async runs a release in real time, on its own.",
            "Name a release, without --replay, --shuffle-intents and --jobs.",
        )


def _check_spread(
    replay: Path | None,
    record: Path | None,
    video: Path | None,
    mode: Mode,
    alone: bool,
    shard: str | None,
    results: Path | None,
) -> None:
    if shard is not None and results is None:
        raise InputError(
            "usage",
            "--shard without --results leaves nothing to merge.",
            f"Add --results FILE, for example shard-{shard.partition('/')[0]}.jsonl.",
        )
    one_run = record is not None or video is not None or mode is Mode.live
    if results is not None and (replay is not None or one_run):
        raise InputError(
            "usage",
            "--results keeps episodes that can be run again one by one.",
            "Leave out --replay, --record, --video and --mode async, or --results.",
        )
    if replay is not None and not alone:
        raise InputError("usage", "A replay runs in one process.", "Leave out --jobs and --ray.")


def _check_record(replay: Path | None, alone: bool) -> None:
    if replay is not None or not alone:
        raise InputError(
            "usage", "--record writes one run.", "Leave out --replay, and --jobs above 1."
        )


def _check_video(video: Path | None, replay: Path | None, alone: bool) -> None:
    if video is not None and (replay is not None or not alone):
        raise InputError(
            "usage", "--video films one run.", "Leave out --replay, and --jobs above 1."
        )


def _film(video: Path | None, simulator: Simulator) -> AbstractContextManager[Film | None]:
    if video is None:
        return nullcontext()
    with needs_extra("sim", "Writing a film"):
        from libra_edge.evaluation.film import Film

    return Film(video, simulator.embodiment())


def _check_repeat(
    shuffle_intents: bool,
    record: Path | None,
    task: list[str] | None,
    swap: list[str] | None,
    mode: Mode,
) -> None:
    if shuffle_intents or record is not None or task or swap or mode is Mode.live:
        raise InputError(
            "usage",
            "A recording is repeated as it is: it holds its episodes and its mode.",
            "Leave out --task, --swap, --mode, --record and --shuffle-intents.",
        )


def _repeat(output: Output, policy: Path, path: Path) -> None:
    result = repeat_run(open_release(policy).path, path)
    output.finish(
        {"policy": str(policy), "recording": str(path), "replay": asdict(result)},
        f"{path}: {result.in_words()}",
        exit_code=ExitCode.OK if result.first_difference is None else ExitCode.PARITY,
    )


def _show_runtime(output: Output, stats: dict[str, Any]) -> None:
    output.table(("async", "p50", "p99", "largest"), list(summary_rows(stats)))
    counts = f"{stats['holds']} holds, {stats['underruns']} underruns"
    output.text(f"{stats['running_ticks']} of {stats['ticks']} ticks RUNNING, {counts}")
    if stats["refine_ahead_steps"]:
        why = stats["refine_ahead_reason"]
        output.text(f"the next chunk begins {stats['refine_ahead_steps']} steps ahead: {why}")


def report(
    output: Output, settings: Mapping[str, object], results: Sequence[closed_loop.EpisodeResult]
) -> None:
    """Show how the episodes of a run ended, and leave."""
    summaries = closed_loop.summarize_tasks(results)
    overall = closed_loop.summarize(results)
    output.table(
        ("task", "success", "rate", "95 % interval", "mean steps"),
        [
            (s.name, f"{s.successes}/{s.episodes}", f"{s.rate:.0%}", _interval(s), f"{s.steps:.0f}")
            for s in [*summaries, overall]
        ],
    )
    motion = combined([result.motion for result in results if result.motion is not None])
    output.table(("motion", ""), list(motion_rows(motion)))
    output.finish(
        {
            **settings,
            "motion": asdict(motion),
            "tasks": [asdict(summary) for summary in summaries],
            "overall": asdict(overall),
            "episodes": [asdict(result) for result in results],
        },
        f"{overall.successes} of {overall.episodes} episodes succeeded, {_interval(overall)}",
    )


def _replay(
    output: Output,
    policy: Path,
    path: Path,
    episodes: int,
    controller: closed_loop.ControllerFactory,
    *,
    strict: bool,
) -> None:
    with needs_extra("sim", "Reading a dataset"):
        from libra_edge.data.examine import open_dataset
        from libra_edge.evaluation.open_loop import replay

    robot = closed_loop.policy_embodiment(policy)
    with doubts_shown(strict=strict) as doubts:
        dataset = open_dataset(path, robot, closed_loop.policy_tokenizer(policy))
    with progress("episodes", min(episodes, len(dataset.episodes))) as advance:
        result = replay(dataset, controller(), episodes, lambda _: advance(1))
    names = [dim.name for dim in robot.actions]
    output.table(
        ("action", "mean difference"),
        [(name, f"{error:.3f}") for name, error in zip(names, result.mean_error, strict=True)],
    )
    output.finish(
        {"policy": str(policy), "replay": asdict(result), "dataset_doubts": doubts},
        result.in_words(),
    )


def _interval(summary: closed_loop.Summary) -> str:
    return f"{summary.low:.0%} to {summary.high:.0%}"


def _parse_swap(pairs: list[str]) -> dict[str, str]:
    swap = {}
    for pair in pairs:
        task, equals, other = pair.partition("=")
        if not (task and equals and other):
            raise InputError("usage", f"--swap {pair!r} is not TASK=OTHER.", "Name two tasks.")
        swap[task] = other
    return swap
