// pymultigrid._core: its table of contents.

#include "python/module.h"

#include "plan/limits.h"
#include "python/arguments.h"

namespace py = pybind11;
using namespace py::literals;

namespace multigrid {

Doubles doubles(const std::string& name, const py::object& numbers) {
  Doubles found = Doubles::ensure(numbers);  // clears the error
  if (!found) throw py::type_error(said(name, numbers) + " must be an array of numbers");
  return found;
}

}  // namespace multigrid

PYBIND11_MODULE(_core_of_the_main_interpreter, m, py::mod_gil_not_used()) {
  using namespace multigrid;
  py::options options;
  options.disable_function_signatures();
  bind_shape(m);
  bind_grid(m);
  bind_step(m);
  bind_plan(m);
  bind_schedule(m);
  bind_sampling(m);
  bind_resample(m);
  bind_cuda(m);
  m.attr("limits") =
      py::dict("samples"_a = most_samples, "iterations"_a = most_steps, "processes"_a = most_processes,
               "cycles"_a = most_stages, "stages"_a = most_stages, "factors"_a = most_factors, "stride"_a = most_stride,
               "size"_a = most_size, "extent"_a = most_extent, "clips"_a = most_views, "crops"_a = most_views,
               "videos"_a = most_videos, "threads"_a = most_threads);
}

// Checked before pybind11 looks up its shared state, which deadlocks in a sub-interpreter of Python 3.11.
extern "C" PYBIND11_EXPORT PyObject* PyInit__core() {  // NOLINT(bugprone-reserved-identifier): Python's name for it
  if (PyInterpreterState_Get() == PyInterpreterState_Main()) return PyInit__core_of_the_main_interpreter();
  PyErr_SetString(PyExc_ImportError,
                  "pymultigrid cannot be used in a sub-interpreter, which would share objects with the main one; "
                  "use threads or processes");
  return nullptr;
}
