"""Where independent work runs, and which share of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from libra_edge.errors import InputError

Item = TypeVar("Item")


@dataclass(frozen=True)
class Workers:
    """Where work runs.

    jobs: processes of this machine, or actors on Ray; None takes one process, and of a Ray cluster
    all its processors. ray: address of a cluster, or `local`, which starts one here; None for none.
    """

    jobs: int | None = None
    ray: str | None = None

    @staticmethod
    def asked(jobs: int | None, ray: str | None, *, by: str) -> Workers:
        """Workers as a command was asked for them.

        Args:
            jobs: of `--jobs`.
            ray: of `--ray`.
            by: the option without which there is no work for them; empty where there is some.

        Raises:
            InputError: they were asked for, and there is none.
        """
        if by and (jobs is not None or ray is not None):
            fact = f"--jobs and --ray are for {by}."
            raise InputError("usage", fact, f"Add {by}, or leave them out.")
        return Workers(jobs, ray)

    @property
    def count(self) -> int:
        """Processes, where nothing else says how many."""
        return self.jobs or 1


HERE = Workers()


@dataclass(frozen=True)
class Shard:
    """Every `count`-th unit of a run, from unit `number` on (1 is the first)."""

    number: int
    count: int

    @staticmethod
    def parse(text: str) -> Shard:
        """`K/N`.

        Raises:
            InputError: it is not, or there is no such shard.
        """
        found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
        number, count = (int(found[1]), int(found[2])) if found else (0, 0)
        if not 1 <= number <= count:
            raise InputError(
                "shard-invalid",
                f"--shard {text} is not one of N shards.",
                "Write K/N, for example 1/4 to 4/4.",
            )
        return Shard(number, count)

    def units(self, total: int) -> range:
        """The numbers of its units, of `total`."""
        return range(self.number - 1, total, self.count)

    def of(self, items: Sequence[Item]) -> list[Item]:
        """Its units."""
        return [items[number] for number in self.units(len(items))]


WHOLE = Shard(1, 1)
