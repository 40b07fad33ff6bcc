"""Dimensions that have to come to rest within limits on change, acceleration and jerk.

`src/control/braking.cc` of the runtime does the same arithmetic in the same order. Every array
has one element per dimension, float64.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
# To come to rest in: what would take longer is not begun.
MOST_STEPS = 256
HALVINGS = 8


class _Rows:
    """Arrays that are picked from together."""

    def pick(self, chosen: npt.NDArray[np.intp]) -> dict[str, Doubles]:
        """Some dimensions of every array."""
        return {f.name: getattr(self, f.name)[chosen] for f in fields(self)}  # type: ignore[arg-type]


@dataclass(frozen=True)
class Motion(_Rows):
    """Where a command is heading: position, change per step, change of that change."""

    position: Doubles
    change: Doubles
    bend: Doubles


@dataclass(frozen=True)
class Bounds(_Rows):
    """Limits; each may be infinite."""

    lower: Doubles
    upper: Doubles
    change: Doubles
    bend: Doubles
    jerk: Doubles


def _largest_bend(change: Doubles, jerk: Doubles) -> Doubles:
    """The largest b such that b, b - jerk, b - 2 jerk, … down to zero add up to `change`."""
    change = np.maximum(change, 0.0)
    free = np.isinf(jerk) | np.isinf(change)
    with np.errstate(invalid="ignore"):
        n = np.maximum(1.0, np.ceil((np.sqrt(1.0 + 8.0 * change / jerk) - 1.0) / 2.0))
        limited = (change + jerk * (n * (n - 1.0) / 2.0)) / n
    return np.where(free, change, limited)


def _sign(change: Doubles) -> Doubles:
    return np.where(change < 0.0, -1.0, 1.0)


def _brake(of: Bounds, at: Motion) -> Motion:
    """One step of the hardest braking that ends at rest."""
    sign = _sign(at.change)
    speed, against = sign * at.change, -sign * at.bend
    top = np.minimum(of.bend, _largest_bend(speed, of.jerk))
    following = np.maximum(against - of.jerk, np.minimum(against + of.jerk, top))
    change = sign * (speed - following)
    return Motion(at.position + change, change, -sign * following)


def _way_to_rest(of: Bounds, at: Motion) -> Doubles:
    """At least the way from here to rest, in the direction of the change, if it brakes already."""
    sign = _sign(at.change)
    speed, against = sign * at.change, -sign * at.bend
    bend = np.minimum(of.bend, np.sqrt(speed * of.jerk))
    way = speed * (speed / bend + bend / of.jerk + 3.0)
    brakes = (against >= 0.0) & (against <= _largest_bend(speed, of.jerk))
    return np.where(brakes, way, np.inf)


@np.errstate(divide="ignore", invalid="ignore")
def _rests(of: Bounds, at: Motion, goal: Doubles, upwards: Flags) -> Flags:
    """Whether braking from here stays inside, and ends not past `goal`."""
    fine = np.zeros(len(goal), dtype=bool)
    left = np.arange(len(goal))
    for _ in range(MOST_STEPS):
        inside = (at.position >= of.lower) & (at.position <= of.upper)
        still = at.change == 0.0
        ended = still & (np.abs(at.bend) <= of.jerk)
        end = at.position + np.copysign(_way_to_rest(of, at), at.change)
        here = _within(of, at.position, goal, upwards)
        good = np.where(ended, here, ~still & here & _within(of, end, goal, upwards)) & inside
        fine[left[good]] = True
        going = np.flatnonzero(inside & ~ended & ~good)
        if not len(going):
            break
        of, at = Bounds(**of.pick(going)), Motion(**at.pick(going))
        goal, upwards, left = goal[going], upwards[going], left[going]
        at = _brake(of, at)
    return fine


def _within(of: Bounds, position: Doubles, goal: Doubles, upwards: Flags) -> Flags:
    before = np.where(upwards, position <= goal, position >= goal)
    inside: Flags = (position >= of.lower) & (position <= of.upper) & before
    return inside


def _resting_place(of: Bounds, at: Motion) -> Doubles:
    """Where the hardest braking ends."""
    for _ in range(MOST_STEPS):
        rest = (at.change == 0.0) & (np.abs(at.bend) <= of.jerk)
        if rest.all():
            break
        then = _brake(of, at)
        names = [field.name for field in fields(at)]
        at = replace(at, **{n: np.where(rest, getattr(at, n), getattr(then, n)) for n in names})
    return at.position


def next_position(of: Bounds, at: Motion, wanted: Doubles, low: Doubles, high: Doubles) -> Doubles:
    """The next positions, nearest to `wanted`, such that no limit has to give way now or later.

    From them a dimension can come to rest inside, and where `wanted` itself is out of reach,
    before it.

    Args:
        of: limits.
        at: the last command.
        wanted: within `of.lower` and `of.upper`.
        low: bound in any case.
        high: the other.
    """

    def towards(position: Doubles) -> Motion:
        change = position - at.position
        return Motion(position, change, change - at.change)

    braked = np.clip(_brake(of, at).position, low, high)
    faster = np.minimum(
        np.minimum(at.change + of.bend, at.change + at.bend + of.jerk),
        at.change + _largest_bend(of.change - at.change, of.jerk),
    )
    slower = np.maximum(
        np.maximum(at.change - of.bend, at.change + at.bend - of.jerk),
        at.change - _largest_bend(of.change + at.change, of.jerk),
    )
    most = np.maximum(braked, np.minimum(high, at.position + faster))
    least = np.minimum(braked, np.maximum(low, at.position + slower))
    reached = (wanted >= least) & (wanted <= most)
    reached &= _rests(of, towards(wanted), of.upper, np.ones(len(wanted), dtype=bool))
    if reached.all():
        return wanted
    upwards = wanted > _resting_place(of, towards(braked))
    far = np.where(upwards, most, least)
    whole = _rests(of, towards(far), wanted, upwards)
    fine, too_far = braked, far
    for _ in range(HALVINGS):
        middle = fine + (too_far - fine) / 2.0
        good = _rests(of, towards(middle), wanted, upwards)
        fine, too_far = np.where(good, middle, fine), np.where(good, too_far, middle)
    return np.where(reached, wanted, np.where(whole, far, fine))
