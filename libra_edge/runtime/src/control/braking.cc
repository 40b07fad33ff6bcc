#include "control/braking.h"

#include <algorithm>
#include <cmath>

namespace le {
namespace {

constexpr int kMostSteps = 256;  // to come to rest in: what would take longer is not begun
constexpr int kHalvings = 8;

// The largest b such that b, b - jerk, b - 2 jerk, ... down to zero add up to `change` at most.
double largest_bend(double change, double jerk) {
  change = std::max(change, 0.0);
  if (std::isinf(jerk) || std::isinf(change)) return change;
  const double n = std::max(1.0, std::ceil((std::sqrt(1.0 + 8.0 * change / jerk) - 1.0) / 2.0));
  return (change + jerk * (n * (n - 1.0) / 2.0)) / n;
}

// One step of the hardest braking that ends at rest.
Motion brake(const Bounds &of, const Motion &at) {
  const double sign = at.change < 0.0 ? -1.0 : 1.0;
  const double speed = sign * at.change, against = -sign * at.bend;
  const double top = std::min(of.bend, largest_bend(speed, of.jerk));
  const double next = std::max(against - of.jerk, std::min(against + of.jerk, top));
  const double change = sign * (speed - next);
  return {at.position + change, change, -sign * next};
}

// At least the way from here to rest, in the direction of the change, where it brakes already.
double way_to_rest(const Bounds &of, const Motion &at) {
  const double sign = at.change < 0.0 ? -1.0 : 1.0;
  const double speed = sign * at.change, against = -sign * at.bend;
  if (against < 0.0 || against > largest_bend(speed, of.jerk)) return HUGE_VAL;
  const double bend = std::min(of.bend, std::sqrt(speed * of.jerk));
  return speed * (speed / bend + bend / of.jerk + 3.0);
}

// Whether braking from here stays inside, and ends not past `goal`.
bool rests(const Bounds &of, Motion at, double goal, bool upwards) {
  const auto within = [&](double position) {
    return position >= of.lower && position <= of.upper &&
           (upwards ? position <= goal : position >= goal);
  };
  for (int i = 0; i < kMostSteps; ++i) {
    if (at.position < of.lower || at.position > of.upper) return false;
    if (at.change == 0.0) {
      if (std::abs(at.bend) <= of.jerk) return within(at.position);
    } else {
      const double end = at.position + std::copysign(way_to_rest(of, at), at.change);
      if (within(at.position) && within(end)) return true;
    }
    at = brake(of, at);
  }
  return false;
}

// Where the hardest braking ends.
double resting_place(const Bounds &of, Motion at) {
  for (int i = 0; i < kMostSteps; ++i) {
    if (at.change == 0.0 && std::abs(at.bend) <= of.jerk) break;
    at = brake(of, at);
  }
  return at.position;
}

}  // namespace

double next_position(const Bounds &of, const Motion &at, double wanted, double low, double high) {
  const auto towards = [&](double position) {
    const double change = position - at.position;
    return Motion{position, change, change - at.change};
  };
  const double braked = std::clamp(brake(of, at).position, low, high);
  const double faster = std::min(std::min(at.change + of.bend, at.change + at.bend + of.jerk),
                                 at.change + largest_bend(of.change - at.change, of.jerk));
  const double slower = std::max(std::max(at.change - of.bend, at.change + at.bend - of.jerk),
                                 at.change - largest_bend(of.change + at.change, of.jerk));
  const double most = std::max(braked, std::min(high, at.position + faster));
  const double least = std::min(braked, std::max(low, at.position + slower));
  if (wanted >= least && wanted <= most && rests(of, towards(wanted), of.upper, true)) {
    return wanted;
  }
  const bool upwards = wanted > resting_place(of, towards(braked));
  const double far = upwards ? most : least;
  if (rests(of, towards(far), wanted, upwards)) return far;
  double fine = braked, too_far = far;
  for (int i = 0; i < kHalvings; ++i) {
    const double middle = fine + (too_far - fine) / 2.0;
    (rests(of, towards(middle), wanted, upwards) ? fine : too_far) = middle;
  }
  return fine;
}

}  // namespace le
