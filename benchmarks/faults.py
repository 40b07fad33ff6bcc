"""`make fault-catalogue`: does `verify` catch every fault, and raise no false alarm?

On the demo policy and its held-out episodes, at default gates. Writes
docs/measurements/fault-catalogue.md; exits 1 if a fault was missed or an alarm was false.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from libra_edge.compiler.graphs.fuse import Form
from libra_edge.errors import ExitCode, LibraError
from libra_edge.verification.bisect import Culprit
from libra_edge.verification.result import Verification
from tests.attacks.engines.catalogue import FAULTS, PLACES
from tests.attacks.engines.rebuilds import REBUILDS
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


def table(shop: Workshop, folder: Path) -> dict[str, tuple[int, str, str]]:
    """Checks failed, the first of them and the first wrong operator of every fault."""
    caught: dict[str, tuple[int, str, str]] = {}
    for i, name in enumerate(FAULTS):
        release = shop.faulty(name, folder / f"fault-{i}" / "release")
        try:
            result = shop.verify(release)
        except LibraError as error:
            caught[name] = (1, f"refused: {error.code}", "")
            continue
        found = result.exit_code is ExitCode.PARITY
        words = first_failure(result) if found else MISSED
        caught[name] = (
            result.count("fail"),
            words,
            first_wrong(shop, name, release, folder / f"fault-{i}" / "repro"),
        )
        print(f"{name}: {caught[name][1:]}", file=sys.stderr, flush=True)
        shutil.rmtree(folder / f"fault-{i}")
    return caught


def good_rebuilds(shop: Workshop, folder: Path) -> Iterator[tuple[str, Path, int]]:
    """Name, release and a seed to verify it on: other samples, forms, and ways to write a graph."""
    for seed in range(1, SEEDS + 1):
        form: Form = "loop" if seed % 4 else "unrolled"
        yield f"seed {seed}, {form}", shop.compiled(folder / f"good-{seed}", seed, form), 100 + seed
    for number, (name, change) in enumerate(REBUILDS.items()):
        case = shop.case(name)
        change(case)
        yield name, shop.make(case, folder / f"rewritten-{number}" / "release"), 200 + number


def page(caught: dict[str, tuple[int, str, str]], alarms: int, samples: int) -> str:
    """The measurement as Markdown."""
    missed = sum(words == MISSED for _, words, _ in caught.values())
    right = sum(place.endswith("(right)") for _, _, place in caught.values())
    return "\n".join(
        [
            "# The fault catalogue",
            "",
            "Written by `make fault-catalogue`: the demo policy, recipe fp32, default gates, "
            f"{samples} held-out observations per comparison. Each fault's release carries "
            "golden vectors made by its own faulty engines. Rebuilds differ in the seed of their "
            "samples, in form and in how their graphs are written, and are verified on others.",
            "",
            f"**{len(caught) - missed} of {len(caught)} faults caught, {alarms} false alarms in "
            f"{SEEDS + len(REBUILDS)} good rebuilds; bisecting names the place of {right} of the "
            f"{len(PLACES)} faults that were put into one operator.**",
            "",
            "| fault | checks failed | the first | first wrong operator (`--bisect`) |",
            "|---|---|---|---|",
            *(
                f"| {name} | {n} | {words} | {place} |"
                for name, (n, words, place) in caught.items()
            ),
            "",
        ]
    )


def main() -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "examples/metaworld/checkpoint")
    parser.add_argument("--data", type=Path, default=ROOT / "examples/metaworld/heldout")
    parser.add_argument("--samples", type=int, default=24)
    parser.add_argument("--out", type=Path, default=ROOT / "docs/measurements/fault-catalogue.md")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        shop = Workshop(Path(folder), arguments.checkpoint, arguments.data, arguments.samples)
        caught = table(shop, Path(folder))
        alarms = 0
        for name, rebuilt, seed in good_rebuilds(shop, Path(folder)):
            alarms += shop.verify(rebuilt, seed=seed).exit_code is not ExitCode.OK
            print(f"rebuild, {name}: {alarms} false alarms", file=sys.stderr, flush=True)
    text = page(caught, alarms, arguments.samples)
    arguments.out.write_text(text, encoding="utf-8")
    print(text.splitlines()[4])
    return 1 if alarms or MISSED in text else 0


if __name__ == "__main__":
    sys.exit(main())
