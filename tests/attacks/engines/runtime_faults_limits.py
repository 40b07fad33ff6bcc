"""Faults of the native runtime in limits and pace; the table is that of `runtime_faults`."""

from __future__ import annotations

LIMIT_FAULTS: dict[str, tuple[str, str, str]] = {
    # Limits.
    "a delta goes on while the robot is held": (
        "control/command.cc",
        "limits_[d].delta ? 0.0f : dim.last",
        "dim.last",
    ),
    "limits on change do not count": (
        "control/command.cc",
        "last + of.max_step_change);",
        "last + 2 * of.max_step_change);",
    ),
    "the change of change is free downwards": (
        "control/braking.cc",
        "std::max(at.change - of.bend, at.change + at.bend - of.jerk)",
        "at.change + at.bend - of.jerk",
    ),
    "jerk is free upwards": (
        "control/braking.cc",
        "std::min(at.change + of.bend, at.change + at.bend + of.jerk)",
        "at.change + of.bend",
    ),
    "nobody brakes before a limit": (
        "control/braking.cc",
        "wanted <= most && rests(of, towards(wanted), of.upper, true)",
        "wanted <= most",
    ),
    "a robot that is slowed runs past what is wanted": (
        "control/braking.cc",
        "if (rests(of, towards(far), wanted, upwards)) return far;",
        "return far;",
    ),
    "a robot that was moved jumps back": (
        "control/command.cc",
        "std::abs(measured - *place) > of.max_step_change",
        "false",
    ),
    "the first command jumps": (
        "control/command.cc",
        "const bool known = !rests_ || beginning(d, state, &last);",
        "const bool known = sent_;",
    ),
    "the way from a hold is a fault": (
        "control/command.cc",
        "!(dim.arriving || rests_)",
        "true",
    ),
    "speed of before a hold counts after it": (
        "control/command.cc",
        "dim.change = dim.bend = 0.0;",
        "",
    ),
    "a limit that is a fault only slows": (
        "control/command.cc",
        "if ((inside != wanted || late) && of.fault)",
        "if (inside != wanted && of.fault)",
    ),
    "clamped in silence": (
        "control/command.cc",
        "limited->flags |= LE_STEP_CLAMPED;",
        "limited->flags |= 0;",
    ),
    "grippers are deltas": (
        "release/manifest.cc",
        'limits.push_back({kind == "delta",',
        'limits.push_back({kind != "absolute",',
    ),
    "what may not be clamped is": (
        "release/manifest.cc",
        'dim.has("on_limit"), lower, upper,',
        "false, lower, upper,",
    ),
    "no limit on acceleration is read": (
        "release/manifest.cc",
        'parse_change_limit(dim, "max_acceleration")',
        "std::numeric_limits<float>::infinity()",
    ),
    "no limit on jerk is read": (
        "release/manifest.cc",
        'parse_change_limit(dim, "max_jerk")',
        "std::numeric_limits<float>::infinity()",
    ),
    "grippers are measured": (
        "release/manifest.cc",
        'if (action.kind != "absolute") return -1;',
        'if (action.kind == "delta") return -1;',
    ),
    # When chunks and plans are begun.
    "the next chunk begins a step too late": (
        "control/pace.cc",
        "std::min<uint64_t>(p99_, chunk_) + shared_;",
        "std::min<uint64_t>(p99_ > 0 ? p99_ - 1 : 0, chunk_) + shared_;",
    ),
    "the mean call decides when the next begins": (
        "control/pace.cc",
        "count - count / 100 - 1;",
        "count / 2;",
    ),
    "a chunk does not wait for its observation": (
        "control/pace.cc",
        "&& now.seen < now.step;",
        "&& false;",
    ),
    "the planner does not make way": (
        "control/pace.cc",
        "needs_plan(now, intents, used) && !yields(now, intents);",
        "needs_plan(now, intents, used);",
    ),
    "a plan that is too short is asked for": (
        "control/pace.cc",
        "return used <= chunk_ || now.seen + used >= end + chunk_;",
        "return true;",
    ),
}
