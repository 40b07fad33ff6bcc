"""One way to spread independent work: results in order, errors whole, lost workers made good.

A unit of work depends on its arguments alone. So where it ran, and how often, changes nothing but
the time: the results are those of one process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

from libra_edge.errors import LibraError
from libra_edge.workers.places import Lost, Place, Processes
from libra_edge.workers.where import HERE, Workers

State = TypeVar("State")
Item = TypeVar("Item")
Result = TypeVar("Result")
# A unit that has taken so many workers with it takes the next one, too.
MOST_TRIES = 3


def map_ordered(
    open_state: Callable[[], AbstractContextManager[State]],
    work: Callable[[State, Item], Result],
    items: Iterable[Item],
    workers: Workers = HERE,
) -> Iterator[Result]:
    """`work(state, item)` for every item, in the order of `items`.

    Args:
        open_state: makes what every worker keeps (a simulator, a policy); once per worker.
        work: must depend on its arguments alone, so that `workers` change nothing but the time.
        items: what to work on.
        workers: where; one process works in this one. With more, everything must be picklable.

    Yields:
        One result per item.

    Raises:
        LibraError: a unit took its worker with it several times, or Ray is not to be had.
    """
    if workers.ray is None and workers.count <= 1:
        with open_state() as state:
            for item in items:
                yield work(state, item)
        return
    with _place(open_state, workers) as place:
        yield from _in_order(place, work, items)


def _place(open_state: Callable[[], AbstractContextManager[Any]], workers: Workers) -> Place:
    if workers.ray is None:
        return Processes(open_state, workers.count)
    from libra_edge.workers.on_ray import RayActors

    return RayActors(open_state, workers)


@dataclass
class _Unit:
    item: Any
    tries: int = 0


def _in_order(
    place: Place, work: Callable[[State, Item], Result], items: Iterable[Item]
) -> Iterator[Result]:
    """At most twice as many units as workers wait, so that a slow reader does not fill memory."""
    numbered = enumerate(items)
    running: dict[int, _Unit] = {}
    ready: dict[int, Result] = {}
    coming, more = 0, True
    while True:
        while more and len(running) + len(ready) < 2 * place.count:
            number, item = next(numbered, (-1, None))
            more = number >= 0
            if more:
                running[number] = _Unit(item)
                place.submit(number, work, item)
        if coming in ready:
            yield ready.pop(coming)
            coming += 1
            continue
        if not running:
            return
        number, result = place.wait()
        unit = running[number]
        if not isinstance(result, Lost):
            del running[number]
            ready[number] = result
            continue
        unit.tries += 1
        if unit.tries >= MOST_TRIES:
            raise LibraError(
                "worker-lost",
                f"Workers were lost {unit.tries} times with unit {number} in hand: {result.why}.",
                "Run it with --jobs 1 to see why; if memory ran out, use fewer --jobs.",
            )
        place.submit(number, work, unit.item)
