// Unlocked: releases the GIL, like pybind11's gil_scoped_release, but survives the interpreter's exit and can check
// signals.
#pragma once

#include <pybind11/pybind11.h>

#include <chrono>
#include <thread>

namespace multigrid {

// At exit, Python ends a daemon thread that takes the GIL by unwinding its stack, and destructors on that stack then
// abort the process ("terminate called without an active exception"). Here such a thread waits until the process is
// gone instead, as Python itself does from 3.14 on.
class Unlocked {
 public:
  Unlocked() : state_(PyEval_SaveThread()) {}
  ~Unlocked() { lock(); }
  Unlocked(const Unlocked&) = delete;
  Unlocked& operator=(const Unlocked&) = delete;

  // Whether a signal handler has raised, as for Ctrl-C. The Python error is then set; throw it once the GIL is held
  // again.
  bool interrupted() {
    lock();
    const bool raised = PyErr_CheckSignals() != 0;
    state_ = PyEval_SaveThread();
    return raised;
  }

 private:
  void lock() noexcept {
    try {
      PyEval_RestoreThread(state_);
    } catch (...) {
      while (true) std::this_thread::sleep_for(std::chrono::hours(1));
    }
  }

  PyThreadState* state_;
};

}  // namespace multigrid
