"""`make bench-providers`: the demo policy on ONNX Runtime's own CPU code and on OpenVINO, one run.

Each release runs through the C ABI, as on a robot, on one thread; calls of all of them take turns.
What OpenVINO compiled when the release was opened, and what `provision` had it compile before, are
rows of their own. Every row has the parity of the very engines that were timed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parent))

from baseline import ROOT, conditions, write_page

from libra_edge.binding.policy import Policy
from libra_edge.bundle.verify import Release, open_release
from libra_edge.catalog import load_recipe
from libra_edge.compiler.pipeline import compile_checkpoint
from libra_edge.compiler.request import Request
from libra_edge.deploy.provision import provision
from libra_edge.parity.golden import compare_golden, read_golden
from libra_edge.policy.checkpoint import load_checkpoint

CHECKPOINT = ROOT / "examples/metaworld/checkpoint"
DATA = ROOT / "examples/metaworld/heldout"
OWN, OPENED, BUILT = "ONNX Runtime", "OpenVINO", "OpenVINO, built before"
ROUNDS, WARM_UP = 300, 10
STAND_IN = "LIBRA_EDGE_TEST_PLUGIN"


def main() -> int:
    """Compile, time, compare, write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs/measurements/openvino.md")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if STAND_IN not in os.environ:
            _where_openvino_runs(Path(name))
        load = os.getloadavg()
        return _measure(Path(name), asked.out, asked.rounds, load)


def _where_openvino_runs(folder: Path) -> None:
    """Begin again with what lets OpenVINO's plug-in see this machine's processor, if it must."""
    from tests.providers import openvino_environment

    found = openvino_environment(folder / "package")
    if found is None:
        raise SystemExit("The extra openvino is not installed.")
    if STAND_IN in found:
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **found})


def _measure(folder: Path, out: Path, rounds: int, load: tuple[float, ...]) -> int:
    releases = {
        name: _compile(folder / name, target, on_device)
        for name, target, on_device in (
            ("own", "cpu-x86_64", False),
            ("opened", "cpu-openvino", False),
            ("built", "cpu-openvino", True),
        )
    }
    engines = provision(releases["built"].path, cache=folder / "engines").folder
    rows = {
        OWN: (releases["own"], None),
        OPENED: (releases["opened"], None),
        BUILT: (releases["built"], engines),
    }
    lines = [
        "| | `le_open` | planner | refiner | first plan | parity |",
        "|---|---|---|---|---|---|",
    ]
    results = []
    with ExitStack() as stack:
        policies: dict[str, Policy] = {}
        opened_ms, first_ms = {}, {}
        for name, (release, built) in rows.items():
            begun = time.perf_counter()
            policies[name] = stack.enter_context(Policy(release.path, engines_dir=built))
            opened_ms[name] = (time.perf_counter() - begun) * 1e3
            plan, _ = _calls(policies[name], release)
            first_ms[name] = _timed(plan)
        medians = _interleaved(
            {
                (name, part): call
                for name, (release, _) in rows.items()
                for part, call in zip(
                    ("planner", "refiner"), _calls(policies[name], release), strict=True
                )
            },
            rounds,
        )
        for name, (release, _) in rows.items():
            checks = compare_golden(
                release,
                name,
                policies[name],
                release.manifest.embodiment.actions,
                load_recipe("fp32").gates,
            )
            passed = all(check.verdict == "pass" for check in checks)
            results.append((passed, f"{name}: golden vectors within the gates of fp32"))
            plan_ms, chunk_ms = medians[name, "planner"], medians[name, "refiner"]
            lines.append(
                f"| {name} | {opened_ms[name]:.0f} ms | {plan_ms:.2f} ms | {chunk_ms:.2f} ms | "
                f"{first_ms[name]:.2f} ms | {'passes' if passed else 'FAILS'} |"
            )
    for part in ("planner", "refiner"):
        ratio = medians[OPENED, part] / medians[OWN, part]
        lines += ["", f"OpenVINO's {part} takes {ratio:.2f} times as long as ONNX Runtime's own."]
    told = conditions(load_checkpoint(CHECKPOINT), load)
    if STAND_IN in os.environ:
        told.append(
            "- The processor is not Intel's: OpenVINO's plug-in was told that it is, as in tests"
        )
    head = ["# OpenVINO beside ONNX Runtime's own code", "", __doc__.split("\n\n", 1)[1].strip()]
    return write_page(out, head, lines, results, told)


def _compile(out: Path, target: str, on_device: bool) -> Release:
    compile_checkpoint(
        Request(
            CHECKPOINT,
            target=target,
            recipe="fp32",
            out=out,
            data=DATA,
            engines_on_device=on_device,
        )
    )
    return open_release(out)


def _calls(policy: Policy, release: Release) -> tuple[Callable[[], object], Callable[[], object]]:
    """The first golden sample through the planner and the refiner."""
    golden = {name: array[0] for name, array in read_golden(release).items()}
    intent = golden["intent"][: release.manifest.policy.chunk]

    def plan() -> object:
        return policy.plan(golden["images"], golden["instruction"], golden["state"])

    def refine() -> object:
        return policy.refine(golden["images"], golden["state"], intent, golden["noise"])

    return plan, refine


def _interleaved(
    calls: Mapping[tuple[str, str], Callable[[], object]], rounds: int
) -> dict[tuple[str, str], float]:
    """Median milliseconds of each call; all of them take turns."""
    times: dict[tuple[str, str], list[float]] = {key: [] for key in calls}
    for number in range(rounds + WARM_UP):
        for key, call in calls.items():
            duration_ms = _timed(call)
            if number >= WARM_UP:
                times[key].append(duration_ms)
    return {key: statistics.median(found) for key, found in times.items()}


def _timed(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return (time.perf_counter() - begun) * 1e3


if __name__ == "__main__":
    sys.exit(main())
