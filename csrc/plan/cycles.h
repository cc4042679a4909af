// The plan: factors and a baseline -> the shapes of every stage and the epochs they last. Source: Wu et al., "A
// Multigrid Method for Efficiently Training Video Models", CVPR 2020.
#pragma once

#include <vector>

#include "plan/rules.h"
#include "plan/shape.h"

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

// Throws std::invalid_argument for what is no fraction.
void check(const Factor& factor);

// Sizes before rounding that a schedule stays at for `epochs`; b = 0 means: by the growth of the batch.
struct Phase {
  double epochs;
  double b, t, h, w;
};

// These throw std::invalid_argument with the argument, its value, the rule and the next move.
// What a phase must be, whatever the baseline is.
void check_phase(const Phase& phase);
// Long cycles between LR drops (`cycles` equal ones where there are none), then fine-tuning; an empty long cycle gives
// the LR stages at the baseline's shape. `short_cycle`: spatial factors below each stage's base, none where it is
// empty. epoch_factor: epochs of this schedule / epochs of the baseline.
Plan plan_cycles(const Rules& rules, const std::vector<Factor>& long_cycle, const std::vector<double>& short_cycle,
                 int cycles, double epoch_factor);
// The phases in order; together they last `baseline_epochs`.
Plan plan_phases(const Rules& rules, const std::vector<Phase>& phases, const std::vector<double>& short_cycle);
// Phases whose sizes rise linearly from `start` to the full shape: `stages` of equal length over the share `full_from`
// of the training, but for the last, which is at the full shape for the rest.
Plan plan_progressive(const Rules& rules, const Factor& start, int stages, double full_from);

}  // namespace multigrid
