"""Results that are kept: a run goes on where it stopped, and shards become one run again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libra_edge.errors import InputError, IntegrityError, LibraError
from libra_edge.workers.ledger import Ledger, merge
from libra_edge.workers.where import WHOLE, Shard

SETTINGS = {"policy": "out/release", "mode": "sync"}


def ledger(path: Path | None, units: int = 6, shard: Shard = WHOLE, **other: Any) -> Ledger:
    told = {"command": "simulate", "settings": SETTINGS, "decides": "abc"} | other
    return Ledger(path, told["command"], told["settings"], told["decides"], units, shard)


def run(path: Path, units: int = 6, shard: Shard = WHOLE, most: int = 99, **other: Any) -> Path:
    kept = ledger(path, units, shard, **other)
    for number in kept.missing[:most]:
        kept.add(number, {"unit": number})
    kept.close()
    return path


def test_one_process_writes_at_a_time(tmp_path: Path) -> None:
    first = ledger(tmp_path / "a.jsonl")
    with pytest.raises(InputError, match="results-busy"):
        ledger(tmp_path / "a.jsonl")
    first.close()
    ledger(tmp_path / "a.jsonl").close()


def test_the_same_policy_under_another_path_is_the_same_run(tmp_path: Path) -> None:
    path = run(tmp_path / "a.jsonl", most=2)
    again = ledger(path, settings=SETTINGS | {"policy": "/elsewhere/release"})
    assert again.missing == [2, 3, 4, 5]
    again.close()


def missing(path: Path) -> list[int]:
    kept = ledger(path)
    kept.close()
    return kept.missing


def test_a_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path = run(tmp_path / "a.jsonl", most=2)
    assert missing(path) == [2, 3, 4, 5]
    run(path)
    assert missing(path) == []
    assert merge([path]) == ("simulate", SETTINGS, [{"unit": n} for n in range(6)])


def test_a_line_that_was_cut_is_run_again(tmp_path: Path) -> None:
    path = run(tmp_path / "a.jsonl")
    path.write_bytes(path.read_bytes()[:-4])
    assert missing(path) == [5]
    run(path)
    assert merge([path])[2] == [{"unit": n} for n in range(6)]


@pytest.mark.parametrize(
    "other",
    [
        {"settings": {"mode": "other"}},
        {"decides": "abd"},
        {"command": "verify"},
        {"units": 7},
        {"shard": Shard(1, 2)},
    ],
)
def test_a_file_of_another_run_is_not_gone_on_with(tmp_path: Path, other: dict[str, Any]) -> None:
    path = run(tmp_path / "a.jsonl", most=2)
    before = path.read_bytes()
    with pytest.raises(InputError, match="results-of-another-run"):
        ledger(path, **other)
    assert path.read_bytes() == before


@settings(max_examples=40, deadline=None)
@given(units=st.integers(1, 30), count=st.integers(1, 6), data=st.data())
def test_shards_become_the_run_again(
    tmp_path_factory: pytest.TempPathFactory, units: int, count: int, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    paths = [run(folder / f"{k}", units, Shard(k, count)) for k in range(1, count + 1)]
    shuffled = data.draw(st.permutations(paths))
    assert merge(shuffled)[2] == [{"unit": n} for n in range(units)]


def shards(folder: Path, **other: Any) -> list[Path]:
    return [run(folder / f"{k}.jsonl", shard=Shard(k, 3), **other) for k in (1, 2, 3)]


def of_another_release(folder: Path) -> list[Path]:
    one, two, _ = shards(folder)
    return [one, two, run(folder / "other.jsonl", shard=Shard(3, 3), decides="another release")]


def of_another_count(folder: Path) -> list[Path]:
    one, two, _ = shards(folder)
    return [one, two, run(folder / "other.jsonl", shard=Shard(3, 4))]


def unfinished(folder: Path) -> list[Path]:
    one, two, _ = shards(folder)
    return [one, two, run(folder / "other.jsonl", shard=Shard(3, 3), most=1)]


WRONG: list[tuple[Callable[[Path], list[Path]], type[LibraError], str]] = [
    (lambda f: shards(f)[:2], InputError, "shard-missing"),
    (lambda f: [*shards(f), f / "1.jsonl"], InputError, "shard-twice"),
    (lambda f: [*shards(f), f / "4.jsonl"], InputError, "results-missing"),
    (of_another_release, InputError, "shards-of-different-runs"),
    (of_another_count, InputError, "shards-of-different-runs"),
    (unfinished, InputError, "shard-not-finished"),
]


@pytest.mark.parametrize(("made", "kind", "code"), WRONG)
def test_shards_that_do_not_fit(
    tmp_path: Path, made: Callable[[Path], list[Path]], kind: type[LibraError], code: str
) -> None:
    with pytest.raises(kind, match=code):
        merge(made(tmp_path))


@pytest.mark.parametrize(
    "content",
    [
        b"\n",
        b"no json\n",
        b"[]\n",
        b"{}\n",
        b"\xff\xfe\n",
        b'{"libra_edge_results": 2}\n',
    ],
)
def test_files_that_hold_no_results(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match="results-invalid"):
        merge([path])
    with pytest.raises(IntegrityError, match="results-invalid"):
        ledger(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "row", [{"unit": 1, "result": 0}, {"unit": 99, "result": 0}, {"unit": 0}, {"result": 0}, 7]
)
def test_rows_that_are_none(tmp_path: Path, row: Any) -> None:
    path = run(tmp_path / "a.jsonl", shard=Shard(2, 2))
    with path.open("a") as stream:
        stream.write(json.dumps(row) + "\n")
    with pytest.raises(IntegrityError, match="results-invalid"):
        merge([path])


def test_without_a_file_nothing_is_kept() -> None:
    kept = ledger(None)
    kept.add(0, {"unit": 0})
    assert kept.missing == [1, 2, 3, 4, 5]
