"""`libra-edge compile` for several targets or recipes: one progress, one table."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from libra_edge.catalog import load_recipe, load_target
from libra_edge.errors import ExitCode
from libra_edge.policy.config import read_config
from libra_edge.workers.where import Workers

from ._progress import progress
from ._render import Output

# What each compilation gets of its own, or what is about all of them.
OF_THE_MATRIX = ("checkpoint", "target", "recipe", "out", "json", "jobs", "memory_gib", "ray")


def compile_matrix(
    output: Output,
    checkpoint: Path,
    target: str,
    recipe: str | None,
    out: Path | None,
    name: str | None,
    words: Sequence[str],
    jobs: int | None,
    memory_gib: float | None,
    ray: str | None,
) -> None:
    """Compile every pair that makes sense; leaves with 1 if one of them failed."""
    from libra_edge.compiler import many
    from libra_edge.compiler.work.count import count

    config = read_config(checkpoint / "config.json")
    targets = [load_target(one) for one in target.split(",")]
    names = recipe.split(",") if recipe else sorted({t.default_recipe for t in targets})
    wanted = many.pairs(targets, [load_recipe(one) for one in names])
    parameters = count(config, load_recipe("fp32")).parameters
    own = name or config.embodiment.name

    def command(pair: many.Pair) -> list[str]:
        folder = many.out_folder(out, own, pair)
        pair_words = ["--target", pair.target.name, "--recipe", pair.recipe.name]
        start = [sys.executable, "-m", "libra_edge.cli", "compile", str(checkpoint)]
        return [*start, *pair_words, "--out", str(folder), "--json", *words]

    each_bytes = many.job_bytes(parameters)
    budget_bytes = _free_bytes() if memory_gib is None else int(memory_gib * 2**30)
    start: Callable[[Sequence[str]], many.Job] = many.Process
    if ray is not None:
        from libra_edge.workers.on_ray import RayCommand

        # Ray itself waits until a node has the processor and the memory.
        start = partial(RayCommand, workers=Workers(jobs, ray), memory_bytes=each_bytes)
        budget_bytes = each_bytes * (jobs or len(wanted))
    with progress("compile", len(wanted), even=False) as advance:
        outcomes = many.run(
            wanted,
            command,
            jobs=jobs or (os.cpu_count() or 1 if ray is None else len(wanted)),
            budget_bytes=budget_bytes,
            each_bytes=each_bytes,
            start=start,
            on_change=lambda done, running: advance(done, running),
        )
    _show(output, outcomes)


def _show(output: Output, outcomes: Sequence[Any]) -> None:
    output.table(
        ("target", "recipe", "status", "s", "engines MiB", "checks", "release or reason"),
        [
            (
                outcome.pair.target.name,
                outcome.pair.recipe.name,
                outcome.status,
                f"{outcome.seconds:.0f}",
                _engines(outcome.result),
                _checks(outcome.result),
                outcome.result.get("path", outcome.why),
            )
            for outcome in outcomes
        ],
    )
    counts = {s: sum(o.status == s for o in outcomes) for s in ("ok", "failed", "skipped")}
    output.finish(
        {"releases": [_json(outcome) for outcome in outcomes], **counts},
        f"{counts['ok']} releases, {counts['failed']} failed, {counts['skipped']} make no sense",
        exit_code=ExitCode.FAILED if counts["failed"] else ExitCode.OK,
    )


def _engines(result: dict[str, Any]) -> str:
    if not result:
        return "–"
    manifest = result["manifest"]
    loaded = [engine["member"] for engine in manifest["engines"].values()]
    return f"{sum(manifest['members'][m]['size_bytes'] for m in loaded) / 2**20:.1f}"


def _checks(result: dict[str, Any]) -> str:
    if not result:
        return "–"
    verdicts = [check["verdict"] for check in result["checks"]]
    gaps = verdicts.count("not measured")
    return f"{verdicts.count('pass')} passed" + (f", {gaps} not measured" if gaps else "")


def _json(outcome: Any) -> dict[str, Any]:
    return {
        "target": outcome.pair.target.name,
        "recipe": outcome.pair.recipe.name,
        "status": outcome.status,
        "seconds": round(outcome.seconds, 3),
        "why": outcome.why or None,
        "path": outcome.result.get("path"),
        "release_id": outcome.result.get("release_id"),
    }


def _free_bytes() -> int:
    """Memory that is free now, as Linux says it."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 2**31
