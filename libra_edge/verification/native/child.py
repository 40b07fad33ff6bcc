"""Runs the scripts on a release's own library, in a process that it may take down.

Arguments: a folder with the probe releases by name of their contract, and a file for what is found,
one JSON object a line: `begin` names a script, `differs` says how the library went its own way.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

import tokenizers

from libra_edge.binding.library import load_library
from libra_edge.bundle.manifest import parse_manifest
from libra_edge.bundle.members import MANIFEST
from libra_edge.verification.native.driver import Refused
from libra_edge.verification.native.pair import Desk, Differs, Subject
from libra_edge.verification.native.probe import NARROW, OWN, WHOLE, WIDE, contract_of
from libra_edge.verification.native.scripts import (
    arguments,
    async_mode,
    bounds,
    opening,
    surface,
    sync_mode,
)
from libra_edge.verification.native.scripts.opening import LIBRARY, TOKENIZER
from libra_edge.verification.native.scripts.sync_mode import Script

OPENING = {
    "opening: threads": surface.threads,
    "opening: silence": surface.silence,
    "opening: options": opening.options,
    "opening: manifests": opening.manifests,
    "opening: proofs": opening.proofs,
    "opening: members": opening.members,
    "opening: contents": opening.contents,
}
CALLS = {
    "calls: what it tells": surface.description,
    "calls: words": surface.words,
    "calls: noise": surface.noise,
    "calls: engines by hand": surface.engine_calls,
    "calls: arguments": arguments.calls,
    "calls: texts": bounds.texts,
    "calls: outputs": bounds.outputs,
    "calls: options of async mode": arguments.run_options,
}
# Ages that are options of `le_open`, which takes longer than the script: for one contract alone.
AGES = {
    "sync: old observations, one step": sync_mode.ages(1),
    "sync: old observations, 0.2 s": sync_mode.ages(200_000_000),
}
STEPS = {**CALLS, **sync_mode.SCRIPTS, **async_mode.SCRIPTS}
SCRIPTS: Mapping[str, Mapping[str, Script]] = {
    NARROW: {**OPENING, **STEPS},
    OWN: {**STEPS, **AGES},
    WIDE: STEPS,
    WHOLE: {
        "sync: plans and chunks": sync_mode.calm,
        "calls: engines by hand": surface.engine_calls,
    },
}


def main(folder: Path, out: Path) -> None:
    """Run everything that there are releases for."""
    with out.open("w", encoding="utf-8", buffering=1) as file:
        for name, scripts in SCRIPTS.items():
            if not (folder / name).is_dir():
                continue
            _say(file, {"begin": f"{name} contract, opening: the library"})
            desk = Desk(_subject(folder / name))
            for script, run in scripts.items():
                _run(file, name, script, run, desk)
            desk.close()
        _say(file, {"end": True})


def _subject(release: Path) -> Subject:
    words = tokenizers.Tokenizer.from_file(str(release / TOKENIZER)).get_vocab()
    manifest = parse_manifest((release / MANIFEST).read_bytes())
    return Subject(load_library(release / LIBRARY), release, contract_of(manifest), words)


def _run(file: TextIO, contract: str, name: str, run: Script, desk: Desk) -> None:
    where, began = f"{contract} contract, {name}", time.monotonic()
    desk.steps.clear()
    _say(file, {"begin": where})
    try:
        run(desk)
    except Differs as differs:
        _say(file, {"differs": where, "how": str(differs)})
    except Refused as refused:
        _say(file, {"differs": where, "how": f"le_open refuses a good release: {refused}"})
    _say(file, {"steps": desk.steps, "took_s": time.monotonic() - began})


def _say(file: TextIO, line: Mapping[str, object]) -> None:
    file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
