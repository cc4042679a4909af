#include "cycles.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "refuse.h"

namespace multigrid {
namespace {

// No step costs more than this times the baseline's B x T x H x W.
constexpr double kBudget = 1.05;
// The full mini-batch may take all the memory there is; costs this close were measured alike.
constexpr double kMeasuredBudget = 1.01;
// Where the paper's last LR stage begins on Kinetics-400 (epoch 196 of 239): long cycles end there if no LR drop says
// so.
constexpr double kFineTuningStart = 196.0 / 239.0;

// A stage's shapes, and a: the mean over them of batch / baseline batch (reference: "avg_bs").
struct Level {
  std::vector<Shape> shapes;
  double mean_batch_factor;
};

// How many times a batch grows when the cost of its clips falls from `full` to `cost`: the ratio, rounded to the
// nearest as the reference does, or down where the nearest would break the budget.
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

std::int64_t size(double wanted, std::int64_t full, std::int64_t multiple) {
  return std::min(round_to(wanted, multiple), full);
}

// The sizes, rounded; the batch is still open.
Shape sized(const Rules& rules, double t, double h, double w) {
  const Shape& full = rules.baseline;
  return {0, size(t, full.t, rules.multiple_t), size(h, full.h, rules.multiple_hw), size(w, full.w, rules.multiple_hw)};
}

// The cost of a clip, which every batch follows: what was measured at its sizes, or its sampling points.
double clip_cost(const Rules& rules, double t, double h, double w) {
  if (rules.costs.empty()) return t * h * w;
  const Shape s = sized(rules, t, h, w);
  const auto found = rules.costs.find({s.t, s.h, s.w});
  if (found == rules.costs.end()) {
    refuse("costs has no clip of ", s.t, "x", s.h, "x", s.w,
           "; it must have every clip of the schedule: measure the schedule planned with the same arguments "
           "without costs");
  }
  return found->second;
}

double clip_cost(const Rules& rules, const Shape& s) { return clip_cost(rules, double(s.t), double(s.h), double(s.w)); }

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
  // A base and its short cycle. Measured batches grow from those of `from`: from the full shape where they can, so that
  // the same clips have the same batch in every stage.
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
    // The reference takes a from sizes before they are rounded. Where a rule it does not know made the batches, a is
    // what they are, so that all stages of a cycle get the same number of iterations.
    out.mean_batch_factor = (regular ? reference : own) / double(out.shapes.size());
    return out;
  }

  // Of a clip of `cost`, as many as cost what those of `from` do, or fewer with a smaller growth.
  double grown(const Shape& from, double cost) const {
    return std::min(0x1p53, double(from.b) * std::pow(clip_cost(rules_, from) / cost, rules_.growth));
  }

  // Rounded to the nearest multiple, or down where that would break the budget.
  std::int64_t batch(double wanted, double cost) const {
    const std::int64_t m = rules_.multiple_b;
    std::int64_t b = round_to(wanted, m);
    if (double(b) * cost > budget_) b = std::int64_t(std::floor(double(full_.b) * full_cost_ / cost / double(m))) * m;
    return std::max(m, b);
  }

  // `ratio`: the cost of the base's clip / the wanted clip's; `cost`: that of the clip it is rounded to.
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
  ends.push_back(rules.epochs);
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
    bounds.push_back(rules.epochs * kFineTuningStart * k / cycles);
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
  raw.push_back((rules.epochs - bounds.back()) / saving * full.mean_batch_factor);
  return raw;
}

// Each cycle is one stretch of the baseline's clock; the last two meet in the middle of fine-tuning.
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
  clock.push_back({total, rules.epochs, int(rules.lr_drops.size())});
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
  const double total = rules.epochs * epoch_factor;
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

// A factor that leaves less than half of the smallest size cannot be met, unless there is nothing to divide.
void check_factor(const char* name, double factor, const char* what, std::int64_t size, std::int64_t multiple) {
  check_fraction(name, factor);
  if (size > multiple && double(size) * factor < 0.5 * double(multiple)) {
    refuse(name, " has the factor ", factor, ", which leaves ", double(size) * factor, " of ", size, " ", what,
           "; take ", double(multiple) / double(size), " or more");
  }
}

void check_multiple(const char* name, std::int64_t multiple, const char* whose, const char* what, double size) {
  const double below = std::floor(size / double(multiple)) * double(multiple);
  if (below != size) {
    refuse(whose, " ", what, " (", size, ") must be a multiple of ", name, " (", multiple, "); take ",
           below > 0 ? std::to_string(std::int64_t(below)) + " or " : "", below + double(multiple));
  }
}

void check_multiples(const Rules& rules, const char* whose, double b, double t, double h, double w) {
  check_multiple("batch_multiple_of", rules.multiple_b, whose, "batch", b);
  check_multiple("frames_multiple_of", rules.multiple_t, whose, "frames", t);
  check_multiple("multiple_of", rules.multiple_hw, whose, "height", h);
  check_multiple("multiple_of", rules.multiple_hw, whose, "width", w);
}

