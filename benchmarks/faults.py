"""`make fault-catalogue`: does `verify` catch every fault, and raise no false alarm?

On the demo policy and its held-out episodes, at default gates. What `--quick` finds needs no
other verification; a fault of the runtime is only looked for by the whole one. Results are kept in
`--kept` as they come, so that a run that was stopped goes on, and runs with other `--shard`s share
the work; the one that finds all of it done writes docs/measurements/fault-catalogue.md and exits 1
if a fault was missed or an alarm was false.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from libra_edge.compiler.graphs.fuse import Form
from libra_edge.errors import ExitCode, LibraError
from libra_edge.verification.bisect import Culprit
from libra_edge.verification.result import Verification
from tests.attacks.engines.catalogue import FAULTS, PLACES
from tests.attacks.engines.rebuilds import REBUILDS
from tests.attacks.engines.runtime_faults import RUNTIME_FAULTS
from tests.attacks.engines.workshop import Workshop

ROOT = Path(__file__).resolve().parents[1]
SEEDS = 16
MISSED = "**missed**"


def first_failure(result: Verification) -> str:
    """The first check that failed, with its figures; empty where all passed."""
    for check in result.checks:
        if check.verdict == "fail":
            return f"{check.stage}: {check.metric} {check.value:.3g} (gate {check.threshold:g})"
    return ""


def first_wrong(shop: Workshop, name: str, release: Path, out: Path) -> str:
    """What bisecting names; "right" where that is the place the fault was put."""
    found = shop.culprits(release, out)
    if not found:
        return "nothing in the graphs"
    words = "; ".join(f"{c.operator} of {c.layer or c.tensor}{_step(c)}" for c in found)
    if name not in PLACES:
        return words
    graph, step, part = PLACES[name]
    right = any((c.graph, c.step) == (graph, step) and part in str(c) for c in found)
    return f"{words} ({'right' if right else '**wrong**'})"


def _step(culprit: Culprit) -> str:
    return "" if culprit.step is None else f", step {culprit.step}"


class Outcome(NamedTuple):
    """What became of a fault or of a good rebuild.

    failed: checks; first: of them, with its figures; place: the first wrong operator.
    """

    failed: int
    first: str
    place: str = ""


class Kept:
    """Outcomes by name, one line each in files that shards share; nothing is measured twice."""

    def __init__(self, folder: Path, shard: str) -> None:
        self._folder = folder
        self._own = folder / f"{shard.replace('/', '-of-')}.jsonl"
        folder.mkdir(parents=True, exist_ok=True)

    def read(self) -> dict[str, Outcome]:
        """All that is known by now."""
        lines = [
            li for f in sorted(self._folder.glob("*.jsonl")) for li in f.open(encoding="utf-8")
        ]
        return {name: Outcome(*rest) for name, *rest in map(json.loads, lines)}

    def add(self, name: str, outcome: Outcome) -> None:
        """Keep one more."""
        print(f"{name}: {outcome}", file=sys.stderr, flush=True)
        with self._own.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps([name, *outcome]) + "\n")


def fault_outcome(shop: Workshop, name: str, folder: Path) -> Outcome:
    """Verify the demo release with one fault of the catalogue."""
    release = shop.faulty(name, folder / "release")
    for quick in (False,) if name in RUNTIME_FAULTS else (True, False):
        try:
            result = shop.verify(release, quick=quick)
        except LibraError as error:
            return Outcome(1, f"refused: {error.code}")
        if result.exit_code is ExitCode.PARITY:
            first = first_failure(result)
            # A claim that does not hold says itself what is wrong; a comparison does not.
            bisect = name not in RUNTIME_FAULTS and " vs " in first
            place = first_wrong(shop, name, release, folder / "repro") if bisect else ""
            return Outcome(result.count("fail"), first, place)
    return Outcome(0, MISSED)


def good_rebuilds(shop: Workshop) -> dict[str, Callable[[Path], tuple[Path, int]]]:
    """By name, what makes a release and a seed to verify it on.

    Other samples, forms, and ways to write a graph.
    """

    def compiled(seed: int, form: Form, folder: Path) -> tuple[Path, int]:
        return shop.compiled(folder / "good", seed, form), 100 + seed

    def rewritten(name: str, folder: Path) -> tuple[Path, int]:
        case = shop.case(name)
        REBUILDS[name](case)
        return shop.make(case, folder / "rewritten" / "release"), 200

    forms: dict[int, Form] = {s: "loop" if s % 4 else "unrolled" for s in range(1, SEEDS + 1)}
    made = {f"seed {s}, {form}": partial(compiled, s, form) for s, form in forms.items()}
    return made | {name: partial(rewritten, name) for name in REBUILDS}


def rebuild_outcome(
    shop: Workshop, make: Callable[[Path], tuple[Path, int]], folder: Path
) -> Outcome:
    """Verify one good rebuild: nothing may fail."""
    release, seed = make(folder)
    result = shop.verify(release, seed=seed)
    return Outcome(result.count("fail"), first_failure(result))


def page(faults: dict[str, Outcome], rebuilds: dict[str, Outcome], samples: int) -> str:
    """The measurement as Markdown."""
    missed = sum(one.first == MISSED for one in faults.values())
    right = sum(one.place.endswith("(right)") for one in faults.values())
    alarms = sum(one.failed > 0 for one in rebuilds.values())
    return "\n".join(
        [
            "# The fault catalogue",
            "",
            "Written by `make fault-catalogue`: the demo policy, recipe fp32, default gates, "
            f"{samples} held-out observations per comparison. Each fault's release carries "
            "golden vectors made by its own faulty engines; where the quick verification catches "
            "it, the checks are counted that failed in that one. Rebuilds differ in the seed of "
            "their samples, in form and in how their graphs are written, and are verified on "
            "others.",
            "",
            f"**{len(faults) - missed} of {len(faults)} faults caught, {alarms} false alarms in "
            f"{len(rebuilds)} good rebuilds; bisecting names the place of {right} of the "
            f"{len(PLACES)} faults that were put into one operator.**",
            "",
            "| fault | checks failed | the first | first wrong operator (`--bisect`) |",
            "|---|---|---|---|",
            *(f"| {name} | {' | '.join(map(str, one))} |" for name, one in faults.items()),
            "",
            "| good rebuild | checks failed | the first |",
            "|---|---|---|",
            *(f"| {name} | {one.failed} | {one.first} |" for name, one in rebuilds.items()),
            "",
        ]
    )


def main() -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "examples/metaworld/checkpoint")
    parser.add_argument("--data", type=Path, default=ROOT / "examples/metaworld/heldout")
    parser.add_argument("--samples", type=int, default=24)
    parser.add_argument("--shard", default="1/1", help="this run's share of the work, K/N")
    parser.add_argument("--kept", type=Path, default=ROOT / "out/fault-catalogue")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/measurements/fault-catalogue.md")
    arguments = parser.parse_args()
    share, shards = map(int, arguments.shard.split("/"))
    kept = Kept(arguments.kept, arguments.shard)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        shop = Workshop(folder, arguments.checkpoint, arguments.data, arguments.samples)
        rebuilds = good_rebuilds(shop)
        names = [*FAULTS, *rebuilds]
        for at, name in enumerate(names):
            if at % shards != share - 1 or name in kept.read():
                continue
            work = folder / f"at-{at}"
            work.mkdir()
            if name in rebuilds:
                kept.add(name, rebuild_outcome(shop, rebuilds[name], work))
            else:
                kept.add(name, fault_outcome(shop, name, work))
            shutil.rmtree(work)
    found = kept.read()
    if missing := [name for name in names if name not in found]:
        print(f"{len(missing)} of {len(names)} are left to other shards")
        return 0
    faults, good = ({n: found[n] for n in names if n in group} for group in (FAULTS, rebuilds))
    text = page(faults, good, arguments.samples)
    arguments.out.write_text(text, encoding="utf-8")
    print(text.splitlines()[4])
    return 1 if MISSED in text or any(one.failed for one in good.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
