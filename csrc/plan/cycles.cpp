#include "plan/cycles.h"

#include <algorithm>
#include <cmath>

#include "plan/limits.h"
#include "plan/refuse.h"

namespace multigrid {
namespace {

// Tighter than kBudget because the full mini-batch may already fill the memory; costs this close are measurement noise.
constexpr double kMeasuredBudget = 1.01;
// The start of the paper's last LR stage on Kinetics-400 (epoch 196 of 239). Long cycles end there without LR drops.
constexpr double kFineTuningStart = 196.0 / 239.0;

// A stage's shapes and the mean over them of batch / baseline batch, the paper's a (reference: "avg_bs").
struct Level {
  std::vector<Shape> shapes;
  double mean_batch_factor;
};

// The factor by which a batch grows when the cost of its clips falls from `full` to `cost`: the ratio, rounded to
// nearest as in the reference, or down if rounding to nearest would exceed the budget.
double batch_factor(double full, double cost, double growth) {
  const double ideal = full / cost;
  double factor = std::nearbyint(std::pow(ideal, growth));
  if (factor * cost > kBudget * full) factor = std::floor(ideal);
  return std::max(1.0, factor);
}

bool as_reference(const Rules& rules) {
  return rules.growth == 1 && rules.multiple_t == 1 && rules.multiple_hw == 1 && rules.multiple_b == 1 &&
         rules.costs.empty();
}

// Sizes -> shapes under the rules.
class Shaper {
 public:
  Shaper(const Rules& rules, const std::vector<double>& short_cycle)
      : rules_(rules),
        short_cycle_(short_cycle),
        full_(rules.baseline),
        full_cost_(clip_cost(rules, rules.baseline)),
        budget_((rules.costs.empty() ? kBudget : kMeasuredBudget) * double(full_.b) * full_cost_),
        measured_(!rules.costs.empty()) {}

  Level level(const Factor& f) const {
    Shape base = sized(rules_, double(full_.t) * f.t, double(full_.h) * f.h, double(full_.w) * f.w);
    const double cost = clip_cost(rules_, base);
    const double whole = double(full_.b) * batch_factor(full_cost_, cost, rules_.growth);
    base.b = batch(measured_ ? grown(full_, cost) : whole, cost);
    return level(base, full_);
  }

  // Phases need not be whole multiples of the baseline's batch.
  Level level(const Phase& phase) const {
    Shape base = sized(rules_, phase.t, phase.h, phase.w);
    const double cost = clip_cost(rules_, base);
    base.b = phase.b > 0 ? std::int64_t(phase.b) : batch(grown(full_, cost), cost);
    return level(base, phase.b > 0 ? base : full_);
  }

  PlannedStage stage(const Level& level, double end_epoch, int long_position) const {
    const double growth = double(level.shapes.back().b) / double(full_.b);
    return {level.shapes, end_epoch, std::pow(growth, rules_.lr_power), long_position};
  }

 private:
  // A base and its short cycle. Batches by measured costs grow from the batch of `from`. Unless a phase gives its
  // batch, that is the full shape, so that the same clip size has the same batch in every stage.
  Level level(const Shape& base, const Shape& from) const {
    const double cost = clip_cost(rules_, base);
    Level out{{}, 0};
    double reference = std::nearbyint(full_cost_ / cost), own = 0;
    bool regular = as_reference(rules_) && double(base.b) == reference * double(full_.b);
    for (double f : short_cycle_) {
      // Absolute fractions of the baseline's size that never exceed the stage's own base (released code, issue #429).
      const double h = std::min(double(full_.h) * f, double(base.h)), w = std::min(double(full_.w) * f, double(base.w));
      const double wanted = clip_cost(rules_, double(base.t), h, w);
      Shape s = sized(rules_, double(base.t), h, w);
      s.b = measured_ ? std::max(base.b, batch(grown(from, wanted), wanted))
                      : short_batch(base, cost / wanted, clip_cost(rules_, s));
      regular = regular && double(s.b) == double(base.b) * std::nearbyint(cost / wanted);
      reference += std::nearbyint(full_cost_ / wanted);
      own += double(s.b) / double(full_.b);
      out.shapes.push_back(s);
    }
    out.shapes.push_back(base);
    own += double(base.b) / double(full_.b);
    // The reference computes a from sizes before rounding. If a rule that it does not have changed the batches, a is
    // their actual mean, so that all stages of a cycle get the same number of iterations.
    out.mean_batch_factor = (regular ? reference : own) / double(out.shapes.size());
    return out;
  }

