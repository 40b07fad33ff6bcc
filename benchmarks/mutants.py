"""`make mutants`: does `verify` see a random change of one line of the C++ runtime?

The fault catalogue holds faults that somebody thought of. Here a seed draws lines of the runtime's
own sources and changes each in one place: a comparison, a sign, a number, a condition, a statement
that is left out. The library is built with that and nothing else, and the release around it goes
through the conformance run and, where that finds nothing, through the rest of `verify`. That its
bytes are not ours is left out: every change would be caught by it.

What survives is explained by a person in `EXPLAINED`, by its line, or is a hole. Results are kept
in `--kept` as they come, so that a run that was stopped goes on. Writes
docs/measurements/mutants.md; exits 1 for a hole.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from libra_edge.bundle.verify import open_release
from libra_edge.errors import LibraError
from libra_edge.runtime.build import SOURCE_ROOT
from libra_edge.verification.native.conformance import run_scripts
from libra_edge.verification.native.members import STAGE as MEMBERS
from tests.attacks.engines.workshop import Workshop

ROOT = Path(__file__).resolve().parents[1]
SOURCES = SOURCE_ROOT / "src"
# Written by our own programs from tables that tests compare.
GENERATED = {"manifest_table.h", "unicode_table.h"}
SURVIVED = "survived"
# Survivors by the line as it stands, and why no script can or need see the change.
EXPLAINED: dict[str, str] = {
    "char tail[8];": "the same: room for one more",
    "if (offset > size_ || size > size_ - offset) return false;": (
        "a library that ends with its table of segments, as no linker writes it, would be refused"
    ),
    "pread(descriptor_, bytes + done, size - done, static_cast<off_t>(offset + done));": (
        "the same: a read of a file in memory is never cut short"
    ),
    "slot = again;": "threads that race alone: a retry that `make test-sanitize` drives",
}
SWAPS = {
    **{" < ": " <= ", " <= ": " < ", " > ": " >= ", " >= ": " > ", " == ": " != ", " != ": " == "},
    **{" && ": " || ", " || ": " && ", " + ": " - ", " - ": " + ", " * ": " / ", "++": "--"},
    **{"true": "false", "false": "true", "std::min": "std::max", "std::max": "std::min"},
}
NUMBER = re.compile(r"(?<![\w.\"%])(\d+)(?=u?[;,)\] }])")
CONDITION = re.compile(r"\b(if|while) \((.*)\)(?= |$)")
STATEMENT = re.compile(
    r"^\s+(?!return|if|for|while|const|auto|case|break|using|fail)[\w*:>.\[\]-]+"
    r"(\(.*\)| [-+|&]?= .*|\+\+);$"
)


class Mutant(NamedTuple):
    """One line of one file, and what stands there instead."""

    file: str
    line: int
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: `{self.before.strip()}` → `{self.after.strip() or ';'}`"


def changes(line: str) -> Iterator[str]:
    """Every change of a line that this knows."""
    for right, wrong in SWAPS.items():
        for found in re.finditer(re.escape(right), line):
            if line[: found.start()].count('"') % 2:
                continue  # words
            yield line[: found.start()] + wrong + line[found.end() :]
    for found in NUMBER.finditer(line):
        yield line[: found.start()] + str(int(found[1]) + 1) + line[found.end() :]
    for found in CONDITION.finditer(line):
        yield f"{line[: found.start(2)]}!({found[2]}){line[found.end(2) :]}"
    if STATEMENT.match(line):
        yield re.sub(r"\S.*", ";", line, count=1)


def mutants() -> list[Mutant]:
    """Every change of every line of the runtime's own sources."""
    found = []
    for path in sorted(SOURCES.rglob("*")):
        if path.suffix not in (".cc", ".h") or path.name in GENERATED:
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            code = line.partition("//")[0].rstrip()
            if not code.strip() or code.lstrip().startswith(("#", "template", "fail(", '"')):
                continue
            name = path.relative_to(SOURCES).as_posix()
            found += [Mutant(name, number, code, changed) for changed in changes(code)]
    return found


