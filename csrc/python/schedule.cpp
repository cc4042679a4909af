// Binds Schedule and the iterator over its steps.

#include "plan/schedule.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "python/module.h"
#include "python/value.h"

namespace py = pybind11;
using namespace py::literals;

namespace multigrid {
namespace {

// Steps [next, stop) of a schedule, which `owner` keeps alive.
struct Steps {
  py::object owner;
  const Schedule* schedule;
  std::int64_t next, stop;
};

Schedule make_schedule(const py::object& baseline, const py::object& baseline_epochs, const py::object& samples,
                       const py::object& processes, const py::object& plan) {
  return Schedule(read<Shape>("baseline", baseline), number("baseline_epochs", baseline_epochs),
                  whole("samples", samples, std::int64_t{1}, most_samples),
                  whole("processes", processes, std::int64_t{1}, most_processes), read<Plan>("plan", plan));
}

Steps steps(const py::object& self, const py::object& start, const py::object& stop) {
  const auto& schedule = self.cast<const Schedule&>();
  const std::int64_t size = schedule.size();
  return {self, &schedule, whole("start", start, std::int64_t{0}, size), whole("stop", stop, std::int64_t{0}, size)};
}

Step next_step(Steps& steps) {
  if (steps.next >= steps.stop) throw py::stop_iteration();
  return steps.schedule->at(steps.next++);
}

}  // namespace

void bind_schedule(py::module_& m) {
  bind_type<Steps>(m, "Steps", "Iterator over the steps of a schedule.")
      .def("__iter__", [](py::object self) { return self; })
      .def("__next__", next_step);

  auto schedule = bind_type<Schedule>(m, "Schedule", "A plan laid over one stream of clips; see csrc/plan/schedule.h.");
  define_init(schedule, make_schedule, "Schedule(baseline=, baseline_epochs=, samples=, processes=, plan=)",
              py::kw_only(), "baseline"_a, "baseline_epochs"_a, "samples"_a, "processes"_a, "plan"_a);
  schedule.def_property_readonly("stages", [](const Schedule& self) { return as_python(self.stages()); })
      .def_property_readonly("clips", &Schedule::clips)
      .def("__len__", &Schedule::size);
  define(
      schedule, "at",
      [](const Schedule& self, py::handle index) {
        return self.at(whole("index", index, std::int64_t{0}, self.size() - 1));
      },
      "schedule.at(index)", "The step at an index.", "index"_a);
  define(
      schedule, "find",
      [](const Schedule& self, const py::object& position) {
        return self.find(whole("position", position, std::int64_t{0}));
      },
      "schedule.find(position)", "The first step that begins at or after this position of the stream.", "position"_a);
  define(schedule, "steps", steps, "schedule.steps(start, stop)", "An iterator over steps.", "start"_a, "stop"_a);
  define(
      m, "clips_by",
      [](const py::object& end_epoch, const py::object& samples) {
        return clips_by(number("end_epoch", end_epoch), whole("samples", samples, std::int64_t{1}, most_samples));
      },
      "clips_by(end_epoch, samples)", "The clips before `end_epoch`, rounded up.", "end_epoch"_a, "samples"_a);
}

}  // namespace multigrid
