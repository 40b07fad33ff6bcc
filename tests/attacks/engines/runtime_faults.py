"""Faults of the native runtime, one line of its sources each: engines may be right, used wrongly.

The table: name, file below `src/`, what stands there, and what the faulty library was made of.
"""

from __future__ import annotations

from tests.attacks.engines.runtime_faults_limits import LIMIT_FAULTS

RUNTIME_FAULTS: dict[str, tuple[str, str, str]] = LIMIT_FAULTS | {
    # Sync mode.
    "noise counted from one": (
        "control/policy.cc",
        "chunk_noise(seed_, chunks_made_,",
        "chunk_noise(seed_, 1 + chunks_made_,",
    ),
    "the same noise for every chunk": (
        "control/policy.cc",
        "chunk_noise(seed_, chunks_made_,",
        "chunk_noise(seed_, 0,",
    ),
    "every chunk gets the first intents": (
        "control/policy.cc",
        "(step_ - static_cast<uint64_t>(plan_step_)) * sizes.action_dim",
        "0",
    ),
    "plans thrown away after one chunk": (
        "control/policy.cc",
        "static_cast<uint64_t>(plan_step_) + sizes.plan_steps;",
        "static_cast<uint64_t>(plan_step_) + sizes.chunk;",
    ),
    "chunk played backwards": (
        "control/policy.cc",
        "(step_ - chunk_step_) * sizes.action_dim",
        "(sizes.chunk - 1 - (step_ - chunk_step_)) * sizes.action_dim",
    ),
    "sync mode never knows an old observation": (
        "control/policy.cc",
        "observation_age_ns() > max_observation_age_ns_",
        "observation_age_ns() > ~uint64_t{0} - 1",
    ),
    "a reset goes on with the old plan": (
        "control/policy.cc",
        "plan_step_ = -1;\n  if (async_ != nullptr) async_->reset(seed);",
        "if (async_ != nullptr) async_->reset(seed);",
    ),
    "a reset keeps the seed": ("control/policy.cc", "seed_ = seed;\n", "(void)seed;\n"),
    "a reset keeps the observation": (
        "control/policy.cc",
        "has_observation_ = false;\n  timestamp_ns_ = 0;",
        "timestamp_ns_ = 0;",
    ),
    "a fault of an earlier mode is forgotten": (
        "control/policy.cc",
        "if (fault_ != LE_REASON_NONE) async->latch(fault_);",
        "",
    ),
    "a state that is not finite is let in": (
        "control/policy.cc",
        "fault_ = LE_REASON_STATE_NOT_FINITE;\n    }",
        "fault_ = LE_REASON_NONE;\n    }",
    ),
    "a token outside the vocabulary is taken": (
        "control/policy.cc",
        "if (unknown != tokens + count) {",
        "if (false) {",
    ),
    # Noise.
    "half of the seed lost": ("control/noise.cc", "static_cast<uint32_t>(seed >> 32)", "0"),
    "half of the chunk number lost": (
        "control/noise.cc",
        "static_cast<uint32_t>(chunk >> 32)}",
        "0}",
    ),
    "nine rounds for ten": ("control/noise.cc", "round < 10", "round < 9"),
    # Async mode.
    "plans out of order are taken": (
        "control/intents.cc",
        "plan_step <= plan_step_ || end <= now",
        "end <= now",
    ),
    "plans are not aligned": (
        "control/intents.cc",
        "first - static_cast<uint64_t>(plan_step_);",
        "0 * first;",
    ),
    "old plans are taken": (
        "control/async.cc",
        "now > plan_step + options_.max_plan_age_steps",
        "now > plan_step + 2 * options_.max_plan_age_steps",
    ),
    "a plan of before the reset is taken": (
        "control/async.cc",
        "if (planner_.epoch != epoch_) return bump(dropped_plans_), true;",
        "",
    ),
    "a chunk of before the reset is taken": (
        "control/async_refiner.cc",
        "if (refiner_.epoch != epoch_) return pace_.chunk_dropped(), true;",
        "",
    ),
    "a new instruction waits for a reset": (
        "control/policy.cc",
        "if (async_ != nullptr) async_->set_instruction(tokens);",
        "if (async_ != nullptr && step_ > 0) async_->set_instruction(tokens);",
    ),
    "the planner plans twice on one observation": (
        "control/async.cc",
        "asked_observation_ = seen.number;",
        "(void)seen.number;",
    ),
    "the last byte of a picture stays": (
        "control/async.cc",
        "sizes_.image_bytes(), observation.images,",
        "sizes_.image_bytes() - 1, observation.images,",
    ),
    "chunks are blended from the wrong end": (
        "control/async_refiner.cc",
        "static_cast<float>(i - frozen + 1)",
        "static_cast<float>(common - i)",
    ),
    "frozen steps thaw": (
        "control/async_refiner.cc",
        "std::max<uint64_t>(past, options_.frozen_steps)",
        "past",
    ),
    "noise of the async mode stands still": (
        "control/async_refiner.cc",
        "number = next_chunk_++;",
        "number = next_chunk_;",
    ),
    "a late chunk is played from its beginning": (
        "control/async_tick.cc",
        "const uint64_t row = step - chunk->first;",
        "const uint64_t row = (step - chunk->first) / 2;",
    ),
    "the future counts as fresh": (
        "control/async_tick.cc",
        "return a > b ? a - b : b - a;",
        "return a > b ? a - b : 0;",
    ),
    "an engine may take for ever": (
        "control/async_tick.cc",
        "- (since - 1) > options_.engine_timeout_ns;",
        "- (since - 1) > ~uint64_t{0} - 1;",
    ),
    "a jump of the clock makes calls younger": (
        "control/async_tick.cc",
        "ticked_ && now_ns > last_now_ns_ ?",
        "ticked_ && now_ns != last_now_ns_ ?",
    ),
    "a fault is not latched": (
        "control/async_tick.cc",
        "latch(fault = LE_REASON_OUT_OF_LIMITS);",
        "fault = LE_REASON_OUT_OF_LIMITS;",
    ),
    "an old plan's actions are sent": (
        "control/async_tick.cc",
        "if (age > static_cast<int64_t>(options_.max_plan_age_steps)) {",
        "if (age > 2 * static_cast<int64_t>(options_.max_plan_age_steps)) {",
    ),
    "the chunk before is played to its end": (
        "control/chunk_queue.h",
        "(head + 1 != tail && slot(head + 1).first <= step)",
        "false",
    ),
    "underruns are counted as plans that lack": (
        "control/async_tick.cc",
        "refining || planned ? LE_REASON_UNDERRUN : LE_REASON_NO_PLAN",
        "refining && planned ? LE_REASON_UNDERRUN : LE_REASON_NO_PLAN",
    ),
    "holds are not counted": ("control/async_tick.cc", "if (began) bump(holds_);", ""),
    "histograms lose their largest value": (
        "control/histogram.h",
        "if (value > max_.load(std::memory_order_relaxed)) {",
        "if (value > max_.load(std::memory_order_relaxed) + 1) {",
    ),
    "an option out of its bounds is taken": (
        "control/run_options.cc",
        'check_range("refill_at", o.refill_at, 1, sizes.chunks_per_plan);',
        "",
    ),
    "the default refill is the whole plan": (
        "control/run_options.cc",
        "fill_default(&o.refill_at, 1u);",
        "fill_default(&o.refill_at, sizes.chunks_per_plan);",
    ),
    # Engines.
    "the last margin is not looked at": (
        "engine/checks.cc",
        "all_finite(io.margin.data(), io.margin.size())",
        "all_finite(io.margin.data(), io.margin.size() - 1)",
    ),
    "an intent one past the bins is let in": (
        "engine/checks.cc",
        "static_cast<uint32_t>(intent) < bins",
        "static_cast<uint32_t>(intent) <= bins",
    ),
    "actions that are not finite are let in": (
        "engine/checks.cc",
        "return finite ? LE_REASON_NONE : LE_REASON_REFINER_NOT_FINITE;",
        "return finite ? LE_REASON_NONE : LE_REASON_NONE;",
    ),
    "the refiner gets the planner's intents": (
        "engine/ort_engines.cc",
        '{"intent", io.chunk_intent.data()}',
        '{"intent", io.plan_intent.data()}',
    ),
    "telemetry is on": ("engine/ort_engines.cc", 'setenv(kVariable, "1", 1);', ""),
    "segments of a library are not looked at": (
        "engine/library.cc",
        "  require_library(file, name, LE_ENGINE);\n",
        "",
    ),
    "graphs of other shapes are taken": (
        "engine/engine.cc",
        "element != static_cast<int>(spec.type) || shape != spec.shape",
        "element != static_cast<int>(spec.type)",
    ),
    # What is opened.
    "hashes are not compared": (
        "release/release.cc",
        "if (hash.finish() != member.sha256) {",
        "if (hash.finish() == Digest{}) {",
    ),
    "manifests of any size are read": (
        "release/release.cc",
        "if (size > kMostManifestBytes) {",
        "if (size > 4 * kMostManifestBytes) {",
    ),
    "symbolic links are followed": (
        "release/folder.cc",
        "constexpr int kFile = O_NONBLOCK | O_NOFOLLOW;",
        "constexpr int kFile = O_NONBLOCK;",
    ),
    "files that nobody names are fine": (
        "release/folder.cc",
        'if (name != "." && name != "..") names.push_back(name);',
        "if (name[0] != '.') names.push_back(name);",
    ),
    "a failed verdict is opened": (
        "release/release.cc",
        "(allowed & LE_OPEN_ALLOW_FAILED) == 0",
        "(allowed & LE_OPEN_ALLOW_FAILED) > 1",
    ),
    "random weights are opened": (
        "release/release.cc",
        "(allowed & LE_OPEN_ALLOW_RANDOM_WEIGHTS) == 0",
        "(allowed & 3) == 4",
    ),
    "le_info is silent about a failed verdict": (
        "control/policy_info.cc",
        '(manifest_.verdict == "fail" ? LE_INFO_PARITY_FAILED : 0)',
        "0",
    ),
    "cameras are named in reverse": (
        "control/policy_info.cc",
        "manifest_.cameras[camera].c_str()",
        "manifest_.cameras[manifest_.cameras.size() - 1 - camera].c_str()",
    ),
    "unknown keys are passed over": (
        "release/rules.cc",
        "    if (key == end) {",
        "    if (key == end) {\n      return;",
    ),
    "numbers may be any": (
        "release/rules.cc",
        "return high_enough && value <= rule.most;",
        "return high_enough || value <= rule.most;",
    ),
    "words are not brought to lower case": (
        "release/text_rules.cc",
        "if (rule.kind == Kind::kLowerCase) {",
        "if (false) {",
    ),
    "unknown words become padding": (
        "release/tokenizer.cc",
        "found == words_.end() ? unknown_ : found->second",
        "found == words_.end() ? pad_ : found->second",
    ),
    "flags nobody knows are taken": (
        "api.cc",
        "if ((options.flags & ~kFlags) != 0) {",
        "if (false) {",
    ),
    "reserved fields are not looked at": (
        "api.cc",
        "!std::all_of(std::begin(copy.reserved), std::end(copy.reserved), is_zero)",
        "false",
    ),
}
