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

// Throws std::invalid_argument unless each is in (0, 1].
void check(const Factor& factor);

// Sizes, before rounding, that a schedule trains at for `epochs`. b = 0: the batch follows from the rules.
struct Phase {
  double epochs;
  double b, t, h, w;
};

// These throw std::invalid_argument with the argument, its value, the rule and the next move.
// The check of a phase that needs no baseline.
void check_phase(const Phase& phase);
// Long cycles between LR drops (`cycles` equal ones if there are no drops), then fine-tuning. An empty long cycle gives
// the LR stages at the baseline's shape. `short_cycle`: spatial factors of the steps before each base; may be empty.
// epoch_factor: epochs of this schedule / epochs of the baseline.
Plan plan_cycles(const Rules& rules, const std::vector<Factor>& long_cycle, const std::vector<double>& short_cycle,
                 int cycles, double epoch_factor);
// The phases in order; together they last `baseline_epochs`.
Plan plan_phases(const Rules& rules, const std::vector<Phase>& phases, const std::vector<double>& short_cycle);
// Phases whose sizes rise linearly from `start` to the full shape. All but the last of the `stages` share the fraction
// `full_from` of the training equally; the last is at the full shape for the rest.
Plan plan_progressive(const Rules& rules, const Factor& start, int stages, double full_from);

}  // namespace multigrid
