"""What a disk may hold after a loss of power, from a trace of the calls that were made.

The model of ALICE, kept strict: what a file holds lasts from its own fsync on, a name in a folder
from the folder's; anything else may be there or not, in any order, and a write may have come half
way. A rename within a folder, and a symbolic link with where it points, are one step each.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

TRACED = "openat,open,close,dup,dup2,mkdir,mkdirat,rename,renameat,renameat2,unlink,unlinkat,rmdir"
TRACED += ",symlink,symlinkat,write,pwrite64,writev,copy_file_range,sendfile,truncate,ftruncate"
TRACED += ",fallocate,lseek,fsync,fdatasync,sync,syncfs,link,linkat"
# A call of these would change the disk in a way that nothing here follows.
_UNKNOWN = {"rename", "open", "unlink", "rmdir", "symlink", "pwrite64", "writev", "link", "linkat"}
_UNKNOWN |= {"copy_file_range", "sendfile", "truncate", "fallocate", "dup", "dup2", "sync"}
_UNKNOWN |= {"syncfs"}
_CALL = re.compile(r"(\w+)\((.*)\) += (-?\d+)(?: .*)?$")
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


@dataclass
class Node:
    """A file, a folder or a link, by identity and not by name."""

    kind: str  # file, folder, link
    kept: Path | None = None  # a file whose bytes nobody has changed
    content: bytes = b""  # of a new file nothing, of a link where it points


@dataclass(frozen=True)
class Step:
    """One change: of the names in a folder, or of the bytes in a file."""

    node: int
    names: tuple[tuple[str, int | None], ...] = ()  # name to node; None takes it away
    at: int = 0
    data: bytes | None = None
    size: int | None = None  # cut or grown to


@dataclass
class Traced:
    """A run's changes in order, and after how many of them what was synced."""

    nodes: list[Node]
    first: dict[int, dict[str, int]]  # the names in each folder before
    steps: list[Step] = field(default_factory=list)
    syncs: list[tuple[int, int]] = field(default_factory=list)  # (steps before it, node)

    def lasting(self, end: int) -> set[int]:
        """Which of the first `end` steps a loss of power cannot take back."""
        kept: set[int] = set()
        for before, node in self.syncs:
            if before <= end:
                kept |= {i for i in range(before) if self.steps[i].node == node}
        return kept


def read_trace(root: Path, trace: Path) -> Traced:
    """Follow the calls of a run.

    Args:
        root: the folder as it was before the run; its files must stay.
        trace: what `strace -xx` wrote of a run whose working folder was a copy of `root`, and which
            named it `.`.
    """
    run = Traced([], {})
    _learn(run, root)
    tables: dict[int, int] = {}  # descriptor to node
    offsets: dict[int, int] = {}

    def place(words: list[str]) -> tuple[int | None, str]:
        folder = 0 if words[0] == "AT_FDCWD" else tables.get(int(words[0]))
        return folder, _text(words[1])

    names = {node: dict(entries) for node, entries in run.first.items()}

    def change(folder: int, *entries: tuple[str, int | None]) -> None:
        run.steps.append(Step(folder, tuple(entries)))
        for name, node in entries:
            if node is None:
                del names[folder][name]
            else:
                names[folder][name] = node

    for line in trace.read_text().splitlines():
        found = _CALL.match(line)
        if not found or found[3].startswith("-"):
            continue
        call, words, result = found[1], _split(found[2]), int(found[3])
        assert call not in _UNKNOWN, f"a call that the model does not know: {line[:200]}"
        if call == "openat":
            folder, name = place(words)
            node = None
            if folder is not None and folder in names:
                node = folder if name == "." else names[folder].get(name)
                if node is None and "O_CREAT" in words[2]:
                    node = _new(run, names, "file")
                    change(folder, (name, node))
                elif node is not None and "O_TRUNC" in words[2]:
                    run.steps.append(Step(node, size=0))
            if node is not None:
                tables[result], offsets[result] = node, 0
        elif call == "close":
            tables.pop(int(words[0]), None)
        elif call in ("mkdirat", "mkdir"):
            folder, name = place(words if call == "mkdirat" else ["AT_FDCWD", *words])
            if folder is not None and name != ".":
                change(folder, (name, _new(run, names, "folder")))
        elif call in ("renameat", "renameat2"):
            (old, before), (new, after) = place(words[:2]), place(words[2:])
            assert old == new, "a rename between folders is no single step"
            if old is not None:
                change(old, (before, None), (after, names[old][before]))
        elif call == "unlinkat":
            folder, name = place(words)
            if folder is not None:
                change(folder, (name, None))
        elif call == "symlinkat":
            folder, name = place(words[1:])
            if folder is not None:
                link = _new(run, names, "link")
                run.nodes[link].content = _text(words[0]).encode()
                change(folder, (name, link))
        elif int(words[0]) in tables:
            descriptor = int(words[0])
            node = tables[descriptor]
            if call == "write":
                data = _bytes(words[1])[:result]
                run.steps.append(Step(node, at=offsets[descriptor], data=data))
                offsets[descriptor] += result
            elif call == "lseek":
                offsets[descriptor] = result
            elif call == "ftruncate":
                run.steps.append(Step(node, size=int(words[1])))
            else:
                assert call in ("fsync", "fdatasync"), line[:200]
                run.syncs.append((len(run.steps), node))
    return run


