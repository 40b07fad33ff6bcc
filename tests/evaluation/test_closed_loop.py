from __future__ import annotations

import pytest

from libra_edge.errors import IncompatibleError, InputError, NotMeasuredError
from libra_edge.evaluation.closed_loop import (
    EpisodeResult,
    check_fits,
    compare,
    open_controller,
    plan_episodes,
    run,
    summarize,
    summarize_tasks,
    wilson,
)
from libra_edge.policy.config import ActionDim
from libra_edge.workers.where import Workers
from tests.evaluation.fake_simulator import Broken, Closing, LineWorld, Obedient, Sluggish


def test_obedient_policy_succeeds_and_the_same_seeds_give_the_same_episodes():
    specs = plan_episodes(LineWorld(), ("left", "right"), episodes=5, seed=3)
    assert [(s.task, s.seed) for s in specs[4:6]] == [("left", 7), ("right", 3)]
    results = run(Obedient, LineWorld, specs)
    assert all(result.success for result in results)
    assert {result.instruction for result in results} == {"go left", "walk left", "go right"}
    assert results == run(Obedient, LineWorld, specs)


def test_results_do_not_depend_on_the_number_of_processes():
    specs = plan_episodes(LineWorld(), ("left", "right"), episodes=6)
    seen = []
    parallel = run(Sluggish, LineWorld, specs, Workers(2), on_result=seen.append)
    assert parallel == run(Sluggish, LineWorld, specs) == seen
    assert len({result.steps for result in parallel}) > 1


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_policy_stays_open_until_the_last_episode(jobs):
    specs = plan_episodes(LineWorld(), ("left", "right"), episodes=3)
    assert all(result.success for result in run(Closing, LineWorld, specs, Workers(jobs)))


def test_error_in_a_worker_process_arrives_whole():
    specs = plan_episodes(LineWorld(), ("left",), episodes=3)
    with pytest.raises(InputError) as caught:
        run(Broken, LineWorld, specs, Workers(2))
    assert caught.value.code == "broken-policy"


def test_swapped_instruction_leads_an_obedient_policy_away_from_the_scenes_goal():
    specs = plan_episodes(LineWorld(), ("left",), 4, swap={"left": "right"})
    results = run(Obedient, LineWorld, specs)
    assert [result.instruction for result in results] == ["go right"] * 4
    assert not any(result.success for result in results)
    assert {result.steps for result in results} == {LineWorld.max_steps}


@pytest.mark.parametrize("swap", [{"left": "rigth"}, {"lfet": "right"}])
def test_unknown_task_in_swap(swap):
    with pytest.raises(InputError, match="Did you mean"):
        plan_episodes(LineWorld(), ("left",), 1, swap=swap)


@pytest.mark.parametrize(
    ("successes", "episodes", "low", "high"),
    # Reference values: scipy.stats.binomtest(k, n).proportion_ci(method='wilson').
    [(115, 125, 0.8590, 0.9560), (0, 16, 0.0, 0.1936), (10, 10, 0.7225, 1.0)],
)
def test_wilson_interval(successes, episodes, low, high):
    assert wilson(successes, episodes) == pytest.approx((low, high), abs=1e-4)


def test_wilson_of_nothing_is_not_measured():
    with pytest.raises(NotMeasuredError):
        wilson(0, 0)


def _results(outcomes: dict[int, bool], task: str = "left") -> list[EpisodeResult]:
    return [EpisodeResult(task, seed, "go", ok, 5) for seed, ok in outcomes.items()]


def test_summaries_per_task_and_over_all():
    results = _results({0: True, 1: False}) + _results({0: True}, "right")
    assert [(s.name, s.successes, s.episodes) for s in summarize_tasks(results)] == [
        ("left", 1, 2),
        ("right", 1, 1),
    ]
    overall = summarize(results)
    assert overall.rate == pytest.approx(2 / 3)
    assert overall.low < overall.rate < overall.high


def test_paired_table():
    a = _results({0: True, 1: True, 2: False, 3: False, 4: True})
    b = _results({4: True, 0: True, 1: False, 2: True, 3: False})
    paired = compare(a, b)
    assert (paired.both, paired.only_a, paired.only_b, paired.neither) == (2, 1, 1, 1)
    assert paired.agreement == pytest.approx(3 / 5)


@pytest.mark.parametrize("b", [{}, {0: True}, {0: True, 2: True}])
def test_runs_over_other_episodes_are_not_compared(b):
    with pytest.raises(NotMeasuredError, match="runs-not-paired"):
        compare(_results({0: True, 1: True}), _results(b))


def test_policy_for_another_robot_is_refused():
    body = LineWorld().embodiment()
    check_fits(body, body)
    other = body.model_copy(update={"control_hz": 20.0})
    with pytest.raises(IncompatibleError, match="control_hz"):
        check_fits(other, body)


def test_limits_are_the_policys_own_but_what_they_limit_is_not():
    body = LineWorld().embodiment()
    first = body.actions[0]

    def with_first(**changes):
        dim = ActionDim.model_validate(first.model_dump() | changes)
        return body.model_copy(update={"actions": (dim, *body.actions[1:])})

    low, high = 0.5 * first.lower, 0.5 * first.upper
    limits = {"lower": low, "upper": high, "max_step_change": 0.1, "max_acceleration": 0.05}
    check_fits(with_first(**limits, on_limit="fault"), body)
    other_kind = "absolute" if first.kind == "delta" else "delta"
    for change in ({"unit": "furlong"}, {"name": "other"}, {"kind": other_kind}):
        with pytest.raises(IncompatibleError, match="actions"):
            check_fits(with_first(**change), body)
    with pytest.raises(IncompatibleError, match="actions"):
        check_fits(body.model_copy(update={"actions": body.actions * 2}), body)


def test_shuffled_intents_need_a_checkpoint(tmp_path):
    release = tmp_path / "release"
    release.mkdir()
    (release / "manifest.json").write_text("{}")
    with pytest.raises(InputError, match="shuffle-needs-checkpoint"):
        open_controller(release, shuffle_intents=True)
