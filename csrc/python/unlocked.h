// Unlocked: work without the interpreter's lock, as pybind11's gil_scoped_release, in two ways better for long work.
#pragma once

#include <pybind11/pybind11.h>

#include <chrono>
#include <thread>

namespace multigrid {

// At the interpreter's exit Python ends a daemon thread that asks for the lock by unwinding its stack, which the
// destructors on it do not survive ("terminate called without an active exception"). Such a thread waits here instead
// until the process is gone, as it does from Python 3.14 on.
class Unlocked {
 public:
  Unlocked() : state_(PyEval_SaveThread()) {}
  ~Unlocked() { lock(); }
  Unlocked(const Unlocked&) = delete;
  Unlocked& operator=(const Unlocked&) = delete;

  // Whether a signal's handler has raised, as Ctrl-C does: the error is set, to be thrown once the lock is held again.
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