def crash_states(run: Traced, more: int = 2, seed: int = 0) -> Iterator[tuple[int, list[Step]]]:
    """Every state that is looked at: how far the run came, and the steps that the disk has of it.

    Of each prefix: all; what lasts alone; that with each single other step, and without; the others
    in order up to each; the last write half done, or grown and empty; and `more` drawn ones.
    """
    drawn, seen = random.Random(seed), set()
    for end in range(len(run.steps) + 1):
        kept = run.lasting(end)
        open_ = [i for i in range(end) if i not in kept]
        picks: list[frozenset[int]] = [frozenset(), frozenset(open_)]
        picks += [frozenset([i]) for i in open_]
        picks += [frozenset(open_) - {i} for i in open_]
        picks += [frozenset(open_[:n]) for n in range(2, len(open_))]
        picks += [frozenset(i for i in open_ if drawn.random() < 0.5) for _ in range(more)]
        for pick in dict.fromkeys(picks):
            chosen = sorted(kept | pick)
            steps = [run.steps[i] for i in chosen]
            variants = [steps]
            for place, i in enumerate(chosen):
                data = run.steps[i].data
                if data and i in pick:
                    step = run.steps[i]
                    half = Step(step.node, at=step.at, data=data[: len(data) // 2])
                    grown = Step(step.node, at=step.at, data=bytes(len(data)))
                    variants += [
                        [*steps[:place], torn, *steps[place + 1 :]] for torn in (half, grown)
                    ]
                    break
            for variant in variants:
                key = hash(tuple(variant))
                if key not in seen or end == len(run.steps):
                    seen.add(key)
                    yield end, variant


def write_state(run: Traced, steps: Sequence[Step], to: Path) -> None:
    """Make the folder that these steps leave; files that nobody changed are hard links."""
    names = {node: dict(entries) for node, entries in run.first.items()}
    contents: dict[int, bytearray] = {}
    for step in steps:
        if step.names:
            folder = names[step.node]
            for name, node in step.names:
                if node is None:
                    folder.pop(name, None)
                else:
                    folder[name] = node
            continue
        kept = run.nodes[step.node].kept
        content = contents.setdefault(
            step.node, bytearray(kept.read_bytes() if kept is not None else b"")
        )
        if step.data is not None:
            content.extend(bytes(max(0, step.at + len(step.data) - len(content))))
            content[step.at : step.at + len(step.data)] = step.data
        elif step.size is not None:
            del content[step.size :]
            content.extend(bytes(step.size - len(content)))
    _write_folder(run, names, contents, 0, to)


def _write_folder(
    run: Traced,
    names: dict[int, dict[str, int]],
    contents: dict[int, bytearray],
    folder: int,
    to: Path,
) -> None:
    to.mkdir()
    for name, number in names[folder].items():
        node = run.nodes[number]
        if node.kind == "folder":
            _write_folder(run, names, contents, number, to / name)
        elif node.kind == "link":
            (to / name).symlink_to(node.content.decode())
        elif number in contents or node.kept is None:
            (to / name).write_bytes(contents.get(number, b""))
        else:
            os.link(node.kept, to / name)


def _learn(run: Traced, path: Path) -> int:
    number = len(run.nodes)
    if path.is_symlink():
        run.nodes.append(Node("link", content=os.fsencode(path.readlink())))
    elif path.is_dir():
        run.nodes.append(Node("folder"))
        run.first[number] = {}
        for inner in sorted(path.iterdir()):
            run.first[number][inner.name] = _learn(run, inner)
    else:
        run.nodes.append(Node("file", kept=path))
    return number


def _new(run: Traced, names: dict[int, dict[str, int]], kind: str) -> int:
    run.nodes.append(Node(kind))
    number = len(run.nodes) - 1
    if kind == "folder":
        names[number] = {}
        run.first[number] = {}
    return number


def _split(words: str) -> list[str]:
    return [word.strip() for word in words.split(", ")]


def _bytes(word: str) -> bytes:
    found = _STRING.fullmatch(word)
    assert found is not None, word[:80]
    return bytes.fromhex(found[1].replace("\\x", ""))


def _text(word: str) -> str:
    return os.fsdecode(_bytes(word))
