// What Python sees of plans: values with named fields, and the functions that make a plan.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "plan/cycles.h"
#include "python/value.h"

namespace py = pybind11;
using namespace py::literals;

namespace multigrid {
namespace {

// A value that Python makes from its fields, by name.
template <class T, class... M>
py::class_<T> bind_record(py::module_& m, const char* name, const char* doc, Field<T, M>... fields) {
  return bind_value(m, name, doc, fields...)
      .def(py::init([fields...](const M&... values) {
             T self{};
             ((self.*fields.member = values), ...);
             return self;
           }),
           py::kw_only(), py::arg(fields.name)...);
}

void bind_values(py::module_& m) {
  bind_record(m, "Factor", "Fractions of the baseline along each axis.", field("t", &Factor::t), field("h", &Factor::h),
              field("w", &Factor::w));
  bind_value(m, "Phase", "Sizes before rounding that a schedule stays at for `epochs`; b = 0: a batch by the rule.",
             field("epochs", &Phase::epochs), field("b", &Phase::b), field("t", &Phase::t), field("h", &Phase::h),
             field("w", &Phase::w))
      .def(py::init([](double epochs, double b, double t, double h, double w) {
             const Phase phase{epochs, b, t, h, w};
             check_phase(phase);
             return phase;
           }),
           py::kw_only(), "epochs"_a, "b"_a, "t"_a, "h"_a, "w"_a);
  bind_record(m, "PlannedStage", "A stage before it is laid over clips; the last of its shapes is its base.",
              field("shapes", &PlannedStage::shapes), field("end_epoch", &PlannedStage::end_epoch),
              field("lr_scale", &PlannedStage::lr_scale), field("long", &PlannedStage::long_position));
  bind_record(m, "ClockStretch", "By `end_epoch` of the schedule the baseline would be at `baseline_epoch`.",
              field("end_epoch", &ClockStretch::end_epoch), field("baseline_epoch", &ClockStretch::baseline_epoch),
              field("lr_stage", &ClockStretch::lr_stage));
  bind_record(m, "Plan", "The stages of a schedule and the baseline's clock.", field("stages", &Plan::stages),
              field("clock", &Plan::clock));
}

}  // namespace

void bind_plan(py::module_& m) {
  bind_values(m);
  py::class_<Rules>(m, "Rules", "The baseline and how its batch and sizes may change; see csrc/plan/rules.h.")
      .def(py::init([](const Shape& baseline, double baseline_epochs, const std::vector<double>& lr_drops,
                       double growth, double lr_power, std::int64_t multiple_t, std::int64_t multiple_hw,
                       std::int64_t multiple_b, const Costs& costs) {
             return Rules{baseline,   baseline_epochs, lr_drops,   growth, lr_power,
                          multiple_t, multiple_hw,     multiple_b, costs};
           }),
           py::kw_only(), "baseline"_a, "baseline_epochs"_a, "lr_drops"_a, "batch_growth"_a, "lr_power"_a,
           "frames_multiple_of"_a, "multiple_of"_a, "batch_multiple_of"_a, "costs"_a)
      .def_readonly("baseline", &Rules::baseline)
      .def_readonly("baseline_epochs", &Rules::baseline_epochs)
      .def_property_readonly("lr_drops", [](const Rules& rules) { return as_python(rules.lr_drops); });
  m.def("check_fraction", &check_fraction, "name"_a, "factor"_a, "Refuse a factor outside (0, 1].");
  m.def("plan_cycles", &plan_cycles, "rules"_a, py::kw_only(), "long"_a, "short"_a, "cycles"_a, "epoch_factor"_a);
  m.def("plan_progressive", &plan_progressive, "rules"_a, py::kw_only(), "start"_a, "stages"_a, "full_from"_a);
  m.def("plan_phases", &plan_phases, "rules"_a, py::kw_only(), "phases"_a, "short"_a);
}

}  // namespace multigrid
