// Pulse: how long work notices that it is to end, by Ctrl-C or because another thread of the call failed.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <exception>
#include <functional>

namespace multigrid {

// Asked from time to time by the thread that called, and by no other: whether the call is to end.
using Interrupted = std::function<bool()>;

// Ends a thread's work; it never leaves the call.
struct Stopped : std::exception {};

class Pulse {
 public:
  static constexpr std::chrono::milliseconds period{50};

  // Of a helping thread `interrupted` is nullptr.
  Pulse(std::atomic<bool>& stopped, const Interrupted* interrupted) : stopped_(stopped), interrupted_(interrupted) {}

  // After work on so many values. Throws Stopped.
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