def draw(count: int, seed: int) -> Iterator[Mutant]:
    """Mutants in a random order, at most one of each line, and more of them than are wanted."""
    every = mutants()
    random.Random(seed).shuffle(every)
    lines: set[tuple[str, int]] = set()
    for mutant in every:
        if (place := (mutant.file, mutant.line)) not in lines:
            lines.add(place)
            yield mutant


def outcome(shop: Workshop, mutant: Mutant, folder: Path) -> str | None:
    """What saw the change, `SURVIVED`, or None where the compiler does not take it."""
    root = shop.folder / "runtime"
    source = root / "src" / mutant.file
    if not root.exists():
        shutil.copytree(SOURCE_ROOT, root)
    lines = (SOURCES / mutant.file).read_text(encoding="utf-8").splitlines(keepends=True)
    lines[mutant.line - 1] = lines[mutant.line - 1].replace(mutant.before, mutant.after)
    source.write_text("".join(lines), encoding="utf-8")
    case = shop.case(str(mutant))
    try:
        case.members["lib/liblibra_edge.so"] = shop.library({})
    except LibraError:
        return None
    finally:
        shutil.copyfile(SOURCES / mutant.file, source)
    release = shop.make(case, folder / "release")
    found = run_scripts(open_release(release))
    if not found.is_alike:
        differs = [words for group in found.differs.values() for words in group]
        return f"conformance: {found.ended or differs[0]}"[:160]
    result = shop.verify(release)
    failed = [c for c in result.checks if c.verdict == "fail" and c.stage != MEMBERS]
    return f"verify: {failed[0].stage}, {failed[0].metric}" if failed else SURVIVED


def page(found: dict[Mutant, str], seed: int) -> str:
    """The measurement as Markdown."""
    alive = [mutant for mutant, what in found.items() if what == SURVIVED]
    holes = [mutant for mutant in alive if mutant.before.strip() not in EXPLAINED]
    return "\n".join(
        [
            "# Random changes of the runtime",
            "",
            f"Written by `make mutants`: {len(found)} changes of one line each, drawn with seed "
            f"{seed} from {len(mutants())} of the runtime's own C++; the release's bytes being "
            "others is not counted as seen.",
            "",
            f"**{len(found) - len(alive)} seen; {len(alive) - len(holes)} survive for a reason "
            f"that is given; {len(holes)} are holes.**",
            "",
            "| change | seen by |",
            "|---|---|",
            *(
                f"| {str(mutant).replace('|', chr(92) + '|')} | "
                f"{EXPLAINED.get(mutant.before.strip(), what) if what == SURVIVED else what} |"
                for mutant, what in found.items()
            ),
            "",
        ]
    )


def main() -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=13)
    parser.add_argument("--kept", type=Path, default=ROOT / "out/mutants.jsonl")
    parser.add_argument("--again", action="store_true", help="only those that survived")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/measurements/mutants.md")
    asked = parser.parse_args()
    asked.kept.parent.mkdir(parents=True, exist_ok=True)
    lines = asked.kept.read_text(encoding="utf-8").splitlines() if asked.kept.exists() else []
    known = {Mutant(*row[0]): row[1] for row in map(json.loads, lines)}
    found: dict[Mutant, str] = {}
    with tempfile.TemporaryDirectory() as scratch, asked.kept.open("a", encoding="utf-8") as kept:
        folder, shop = Path(scratch), None
        for number, mutant in enumerate(draw(asked.count, asked.seed)):
            what = known.get(mutant)
            if mutant not in known or (asked.again and what == SURVIVED):
                shop = shop or Workshop(folder)
                work = folder / f"at-{number}"
                work.mkdir()
                what = outcome(shop, mutant, work)
                shutil.rmtree(work)
                kept.write(json.dumps([mutant, what]) + "\n")
                kept.flush()
                print(f"{mutant}: {what}", file=sys.stderr, flush=True)
            if what is not None:
                found[mutant] = what
            if len(found) == asked.count:
                break
    asked.out.write_text(page(found, asked.seed), encoding="utf-8")
    holes = [m for m, w in found.items() if w == SURVIVED and m.before.strip() not in EXPLAINED]
    print(f"{len(found)} changes, {len(holes)} holes")
    return int(bool(holes))


if __name__ == "__main__":
    sys.exit(main())
