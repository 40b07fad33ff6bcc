// The threads of async mode, and what is asked of the operating system for them.
#pragma once

#include <atomic>
#include <thread>

#include "control/async.h"

namespace le {

class Workers {
 public:
  // Starts the threads unless the options say LE_RUN_MANUAL. Tells `async` what was granted.
  Workers(Async &async, const le_run_options &options);
  // Waits for the engine calls in flight.
  ~Workers();
  Workers(const Workers &) = delete;
  Workers &operator=(const Workers &) = delete;

 private:
  template <typename Begin, typename Run, typename Finish>
  void work(Begin begin, Run run, Finish finish) const;

  const uint64_t poll_ns_;
  std::atomic<bool> stop_{false};
  std::thread planner_, refiner_;
};

}  // namespace le
