"""The same results from one process, from several, from Ray, and whatever dies meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest

from libra_edge.errors import InputError, LibraError
from libra_edge.workers.ordered import MOST_TRIES, map_ordered
from libra_edge.workers.where import Shard, Workers
from tests.workers import units

HERE, TWO, RAY = Workers(), Workers(2), Workers(2, "local")
ITEMS = range(11)
with_ray = pytest.param(
    RAY, marks=pytest.mark.skipif(find_spec("ray") is None, reason="the extra ray is not installed")
)
spread = pytest.mark.parametrize("workers", [pytest.param(TWO, id="processes"), with_ray])
processes = pytest.mark.parametrize("workers", [TWO])
add_100 = partial(units.adding, 100)


@pytest.fixture(scope="module", autouse=True)
def no_ray_is_left() -> Iterator[None]:
    yield
    if find_spec("ray") is not None:
        import ray

        ray.shutdown()


def results(work: Callable[[int, int], int], workers: Workers) -> list[int]:
    return list(map_ordered(add_100, work, ITEMS, workers))


@spread
def test_where_it_ran_changes_nothing(workers: Workers) -> None:
    assert results(units.add, workers) == results(units.add, HERE) == [100 + n for n in ITEMS]


@spread
def test_a_worker_that_is_killed_changes_nothing(workers: Workers, tmp_path: Path) -> None:
    work = partial(units.add_or_die_once, str(tmp_path))
    assert results(work, workers) == [100 + n for n in ITEMS]
    assert (tmp_path / "died").exists()


@processes
def test_a_unit_that_kills_every_worker_is_given_up(workers: Workers) -> None:
    with pytest.raises(LibraError, match="worker-lost") as caught:
        results(units.die, workers)
    assert f"{MOST_TRIES} times" in caught.value.fact


@spread
def test_an_error_arrives_whole(workers: Workers) -> None:
    with pytest.raises(InputError) as caught:
        results(units.refuse, workers)
    assert (caught.value.code, caught.value.fact) == ("unit-refused", "Unit 4 is none.")


@processes
def test_nothing_to_do(workers: Workers) -> None:
    assert list(map_ordered(add_100, units.add, [], workers)) == []


@processes
def test_a_reader_that_leaves_ends_it(workers: Workers) -> None:
    coming = map_ordered(add_100, units.add, range(1000), workers)
    assert next(coming) == 100
    coming.close()


def test_no_cluster_at_the_address() -> None:
    pytest.importorskip("ray")
    import ray

    ray.shutdown()
    with pytest.raises(InputError, match="ray-unreachable"):
        results(units.add, Workers(1, "127.0.0.1:1"))


@processes
def test_never_more_at_a_time_than_asked_for(workers: Workers, tmp_path: Path) -> None:
    """Not after a worker was lost, either."""
    work = partial(units.count_while_one_dies, str(tmp_path))
    assert results(work, workers) == [100 + n for n in ITEMS]
    most = max(len(path.read_text()) for path in tmp_path.glob("seen-*"))
    assert most <= workers.count


def test_ray_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("libra_edge.workers.on_ray.find_spec", lambda name: None)
    with pytest.raises(InputError, match="ray-missing"):
        results(units.add, RAY)


@pytest.mark.parametrize("text", ["", "1", "0/2", "3/2", "1/0", "a/b", "1/2/3", "-1/2", "1/ 2"])
def test_no_shard(text: str) -> None:
    with pytest.raises(InputError, match="shard-invalid"):
        Shard.parse(text)


def test_shards_are_all_units_once() -> None:
    for count in range(1, 8):
        parts = [Shard.parse(f"{k}/{count}").of(range(20)) for k in range(1, count + 1)]
        assert sorted(n for part in parts for n in part) == list(range(20))
