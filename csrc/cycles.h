// The plan: factors and a baseline -> the shapes of every stage and the epochs they last. The only rounding of shapes
// and batches in the project. Source: Wu et al., "A Multigrid Method for Efficiently Training Video Models", CVPR 2020.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "shape.h"

namespace multigrid {

// One stage before it is laid over clips. `shapes` is its short cycle and ends on the stage's own base shape.
struct PlannedStage {
  std::vector<Shape> shapes;
  double end_epoch;
  double lr_scale;
  int long_position;
};

// One stretch of the baseline's clock: by `end_epoch` of this schedule the baseline would be at `baseline_epoch`.
struct ClockStretch {
  double end_epoch;
  double baseline_epoch;
  int lr_stage;
};

struct Plan {
  std::vector<PlannedStage> stages;
  std::vector<ClockStretch> clock;
};

// Fractions of the baseline along each axis.
struct Factor {
  double t, h, w;
};

// Sizes before rounding that a schedule stays at for `epochs`; b = 0 means: by the growth of the batch.
struct Phase {
  double epochs;
  double b, t, h, w;
};

// What a clip of (t, h, w) costs, in any unit; empty: t h w, its sampling points.
using Costs = std::map<std::tuple<std::int64_t, std::int64_t, std::int64_t>, double>;

// What every plan needs: the baseline and how its batch and sizes may change.
struct Rules {
  Shape baseline;
  double epochs;                 // of the baseline
  std::vector<double> lr_drops;  // in epochs of the baseline
  double growth;                 // batch ~ (baseline clip's cost / cost) ^ growth: 1 as in the paper, 0 none
  double lr_power;               // lr_scale = (batch / baseline batch) ^ lr_power: 1 linear, 0.5 sqrt, 0 none
  std::int64_t multiple_t, multiple_hw, multiple_b;
  Costs costs;
};

// Half to even, to a multiple, at least one multiple.
std::int64_t round_to(double value, std::int64_t multiple);

// These throw std::invalid_argument with the argument, its value, the rule and the next move.
// A factor is a fraction of the baseline's size.
void check_fraction(const std::string& name, double factor);
// What a phase must be, whatever the baseline is.
void check_phase(const Phase& phase);
// Long cycles between LR drops (`cycles` equal ones where there are none), then fine-tuning; an empty long cycle gives
// the LR stages at the baseline's shape. `short_cycle`: spatial factors below each stage's base, none where it is
// empty. epoch_factor: epochs of this schedule / epochs of the baseline.
Plan plan_cycles(const Rules& rules, const std::vector<Factor>& long_cycle, const std::vector<double>& short_cycle,
                 int cycles, double epoch_factor);
// The phases in order; together they last the baseline's epochs.
Plan plan_phases(const Rules& rules, const std::vector<Phase>& phases, const std::vector<double>& short_cycle);

}  // namespace multigrid
