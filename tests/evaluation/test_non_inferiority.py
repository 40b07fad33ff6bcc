from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from libra_edge.evaluation import non_inferiority
from libra_edge.evaluation.closed_loop import EpisodeSpec, Paired
from libra_edge.evaluation.non_inferiority import (
    PairedCheck,
    difference,
    judge,
    mcnemar,
    run_paired,
)
from tests.evaluation.fake_simulator import LineWorld

CELLS = st.integers(0, 60)


@given(CELLS, CELLS, CELLS, CELLS)
def test_mcnemar_is_the_binomial_test(both: int, lost: int, won: int, neither: int) -> None:
    p = mcnemar(Paired(both, lost, won, neither))
    expected = stats.binomtest(lost, lost + won).pvalue if lost + won else 1.0
    assert p == pytest.approx(expected)


@given(CELLS, CELLS, CELLS, CELLS)
def test_bound_lies_below_the_difference_and_narrows(
    both: int, lost: int, won: int, neither: int
) -> None:
    if both + lost + won + neither == 0:
        return
    found, bound = difference(Paired(both, lost, won, neither))
    assert -1 <= found <= 1
    assert bound < found + 0.05
    more = difference(Paired(*(100 * n for n in (both, lost, won, neither))))
    assert more[0] == pytest.approx(found)
    assert abs(more[1] - more[0]) <= abs(bound - found) + 0.05


def test_bound_keeps_its_level() -> None:
    """Of two equally good policies, at most about 5 % of the bounds lie above zero."""
    above = 0.0
    for lost in range(0, 21):
        for won in range(0, 21 - lost):
            chance = stats.multinomial.pmf([lost, won, 100 - lost - won], 100, [0.05, 0.05, 0.9])
            above += chance * (difference(Paired(100 - lost - won, lost, won, 0))[1] > 0)
    assert above < 0.06


@pytest.mark.parametrize(
    ("paired", "verdicts"),
    [
        (Paired(90, 1, 1, 8), ["pass", "pass"]),
        (Paired(90, 0, 0, 10), ["pass", "pass"]),
        (Paired(70, 20, 2, 8), ["fail", "fail"]),
        (Paired(80, 12, 2, 6), ["fail", "fail"]),
        (Paired(70, 2, 20, 8), ["pass", "pass"]),
        (Paired(3, 1, 0, 0), ["fail", "pass"]),
    ],
    ids=["alike", "equal", "broken", "worse", "better", "too few to say"],
)
def test_judgement(paired: Paired, verdicts: list[str]) -> None:
    assert [check.verdict for check in judge({"push": paired})] == verdicts


def test_the_check_carries_its_table_task_by_task() -> None:
    first = judge({"push": Paired(8, 1, 0, 1), "pull": Paired(7, 0, 2, 1)})[0]
    assert isinstance(first, PairedCheck)
    assert [(t.task, t.only_checkpoint, t.only_release) for t in first.tasks] == [
        ("push", 1, 0),
        ("pull", 0, 2),
    ]
    assert first.samples == 20
    assert "both 15, only checkpoint 1, only release 2, neither 2" in first.note
    assert "tasks" not in first.to_json()


class Walker:
    """Walks towards what it is told, or not at all."""

    def __init__(self, good: bool) -> None:
        self._good = good

    def reset(self, seed: int, instruction: str) -> None:
        self._way = 1.0 if "right" in instruction else -1.0

    def act(self, observation):
        return np.array([self._way if self._good else 0.0], np.float32)


def test_an_interrupted_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(non_inferiority, "open_simulator", lambda name, split: LineWorld())
    specs = [EpisodeSpec(task, seed) for task in ("left", "right") for seed in range(4)]
    run = partial(run_paired, partial(Walker, True), partial(Walker, False), "line")
    rest = (tmp_path / "store", ("a", "b"))

    def stop(result) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(specs, *rest, on_result=stop)
    seen: list[object] = []
    lost = {"left": Paired(0, 4, 0, 0), "right": Paired(0, 4, 0, 0)}
    assert run(specs, *rest, on_result=seen.append) == lost
    assert len(seen) == 15
    assert run(specs, *rest, on_result=seen.append) == lost
    assert len(seen) == 15


def test_another_release_is_run_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(non_inferiority, "open_simulator", lambda name, split: LineWorld())
    specs = [EpisodeSpec("left", 0)]
    seen: list[object] = []
    for identity in ("b", "c"):
        run_paired(
            partial(Walker, True),
            partial(Walker, True),
            "line",
            specs,
            tmp_path / "store",
            ("a", identity),
            on_result=seen.append,
        )
    assert len(seen) == 3
