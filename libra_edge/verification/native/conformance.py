"""The conformance run: a release's own library beside the reference, in a process of its own."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from libra_edge.binding import abi
from libra_edge.bundle.compatibility import CPU, Needs, mismatches, this_device
from libra_edge.bundle.verify import Release
from libra_edge.compiler.cache import default_cache
from libra_edge.limits import Verdict
from libra_edge.parity.gates import Check, not_measured
from libra_edge.verification.native.members import STAGE as MEMBERS
from libra_edge.verification.native.members import compare_members, is_former
from libra_edge.verification.native.probe import NARROW

STAGE = "native library vs reference"
# A hundred times what it takes; a machine may be busy.
TIMEOUT_S = 300.0
GROUPS = {
    "opening": "refuses what le_open must refuse",
    "calls": "tells and computes the same",
    "sync": "sync steps alike, bit for bit",
    "async": "async steps alike, bit for bit",
}
_CHILD = "libra_edge.verification.native.child"


@dataclass
class Found:
    """What a run found.

    scripts: how many began, by group; differs: how the library went its own way, by group;
    steps: by mode; ended: how the run ended, if not as it should; where: in what script.
    """

    scripts: Counter[str] = field(default_factory=Counter)
    differs: dict[str, list[str]] = field(default_factory=dict)
    steps: Counter[str] = field(default_factory=Counter)
    ended: str = ""
    where: str = ""

    @property
    def is_alike(self) -> bool:
        """Whether nothing was found."""
        return not self.ended and not self.differs


def native_checks(
    release: Release, cache: Path | None, on_stage: Callable[[str], None]
) -> list[Check]:
    """The native members by their bytes, and the library by what it does.

    Args:
        release: what is under test.
        cache: the compiler's; None takes the user's.
        on_stage: called with each comparison's name before it is made.
    """
    on_stage(MEMBERS)
    checks = compare_members(release, cache or default_cache(), on_stage)
    runtime = release.manifest.runtime
    needs = Needs("the runtime", runtime.arch, runtime.glibc, frozenset({CPU}), None, 0, {})
    if elsewhere := mismatches(needs, this_device(frozenset({CPU}))):
        return [*checks, not_measured(STAGE, elsewhere[0].sentence)]
    on_stage(STAGE)
    return checks + conformance(release)


def conformance(release: Release, timeout_s: float = TIMEOUT_S) -> list[Check]:
    """Run the scripts on a release's own library; one check per group of scripts.

    Args:
        release: one that runs on this machine.
        timeout_s: for all scripts together.
    """
    if importlib.util.find_spec("onnx") is None:
        reason = "probe engines need the package onnx; install libra-edge[compile]"
        return [not_measured(STAGE, reason)]
    if is_former(release.manifest) and not _has_every_function(release):
        return [not_measured(STAGE, "its interface is an earlier one; compile the policy again")]
    found = run_scripts(release, timeout_s)
    checks = [_check(found, group, metric) for group, metric in GROUPS.items()]
    note = f"{found.ended} in: {found.where}" if found.ended else ""
    verdict: Verdict = "fail" if found.ended else "pass"
    ended = float(not found.ended)
    return [Check(STAGE, "runs to its end", ended, 1.0, 1, verdict, note), *checks]


def _has_every_function(release: Release) -> bool:
    """Whether the release's own header names every function that is called here."""
    header = release.member("include/libra_edge.h").read_text(encoding="utf-8", errors="replace")
    return all(f"{name}(" in header for name in abi.PROTOTYPES)


def _check(found: Found, group: str, metric: str) -> Check:
    scripts, differs = found.scripts[group], found.differs.get(group, [])
    if not scripts:
        # Where the run ended before, that is the failed check.
        return Check(STAGE, metric, math.nan, 1.0, 0, "not measured", "the run ended before")
    value = 1.0 - len(differs) / scripts
    note = differs[0] if differs else f"{scripts} scripts"
    count = found.steps.get(group, 0) or scripts
    return Check(STAGE, metric, value, 1.0, count, "fail" if differs else "pass", note)


def run_scripts(release: Release, timeout_s: float = TIMEOUT_S) -> Found:
    """Every script, in a child process with a home of its own, which has to stay empty."""
    from libra_edge.verification.native.releases import contracts, write_apart, write_probe

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("probes", "home", "tmp"):
            (folder / part).mkdir()
        made = contracts(release.manifest)
        for contract_name, contract in made.items():
            write_probe(release, contract, folder / "probes" / contract_name)
        write_apart(made[NARROW], folder / "probes")
        ended = _run_child(folder, timeout_s)
        return _read(folder / "found.jsonl", ended)


def _run_child(folder: Path, timeout_s: float) -> str:
    """How the child ended; nothing where it did as it should."""
    # The child works in another folder, where relative paths would lead nowhere.
    paths = [str(Path(path).resolve()) for path in sys.path if Path(path).is_dir()]
    environment = {
        **{"PATH": os.environ.get("PATH", os.defpath), "PYTHONPATH": os.pathsep.join(paths)},
        **{"HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp")},
        **{"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
    }
    command = [sys.executable, "-m", _CHILD, str(folder / "probes"), str(folder / "found.jsonl")]
    with (folder / "stderr").open("w+") as stderr:
        try:
            done = subprocess.run(
                command,
                env=environment,
                cwd=folder / "probes",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"it did not end within {timeout_s:g} s"
        if done.returncode >= 0:
            stderr.seek(0)
            last = (stderr.read(100_000).strip().splitlines() or ["nothing said"])[-1]
            return f"it ended with status {done.returncode} ({last[:200]})" * bool(done.returncode)
    return f"it died of {signal.Signals(-done.returncode).name}"


def _read(path: Path, ended: str) -> Found:
    found, complete = Found(ended=ended), False
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        line = json.loads(text)
        complete = complete or "end" in line
        if "begin" in line:
            found.where = line["begin"]
            found.scripts[_group(found.where)] += 1
        elif "differs" in line:
            words = f"{line['differs']}: {line['how']}"
            found.differs.setdefault(_group(line["differs"]), []).append(words)
        found.steps.update(line.get("steps", {}))
    if not complete and not found.ended:
        found.ended = "it ended early"
    return found


def _group(where: str) -> str:
    """The group of a script, from `own contract, sync: plans and chunks`."""
    return where.partition(" contract, ")[2].partition(":")[0]
