// Binds plans: values with named fields, and the functions that make a plan.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "plan/cycles.h"
#include "python/module.h"
#include "python/value.h"

namespace py = pybind11;
using namespace py::literals;

namespace multigrid {
namespace {

void bind_values(py::module_& m) {
  bind_value<Factor>(m, "Factor", "Fractions of the baseline along each axis.", "Factor(t=, h=, w=)", check,
                     field("t", &Factor::t), field("h", &Factor::h), field("w", &Factor::w));
  bind_value<Phase>(m, "Phase", "Sizes, before rounding, for `epochs`; b = 0: the batch follows from the rules.",
                    "Phase(epochs=, b=, t=, h=, w=)", check_phase, field("epochs", &Phase::epochs),
                    field("b", &Phase::b), field("t", &Phase::t), field("h", &Phase::h), field("w", &Phase::w));
  bind_value<PlannedStage>(m, "PlannedStage",
                           "A stage before it is laid over clips; the last of its shapes is its base.",
                           "PlannedStage(shapes=, end_epoch=, lr_scale=, long=)", nullptr,
                           field("shapes", &PlannedStage::shapes), field("end_epoch", &PlannedStage::end_epoch),
                           field("lr_scale", &PlannedStage::lr_scale), field("long", &PlannedStage::long_position));
  bind_value<ClockStretch>(
      m, "ClockStretch", "By `end_epoch` of the schedule the baseline would be at `baseline_epoch`.",
      "ClockStretch(end_epoch=, baseline_epoch=, lr_stage=)", nullptr, field("end_epoch", &ClockStretch::end_epoch),
      field("baseline_epoch", &ClockStretch::baseline_epoch), field("lr_stage", &ClockStretch::lr_stage));
  bind_value<Plan>(m, "Plan", "The stages of a schedule and the baseline's clock.", "Plan(stages=, clock=)", nullptr,
                   field("stages", &Plan::stages), field("clock", &Plan::clock));
}

std::int64_t multiple_from(const char* name, const py::object& multiple) {
  return whole(name, multiple, std::int64_t{1}, most_size);
}

Costs costs_from(const py::object& costs) {
  if (!py::isinstance<py::dict>(costs)) throw py::type_error(said("costs", costs) + " must be a dict");
  Costs table;
  for (const auto& [clip, cost] : py::reinterpret_borrow<py::dict>(costs)) {
    const std::vector<std::int64_t> size = read<std::vector<std::int64_t>>("a clip of costs", clip);
    if (size.size() != 3) throw py::type_error(said("a clip of costs", clip) + " must be (frames, height, width)");
    table[{size[0], size[1], size[2]}] = number("a cost", cost);
  }
  return table;
}

Rules make_rules(const py::object& baseline, const py::object& baseline_epochs, const py::object& lr_drops,
                 const py::object& batch_growth, const py::object& lr_power, const py::object& frames_multiple_of,
                 const py::object& multiple_of, const py::object& batch_multiple_of, const py::object& costs) {
  Rules rules{};
  rules.baseline = read<Shape>("baseline", baseline);
  rules.baseline_epochs = number("baseline_epochs", baseline_epochs);
  rules.lr_drops = read<std::vector<double>>("lr_drops", lr_drops);
  rules.growth = number("batch_growth", batch_growth);
  rules.lr_power = number("lr_power", lr_power);
  rules.multiple_t = multiple_from("frames_multiple_of", frames_multiple_of);
  rules.multiple_hw = multiple_from("multiple_of", multiple_of);
  rules.multiple_b = multiple_from("batch_multiple_of", batch_multiple_of);
  rules.costs = costs_from(costs);
  return rules;
}

}  // namespace

void bind_plan(py::module_& m) {
  bind_values(m);
  auto rules =
      bind_type<Rules>(m, "Rules", "The baseline and how its batch and sizes may change; see csrc/plan/rules.h.");
  define_init(rules, make_rules,
              "Rules(baseline=, baseline_epochs=, lr_drops=, batch_growth=, lr_power=, frames_multiple_of=, "
              "multiple_of=, batch_multiple_of=, costs=)",
              py::kw_only(), "baseline"_a, "baseline_epochs"_a, "lr_drops"_a, "batch_growth"_a, "lr_power"_a,
              "frames_multiple_of"_a, "multiple_of"_a, "batch_multiple_of"_a, "costs"_a);
  rules.def_readonly("baseline", &Rules::baseline)
      .def_readonly("baseline_epochs", &Rules::baseline_epochs)
      .def_property_readonly("lr_drops", [](const Rules& self) { return as_python(self.lr_drops); });
  define(
      m, "check_fraction",
      [](const py::object& name, const py::object& factor) {
        check_fraction(text("name", name), number("factor", factor));
      },
      "check_fraction(name, factor)", "Refuse a factor outside (0, 1].", "name"_a, "factor"_a);
  define(
      m, "plan_cycles",
      [](const py::object& rules, const py::object& factors, const py::object& short_cycle, const py::object& cycles,
         const py::object& epoch_factor) {
        return plan_cycles(read<Rules>("rules", rules), read<std::vector<Factor>>("long", factors),
                           read<std::vector<double>>("short", short_cycle),
                           whole("cycles", cycles, 1, static_cast<int>(most_stages)),
                           number("epoch_factor", epoch_factor));
      },
      "plan_cycles(rules, long=, short=, cycles=, epoch_factor=)", "Long and short cycles.", "rules"_a, py::kw_only(),
      "long"_a, "short"_a, "cycles"_a, "epoch_factor"_a);
  define(
      m, "plan_progressive",
      [](const py::object& rules, const py::object& start, const py::object& stages, const py::object& full_from) {
        return plan_progressive(read<Rules>("rules", rules), read<Factor>("start", start),
                                whole("stages", stages, 2, static_cast<int>(most_stages)),
                                number("full_from", full_from));
      },
      "plan_progressive(rules, start=, stages=, full_from=)", "A ramp of sizes.", "rules"_a, py::kw_only(), "start"_a,
      "stages"_a, "full_from"_a);
  define(
      m, "plan_phases",
      [](const py::object& rules, const py::object& phases, const py::object& short_cycle) {
        return plan_phases(read<Rules>("rules", rules), read<std::vector<Phase>>("phases", phases),
                           read<std::vector<double>>("short", short_cycle));
      },
      "plan_phases(rules, phases=, short=)", "Phases in order.", "rules"_a, py::kw_only(), "phases"_a, "short"_a);
}

}  // namespace multigrid