void check(const Rules& rules) {
  if (!(rules.epochs > 0 && std::isfinite(rules.epochs))) {
    refuse("epochs (", rules.epochs, ") must be above 0 and finite: the length of the baseline's training");
  }
  double previous = 0;
  for (double drop : rules.lr_drops) {
    if (!(drop > previous && drop < rules.epochs)) {
      refuse("lr_drops has ", drop, " after ", previous,
             "; the drops must increase, above 0 and below the baseline's length (", rules.epochs,
             ") in the same unit");
    }
    previous = drop;
  }
  if (!(rules.growth >= 0 && rules.growth <= 1)) {
    refuse("batch_growth (", rules.growth, ") must lie in [0, 1]; 1 grows the batch as the paper does, 0 keeps it");
  }
  const Shape& full = rules.baseline;
  if (!(full.cells() < 0x1p53)) {
    refuse("shape has ", full.cells(),
           " sampling points, above 2^53: more than can be counted exactly; take a smaller one");
  }
  for (const auto& [size, cost] : rules.costs) {
    const auto& [t, h, w] = size;
    if (!(cost > 0 && std::isfinite(cost))) {
      refuse("costs has ", cost, " for a clip of ", t, "x", h, "x", w, "; a cost must be above 0 and finite");
    }
  }
  check_multiples(rules, "the baseline's", double(full.b), double(full.t), double(full.h), double(full.w));
}

void check_short(const Rules& rules, const std::vector<double>& short_cycle) {
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
           full.w, "; the baseline is the largest shape: pass that one as shape");
  }
  check_factor("a phase", phase.t / double(full.t), "frames", full.t, rules.multiple_t);
  check_factor("a phase", phase.h / double(full.h), "rows", full.h, rules.multiple_hw);
  check_factor("a phase", phase.w / double(full.w), "columns", full.w, rules.multiple_hw);
  if (phase.b == 0) return;  // by the rule, which keeps the budget
  check_multiples(rules, "a phase's", phase.b, phase.t, phase.h, phase.w);
  const double cost = clip_cost(rules, phase.t, phase.h, phase.w), budget = double(full.b) * clip_cost(rules, full);
  if (phase.b * cost > kBudget * budget) {
    refuse("a phase of ", phase.b, "x", phase.t, "x", phase.h, "x", phase.w, " costs ", phase.b * cost / budget,
           " times the baseline; at most ", kBudget, " fits its memory: take a batch of ", std::floor(budget / cost),
           " or fewer");
  }
}

}  // namespace

std::int64_t round_to(double value, std::int64_t multiple) {
  const auto times = std::int64_t(std::nearbyint(value / double(multiple)));
  return std::max<std::int64_t>(1, times) * multiple;
}

void check_fraction(const std::string& name, double factor) {
  if (!(factor > 0 && factor <= 1)) {
    refuse(name, " has the factor ", factor,
           ", which must lie in (0, 1]: a factor is a fraction of the baseline's size");
  }
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
  check(rules);
  check_short(rules, short_cycle);
  for (const Factor& f : long_cycle) {
    check_factor("long", f.t, "frames", rules.baseline.t, rules.multiple_t);
    check_factor("long", f.h, "rows", rules.baseline.h, rules.multiple_hw);
    check_factor("long", f.w, "columns", rules.baseline.w, rules.multiple_hw);
  }
  const Shaper shaper(rules, short_cycle);
  if (long_cycle.empty()) return plan_baseline(rules, shaper, epoch_factor);
  return plan_long_cycles(rules, shaper, long_cycle, cycles, epoch_factor);
}

Plan plan_phases(const Rules& rules, const std::vector<Phase>& phases, const std::vector<double>& short_cycle) {
  check(rules);
  check_short(rules, short_cycle);
  const Shaper shaper(rules, short_cycle);
  Plan plan;
  double end_epoch = 0;
  for (const Phase& phase : phases) {
    check(rules, phase);
    end_epoch += phase.epochs;
    // A drop where a phase ends is at its end, whatever the sum's last bit says.
    for (double drop : rules.lr_drops) {
      if (std::abs(drop - end_epoch) < 1e-9 * rules.epochs) end_epoch = drop;
    }
    plan.stages.push_back(shaper.stage(shaper.level(phase), end_epoch, int(plan.stages.size())));
  }
  plan.stages.back().end_epoch = rules.epochs;
  for (double drop : rules.lr_drops) plan.clock.push_back({drop, drop, int(plan.clock.size())});
  plan.clock.push_back({rules.epochs, rules.epochs, int(plan.clock.size())});
  return plan;
}

}  // namespace multigrid
