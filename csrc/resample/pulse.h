// Pulse: how long-running work notices that it must end, because of Ctrl-C or because another thread of the call
// failed.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <exception>
#include <functional>

namespace multigrid {

// Whether the call must end. Only the calling thread asks, at intervals.
using Interrupted = std::function<bool()>;

// Ends a thread's work. It is caught within the call.
struct Stopped : std::exception {};

class Pulse {
 public:
  static constexpr std::chrono::milliseconds period{50};

  // In a helper thread `interrupted` is nullptr.
  Pulse(std::atomic<bool>& stopped, const Interrupted* interrupted) : stopped_(stopped), interrupted_(interrupted) {}

  // Call after work on `values` values. Throws Stopped.
  void beat(std::int64_t values) {
    left_ -= values;
    if (left_ < 0) look();
  }

 private:
  static constexpr std::int64_t between_looks = 1 << 20;  // about a millisecond of work

  void look() {
    left_ = between_looks;
    const auto now = std::chrono::steady_clock::now();
    if (interrupted_ && now - asked_ > period) {
      asked_ = now;
      if ((*interrupted_)()) stopped_ = true;
    }
    if (stopped_) throw Stopped();
  }

  std::atomic<bool>& stopped_;
  const Interrupted* interrupted_;
  std::int64_t left_ = between_looks;
  std::chrono::steady_clock::time_point asked_ = std::chrono::steady_clock::now();
};

}  // namespace multigrid
