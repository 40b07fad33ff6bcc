#include "control/threads.h"

#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>

#include <system_error>

#include "error.h"

namespace le {
namespace {

bool set_priority(std::thread &thread, uint32_t priority) {
  sched_param parameter = {};
  parameter.sched_priority = static_cast<int>(priority);
  return pthread_setschedparam(thread.native_handle(), SCHED_FIFO, &parameter) == 0;
}

bool set_cpus(std::thread &thread, uint64_t mask) {
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  for (unsigned cpu = 0; cpu < 64; ++cpu) {
    if ((mask >> cpu & 1) != 0) CPU_SET(cpu, &cpus);
  }
  return pthread_setaffinity_np(thread.native_handle(), sizeof cpus, &cpus) == 0;
}

}  // namespace

template <typename Begin, typename Run, typename Finish>
void Workers::work(Begin begin, Run run, Finish finish) const {
  const timespec pause = {static_cast<time_t>(poll_ns_ / 1'000'000'000),
                          static_cast<long>(poll_ns_ % 1'000'000'000)};
  while (!stop_.load(std::memory_order_acquire)) {
    // The control loop must not enter the kernel, so nobody can wake this thread.
    if (!begin()) {
      clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, nullptr);
      continue;
    }
    run();
    finish();
  }
}

Workers::Workers(Async &async, const le_run_options &options) : poll_ns_(options.poll_ns) {
  uint32_t asked = 0, got = 0;
  const auto ask = [&](bool wanted, uint32_t bit, auto &&grant) {
    if (!wanted) return;
    asked |= bit;
    if (grant()) got |= bit;
  };
  ask((options.flags & LE_RUN_LOCK_MEMORY) != 0, LE_REALTIME_MEMORY,
      [] { return mlockall(MCL_CURRENT | MCL_FUTURE) == 0; });
  if ((options.flags & LE_RUN_MANUAL) == 0) {
    try {
      if (async.plans()) {
        planner_ = std::thread([this, &async] {
          work([&] { return async.begin_plan(); }, [&] { async.run_plan(); },
               [&] { async.finish_plan(); });
        });
      }
      refiner_ = std::thread([this, &async] {
        work([&] { return async.begin_chunk(); }, [&] { async.run_chunk(); },
             [&] { async.finish_chunk(); });
      });
    } catch (const std::system_error &error) {
      stop_ = true;
      if (planner_.joinable()) planner_.join();
      fail(LE_NO_MEMORY, "A thread cannot be started: %s.", error.what());
    }
    ask(async.plans() && options.planner_priority != 0, LE_REALTIME_PLANNER_PRIORITY,
        [&] { return set_priority(planner_, options.planner_priority); });
    ask(options.refiner_priority != 0, LE_REALTIME_REFINER_PRIORITY,
        [&] { return set_priority(refiner_, options.refiner_priority); });
    ask(async.plans() && options.planner_cpus != 0, LE_REALTIME_PLANNER_CPUS,
        [&] { return set_cpus(planner_, options.planner_cpus); });
    ask(options.refiner_cpus != 0, LE_REALTIME_REFINER_CPUS,
        [&] { return set_cpus(refiner_, options.refiner_cpus); });
  }
  async.set_realtime(asked, got);
}

Workers::~Workers() {
  stop_.store(true, std::memory_order_release);
  if (planner_.joinable()) planner_.join();
  if (refiner_.joinable()) refiner_.join();
}

}  // namespace le
