#include "plan/rules.h"

#include <algorithm>
#include <cmath>

#include "plan/limits.h"
#include "plan/refuse.h"

namespace multigrid {
namespace {

std::int64_t size(double wanted, std::int64_t full, std::int64_t multiple) {
  return std::min(round_to(wanted, multiple), full);
}

void check_multiple(const char* name, std::int64_t multiple, const char* whose, const char* what, double size) {
  const double below = std::floor(size / double(multiple)) * double(multiple);
  if (below != size) {
    refuse(whose, " ", what, " (", size, ") must be a multiple of ", name, " (", multiple, "); take ",
           below > 0 ? std::to_string(std::int64_t(below)) + " or " : "", below + double(multiple));
  }
}

}  // namespace

std::int64_t round_to(double value, std::int64_t multiple) {
  const auto times = std::int64_t(std::nearbyint(value / double(multiple)));
  return std::max<std::int64_t>(1, times) * multiple;
}

Shape sized(const Rules& rules, double t, double h, double w) {
  const Shape& full = rules.baseline;
  return {0, size(t, full.t, rules.multiple_t), size(h, full.h, rules.multiple_hw), size(w, full.w, rules.multiple_hw)};
}

double clip_cost(const Rules& rules, double t, double h, double w) {
  if (rules.costs.empty()) return t * h * w;
  const Shape s = sized(rules, t, h, w);
  const auto found = rules.costs.find({s.t, s.h, s.w});
  if (found == rules.costs.end()) {
    refuse("costs has no clip of ", s.t, "x", s.h, "x", s.w,
           "; it must have every clip size of the schedule: measure the schedule that the same arguments plan "
           "without costs");
  }
  return found->second;
}

double clip_cost(const Rules& rules, const Shape& s) { return clip_cost(rules, double(s.t), double(s.h), double(s.w)); }

void check_fraction(const std::string& name, double factor) {
  if (!(factor > 0 && factor <= 1)) {
    refuse(name, " has the factor ", factor,
           ", which must lie in (0, 1]: a factor is a fraction of the baseline's size");
  }
}

void check_factor(const std::string& name, double factor, const char* what, std::int64_t size, std::int64_t multiple) {
  check_fraction(name, factor);
  if (size > multiple && double(size) * factor < 0.5 * double(multiple)) {
    refuse(name, " has the factor ", factor, ", which leaves ", double(size) * factor, " of ", size, " ", what,
           "; take ", double(multiple) / double(size), " or more");
  }
}

void check_multiples(const Rules& rules, const char* whose, double b, double t, double h, double w) {
  check_multiple("batch_multiple_of", rules.multiple_b, whose, "batch", b);
  check_multiple("frames_multiple_of", rules.multiple_t, whose, "frames", t);
  check_multiple("multiple_of", rules.multiple_hw, whose, "height", h);
  check_multiple("multiple_of", rules.multiple_hw, whose, "width", w);
}

void check_rules(const Rules& rules) {
  if (!(rules.baseline_epochs > 0 && std::isfinite(rules.baseline_epochs))) {
    refuse("epochs (", rules.baseline_epochs, ") must be above 0 and finite: the length of the baseline's training");
  }
  if (!(rules.baseline_epochs >= least_epochs && rules.baseline_epochs <= most_epochs)) {
    refuse("epochs (", rules.baseline_epochs, ") must lie in [2^-40, 2^32]: the length of the baseline's training");
  }
  double previous = 0;
  for (double drop : rules.lr_drops) {
    if (!(drop > previous && drop < rules.baseline_epochs)) {
      refuse("lr_drops has ", drop, " after ", previous,
             "; the drops must increase, above 0 and below the baseline's length (", rules.baseline_epochs,
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

}  // namespace multigrid
