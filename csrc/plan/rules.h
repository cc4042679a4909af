// Rules: the baseline, and how every plan may change sizes and batches. The only rounding of shapes in the project.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "plan/shape.h"

namespace multigrid {

// No step costs more than this times the baseline's B x T x H x W.
constexpr double kBudget = 1.05;

// The cost of a clip of (t, h, w), in any unit. Empty: its sampling points, t h w.
using Costs = std::map<std::tuple<std::int64_t, std::int64_t, std::int64_t>, double>;

// The baseline and how its batch and sizes may change.
struct Rules {
  Shape baseline;
  double baseline_epochs;
  std::vector<double> lr_drops;  // in epochs of the baseline
  double growth;                 // batch ~ (baseline clip's cost / cost) ^ growth: 1 as in the paper, 0 none
  double lr_power;               // lr_scale = (batch / baseline batch) ^ lr_power: 1 linear, 0.5 sqrt, 0 none
  std::int64_t multiple_t, multiple_hw, multiple_b;
  Costs costs;
};

// Half to even, to a multiple, at least one multiple.
std::int64_t round_to(double value, std::int64_t multiple);

// The sizes, rounded; the batch is not set yet.
Shape sized(const Rules& rules, double t, double h, double w);
// The cost of a clip, from which every batch follows: the measured one of its sizes, or its sampling points.
double clip_cost(const Rules& rules, double t, double h, double w);
double clip_cost(const Rules& rules, const Shape& s);

// These throw std::invalid_argument with the argument, its value, the rule and the next move.
void check_rules(const Rules& rules);
// A factor is a fraction of the baseline's size.
void check_fraction(const std::string& name, double factor);
// A factor that leaves less than half of the smallest size is refused, unless there is nothing to divide.
void check_factor(const std::string& name, double factor, const char* what, std::int64_t size, std::int64_t multiple);
void check_multiples(const Rules& rules, const char* whose, double b, double t, double h, double w);

}  // namespace multigrid
