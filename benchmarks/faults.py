"""`make fault-catalogue`: does `verify` catch every fault, and raise no false alarm?

On the demo policy and its held-out episodes, at default gates. Writes
docs/measurements/fault-catalogue.md; exits 1 if a fault was missed or an alarm was false.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from libra_edge.errors import ExitCode, LibraError
from libra_edge.parity.verify import Verification
from tests.attacks.engines.faults import FAULTS
from tests.attacks.engines.workshop import Workshop

ROOT = Path(__file__).resolve().parents[1]
REBUILDS = 10


def first_failure(result: Verification) -> str:
    """The first check that failed, with its figures; empty where all passed."""
    for check in result.checks:
        if check.verdict == "fail":
            return f"{check.stage}: {check.metric} {check.value:.3g} (gate {check.threshold:g})"
    return ""


def main() -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "examples/metaworld/checkpoint")
    parser.add_argument("--data", type=Path, default=ROOT / "examples/metaworld/heldout")
    parser.add_argument("--samples", type=int, default=24)
    arguments = parser.parse_args()
    caught: dict[str, tuple[int, str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        shop = Workshop(Path(folder), arguments.checkpoint, arguments.data, arguments.samples)
        for i, name in enumerate(FAULTS):
            release = shop.faulty(name, Path(folder, f"fault-{i}", "release"))
            try:
                result = shop.verify(release)
            except LibraError as error:
                caught[name] = (1, f"refused: {error.code}")
                continue
            found = result.exit_code is ExitCode.PARITY
            caught[name] = (result.count("fail"), first_failure(result) if found else "**missed**")
            print(f"{name}: {caught[name][1]}", file=sys.stderr, flush=True)
        alarms = 0
        for seed in range(1, REBUILDS + 1):
            rebuilt = shop.compiled(Path(folder, f"good-{seed}"), seed)
            alarms += shop.verify(rebuilt, seed=100 + seed).exit_code is not ExitCode.OK
    missed = [name for name, (_, words) in caught.items() if words == "**missed**"]
    tally = f"{len(caught) - len(missed)} of {len(caught)} faults caught, "
    tally += f"{alarms} false alarms in {REBUILDS} good rebuilds"
    lines = [
        "# The fault catalogue",
        "",
        "Written by `make fault-catalogue`: the demo policy, recipe fp32, default gates, "
        f"{arguments.samples} held-out observations per comparison. Each fault's release carries "
        "golden vectors made by its own faulty engines. Rebuilds differ in the seed of their "
        "samples, and are verified on others.",
        "",
        f"**{tally}.**",
        "",
        "| fault | checks failed | the first |",
        "|---|---|---|",
        *(f"| {name} | {count} | {words} |" for name, (count, words) in caught.items()),
    ]
    page = ROOT / "docs/measurements/fault-catalogue.md"
    page.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(tally)
    return 1 if missed or alarms else 0


if __name__ == "__main__":
    sys.exit(main())