  // How many clips of `cost` cost as much as the batch of `from`; fewer with a smaller growth.
  double grown(const Shape& from, double cost) const {
    return std::min(0x1p53, double(from.b) * std::pow(clip_cost(rules_, from) / cost, rules_.growth));
  }

  // Rounded to the nearest multiple, or down if that would exceed the budget.
  std::int64_t batch(double wanted, double cost) const {
    const std::int64_t m = rules_.multiple_b;
    std::int64_t b = round_to(wanted, m);
    if (double(b) * cost > budget_) b = std::int64_t(std::floor(double(full_.b) * full_cost_ / cost / double(m))) * m;
    return std::max(m, b);
  }

  // `ratio`: cost of the base's clip / cost of the wanted clip; `cost`: cost of that clip after rounding.
  std::int64_t short_batch(const Shape& base, double ratio, double cost) const {
    double times = std::nearbyint(std::pow(ratio, rules_.growth));
    if (times * double(base.b) * cost > budget_) {
      times = std::floor(double(full_.b) * full_cost_ / cost / double(base.b));
    }
    return std::int64_t(std::max(1.0, times)) * base.b;
  }

  const Rules& rules_;
  const std::vector<double>& short_cycle_;
  const Shape& full_;
  const double full_cost_, budget_;
  const bool measured_;
};

// The LR stages at one shape.
Plan plan_baseline(const Rules& rules, const Shaper& shaper, double epoch_factor) {
  const Level only = shaper.level(Factor{1, 1, 1});
  std::vector<double> ends = rules.lr_drops;
  ends.push_back(rules.baseline_epochs);
  Plan plan;
  for (std::size_t k = 0; k < ends.size(); ++k) {
    plan.stages.push_back(shaper.stage(only, ends[k] * epoch_factor, 0));
    plan.clock.push_back({ends[k] * epoch_factor, ends[k], int(k)});
  }
  return plan;
}

// Where the long cycles begin and end, in epochs of the baseline.
std::vector<double> cycle_bounds(const Rules& rules, int cycles) {
  std::vector<double> bounds{0.0};
  bounds.insert(bounds.end(), rules.lr_drops.begin(), rules.lr_drops.end());
  for (int k = 1; rules.lr_drops.empty() && k <= cycles; ++k) {
    bounds.push_back(rules.baseline_epochs * kFineTuningStart * k / cycles);
  }
  return bounds;
}

// Epochs of every stage before they are scaled to the wanted total; the last is fine-tuning.
std::vector<double> raw_epochs(const Rules& rules, const std::vector<double>& bounds, const std::vector<Level>& levels,
                               const Level& full) {
  double sum_a = 0, iterations = 0;
  for (const Level& l : levels) sum_a += l.mean_batch_factor;
  std::vector<double> raw;
  for (std::size_t k = 0; k + 1 < bounds.size(); ++k) {
    for (const Level& l : levels) {
      raw.push_back((bounds[k + 1] - bounds[k]) * l.mean_batch_factor / sum_a);
      iterations += raw.back() / l.mean_batch_factor;
    }
  }
  // Fine-tuning saves as many iterations as the cycles do.
  const double saving = bounds.back() / iterations;
  raw.push_back((rules.baseline_epochs - bounds.back()) / saving * full.mean_batch_factor);
  return raw;
}

// Each cycle is one stretch of the baseline's clock. The last two stretches meet in the middle of fine-tuning.
std::vector<ClockStretch> cycle_clock(const Rules& rules, const std::vector<double>& bounds,
                                      const std::vector<PlannedStage>& stages, std::size_t stages_per_cycle) {
  const std::size_t cycles = bounds.size() - 1;
  const double total = stages.back().end_epoch;
  std::vector<ClockStretch> clock;
  for (std::size_t k = 0; k < cycles; ++k) {
    const double cycle_end = stages[(k + 1) * stages_per_cycle - 1].end_epoch;
    const double end_epoch = k + 1 < cycles ? cycle_end : (cycle_end + total) / 2;
    clock.push_back({end_epoch, bounds[k + 1], rules.lr_drops.empty() ? 0 : int(k)});
  }
  clock.push_back({total, rules.baseline_epochs, int(rules.lr_drops.size())});
  return clock;
}

Plan plan_long_cycles(const Rules& rules, const Shaper& shaper, const std::vector<Factor>& long_cycle, int cycles,
                      double epoch_factor) {
  const Level full = shaper.level(Factor{1, 1, 1});
  std::vector<Level> levels;
  for (const Factor& factor : long_cycle) levels.push_back(shaper.level(factor));
  const std::vector<double> bounds = cycle_bounds(rules, cycles);
  const std::vector<double> raw = raw_epochs(rules, bounds, levels, full);

  double sum_raw = 0;
  for (double r : raw) sum_raw += r;
  const double total = rules.baseline_epochs * epoch_factor;
  const double x = total / sum_raw;
  Plan plan;
  double end_epoch = 0;
  for (std::size_t n = 0; n + 1 < raw.size(); ++n) {
    const std::size_t j = n % levels.size();
    end_epoch += raw[n] * x;
    plan.stages.push_back(shaper.stage(levels[j], end_epoch, int(j)));
  }
  plan.stages.push_back(shaper.stage(full, total, int(levels.size()) - 1));
  plan.clock = cycle_clock(rules, bounds, plan.stages, levels.size());
  return plan;
}

void check_factors(const char* name, std::size_t factors) {
  if (factors > std::size_t(most_factors)) {
    refuse(name, " has ", factors, " factors; a cycle has at most ", most_factors, ": leave some out");
  }
}

// Checked before the stages, each with its short cycle and its base, are made.
void check_stages(double stages, const std::vector<double>& short_cycle) {
  if (stages > double(most_stages) || stages * double(short_cycle.size() + 1) > double(most_shapes)) {
    refuse("the plan has ", stages, " stages of ", short_cycle.size() + 1, " shapes; at most ", most_stages,
           " stages and ", most_shapes, " shapes in all are supported: take fewer cycles or phases");
  }
}

void check_short(const Rules& rules, const std::vector<double>& short_cycle) {
  check_factors("short", short_cycle.size());
  for (double f : short_cycle) {
    check_factor("short", f, "rows", rules.baseline.h, rules.multiple_hw);
    check_factor("short", f, "columns", rules.baseline.w, rules.multiple_hw);
  }
}

void check(const Rules& rules, const Phase& phase) {
  const Shape& full = rules.baseline;
  check_phase(phase);
  if (!(phase.t <= double(full.t) && phase.h <= double(full.h) && phase.w <= double(full.w))) {
    refuse("a phase of ", phase.t, "x", phase.h, "x", phase.w, " exceeds the baseline's ", full.t, "x", full.h, "x",
           full.w, "; the baseline is the largest shape: pass the largest as shape");
  }
  check_factor("a phase", phase.t / double(full.t), "frames", full.t, rules.multiple_t);
  check_factor("a phase", phase.h / double(full.h), "rows", full.h, rules.multiple_hw);
  check_factor("a phase", phase.w / double(full.w), "columns", full.w, rules.multiple_hw);
  if (phase.b == 0) return;  // the batch follows from the rules, which keep the budget
  check_multiples(rules, "a phase's", phase.b, phase.t, phase.h, phase.w);
  const double cost = clip_cost(rules, phase.t, phase.h, phase.w), budget = double(full.b) * clip_cost(rules, full);
  if (phase.b * cost > kBudget * budget) {
    refuse("a phase of ", phase.b, "x", phase.t, "x", phase.h, "x", phase.w, " costs ", phase.b * cost / budget,
           " times the baseline; at most ", kBudget, " fits its memory: take a batch of ", std::floor(budget / cost),
           " or fewer");
  }
}

}  // namespace

void check(const Factor& factor) {
  check_fraction("t", factor.t);
  check_fraction("h", factor.h);
  check_fraction("w", factor.w);
}

void check_phase(const Phase& phase) {
  if (!(phase.epochs > 0 && std::isfinite(phase.epochs))) {
    refuse("a phase lasts ", phase.epochs, " epochs; it must be above 0 and finite");
  }
  for (double size : {phase.t, phase.h, phase.w}) {
    if (!(size > 0 && std::isfinite(size))) {
      refuse("a phase of ", phase.t, "x", phase.h, "x", phase.w, " has the size ", size,
             ", which must be above 0 and finite: frames, height, width");
    }
  }
}

Plan plan_cycles(const Rules& rules, const std::vector<Factor>& long_cycle, const std::vector<double>& short_cycle,
                 int cycles, double epoch_factor) {
  check_rules(rules);
  check_short(rules, short_cycle);
  for (const Factor& f : long_cycle) {
    check_factor("long", f.t, "frames", rules.baseline.t, rules.multiple_t);
    check_factor("long", f.h, "rows", rules.baseline.h, rules.multiple_hw);
    check_factor("long", f.w, "columns", rules.baseline.w, rules.multiple_hw);
  }
  check_factors("long", long_cycle.size());
  const double bounds = rules.lr_drops.empty() ? double(cycles) : double(rules.lr_drops.size());
  check_stages(bounds * double(long_cycle.size()) + 1, short_cycle);
  const Shaper shaper(rules, short_cycle);
  if (long_cycle.empty()) return plan_baseline(rules, shaper, epoch_factor);
  return plan_long_cycles(rules, shaper, long_cycle, cycles, epoch_factor);
}

Plan plan_phases(const Rules& rules, const std::vector<Phase>& phases, const std::vector<double>& short_cycle) {
  check_rules(rules);
  check_short(rules, short_cycle);
  if (phases.empty()) refuse("phases is empty; pass at least one");
  check_stages(double(phases.size()), short_cycle);
  const Shaper shaper(rules, short_cycle);
  const double close = 1e-9 * rules.baseline_epochs;
  Plan plan;
  double end_epoch = 0;
  for (const Phase& phase : phases) {
    check(rules, phase);
    end_epoch += phase.epochs;
    // A drop at the end of a phase is exactly there, whatever the last bit of the sum.
    auto drop = std::lower_bound(rules.lr_drops.begin(), rules.lr_drops.end(), end_epoch - 2 * close);
    for (; drop != rules.lr_drops.end() && *drop < end_epoch + 2 * close; ++drop) {
      if (std::abs(*drop - end_epoch) < close) end_epoch = *drop;
    }
    plan.stages.push_back(shaper.stage(shaper.level(phase), end_epoch, int(plan.stages.size())));
  }
  plan.stages.back().end_epoch = rules.baseline_epochs;
  for (double drop : rules.lr_drops) plan.clock.push_back({drop, drop, int(plan.clock.size())});
  plan.clock.push_back({rules.baseline_epochs, rules.baseline_epochs, int(plan.clock.size())});
  return plan;
}

Plan plan_progressive(const Rules& rules, const Factor& start, int stages, double full_from) {
  const Shape& full = rules.baseline;
  const auto end = [&](int i) {
    return i < stages ? full_from * rules.baseline_epochs * i / (stages - 1) : rules.baseline_epochs;
  };
  const auto ramp = [&](double factor, std::int64_t size, int i) {
    return (factor + (1 - factor) * i / (stages - 1)) * double(size);
  };
  std::vector<Phase> phases;
  for (int i = 0; i < stages; ++i) {
    phases.push_back(
        {end(i + 1) - end(i), 0, ramp(start.t, full.t, i), ramp(start.h, full.h, i), ramp(start.w, full.w, i)});
  }
  return plan_phases(rules, phases, {});
}

}  // namespace multigrid
