#include "plan/schedule.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "plan/limits.h"
#include "plan/refuse.h"

namespace multigrid {
namespace {

// The position in the short cycle of the step that is `left` steps before the stage's end. Every stage ends on its
// base.
std::size_t short_position(const Stage& stage, std::int64_t left) {
  const auto n = std::int64_t(stage.shapes.size());
  return std::size_t(n - 1 - (left - 1) % n);
}

// Rounded up a few ulps, so that a policy that multiplies by the baseline's epochs or iterations never falls just short
// of a drop.
double progress_at(double baseline_epoch, double baseline_epochs) {
  return std::min(1.0, baseline_epoch / baseline_epochs * (1 + 8 * std::numeric_limits<double>::epsilon()));
}

[[noreturn]] void refuse_state(const char* what, double value, double previous) {
  refuse("the schedule's state is damaged: ", what, " (", value, ") after ", previous);
}

void check_stages(const Shape& baseline, const std::vector<PlannedStage>& stages) {
  double previous = 0;
  for (const PlannedStage& stage : stages) {
    if (!(stage.end_epoch >= previous && std::isfinite(stage.end_epoch))) {
      refuse_state("a stage's end_epoch", stage.end_epoch, previous);
    }
    const bool scaled = stage.lr_scale > 0 && std::isfinite(stage.lr_scale);
    if (stage.shapes.empty() || !scaled || stage.long_position < 0) {
      refuse("the schedule's state is damaged: a stage has ", stage.shapes.size(), " shapes, lr_scale ", stage.lr_scale,
             ", long ", stage.long_position);
    }
    for (const Shape& s : stage.shapes) {
      if (s.t > baseline.t || s.h > baseline.h || s.w > baseline.w) {
        refuse("the schedule's state is damaged: a clip of ", s.t, "x", s.h, "x", s.w, " exceeds the baseline's");
      }
    }
    previous = stage.end_epoch;
  }
}

void check_clock(double baseline_epochs, const Plan& plan) {
  ClockStretch previous{0, 0, 0};
  for (const ClockStretch& stretch : plan.clock) {
    if (!(stretch.end_epoch >= previous.end_epoch)) {
      refuse_state("the clock's end_epoch", stretch.end_epoch, previous.end_epoch);
    }
    if (!(stretch.baseline_epoch > previous.baseline_epoch)) {
      refuse_state("the clock's baseline_epoch", stretch.baseline_epoch, previous.baseline_epoch);
    }
    if (stretch.lr_stage != previous.lr_stage && stretch.lr_stage != previous.lr_stage + 1) {
      refuse_state("the clock's lr_stage", stretch.lr_stage, previous.lr_stage);
    }
    previous = stretch;
  }
  if (previous.end_epoch != plan.stages.back().end_epoch || previous.baseline_epoch != baseline_epochs) {
    refuse("the schedule's state is damaged: its clock ends at epoch ", previous.end_epoch, " of ",
           plan.stages.back().end_epoch, " and ", previous.baseline_epoch, " of the baseline's ", baseline_epochs);
  }
}

// Positions must also be exact as doubles, because they are compared with fractional epochs.
void check_clips(const Plan& plan, std::int64_t samples, std::int64_t processes) {
  for (const PlannedStage& stage : plan.stages) {
    double clips = stage.end_epoch * double(samples);
    for (const Shape& s : stage.shapes) clips += double(s.b) * double(processes);
    if (!(clips < 0x1p53)) {
      refuse("samples (", samples, "), epochs, batch and processes (", processes, ") make ", clips,
             " clips, above 2^53: more than can be counted exactly; check them");
    }
  }
}

// A plan comes from this core or from a checkpoint, which may be damaged.
void check(const Shape& baseline, double baseline_epochs, std::int64_t samples, std::int64_t processes,
           const Plan& plan) {
  if (plan.stages.empty() || plan.clock.empty()) refuse("a schedule needs a stage and a clock; its state is damaged");
  if (samples < 1 || processes < 1) {
    refuse("the schedule's state is damaged: samples (", samples, ") and processes (", processes,
           ") must be at least 1");
  }
  check_stages(baseline, plan.stages);
  check_clock(baseline_epochs, plan);
  check_clips(plan, samples, processes);
}

}  // namespace

void check(const Stage& stage) {
  const bool ordered = stage.start <= stage.stop && stage.clip_start <= stage.clip_stop;
  const bool numbers = std::isfinite(stage.end_epoch) && std::isfinite(stage.lr_scale) && std::isfinite(stage.cells);
  if (stage.shapes.empty() || !ordered || !numbers || stage.lr_scale <= 0) {
    refuse("a stage of ", stage.shapes.size(), " shapes, steps ", stage.start, " to ", stage.stop, ", lr_scale ",
           stage.lr_scale, " is impossible; it is damaged: take it from its schedule");
  }
}

void check(const Step& step) {
  const Shape &shape = step.shape, &full = step.baseline;
  const bool within = shape.t <= full.t && shape.h <= full.h && shape.w <= full.w;
  const bool clock = step.progress >= 0 && step.progress <= 1;
  if (!within || !clock || !(step.lr_scale > 0) || !std::isfinite(step.lr_scale)) {
    refuse("a step of ", shape.t, "x", shape.h, "x", shape.w, " under ", full.t, "x", full.h, "x", full.w,
           ", progress ", step.progress, ", lr_scale ", step.lr_scale,
           " is impossible; it is damaged: take it from its schedule");
  }
}

std::int64_t clips_by(double end_epoch, std::int64_t samples) {
  if (!(end_epoch >= 0 && end_epoch * double(samples) <= double(most_clips))) {
    refuse("epochs (", end_epoch, ") of ", samples, " samples are more clips than can be counted exactly");
  }
  const double clips = end_epoch * double(samples), whole = std::nearbyint(clips);
  return std::int64_t(std::abs(clips - whole) <= std::min(1e-3, 1e-14 * clips) ? whole : std::ceil(clips));
}

std::vector<Use> uses(const Stage& stage) {
  const auto n = std::int64_t(stage.shapes.size());
  const std::int64_t steps = stage.stop - stage.start;
  std::vector<Use> found(stage.shapes.size());
  for (std::int64_t left = 1; left <= n; ++left) {
    const std::int64_t count = steps / n + (left <= steps % n);
    found[short_position(stage, left)] = {stage.stop - left - (count - 1) * n, count};
  }
  return found;
}

Schedule::Schedule(const Shape& baseline, double baseline_epochs, std::int64_t samples, std::int64_t processes,
                   const Plan& plan)
    : baseline_(baseline), baseline_epochs_(baseline_epochs), samples_(samples), processes_(processes) {
  check(baseline, baseline_epochs, samples, processes, plan);
  lay_stages(plan);
  if (size() > most_steps) {
    refuse("the schedule has ", size(), " iterations; at most ", most_steps, " are supported: train for fewer epochs");
  }
  lay_clock(plan);
}

// The clips of the last `steps` steps of a stage.
std::int64_t Schedule::clips_of_last(const Stage& stage, std::int64_t steps) const {
  const auto n = std::int64_t(stage.shapes.size());
  std::int64_t cycle = 0, rest = 0;
  for (std::int64_t left = 1; left <= n; ++left) {
    const std::int64_t b = stage.shapes[short_position(stage, left)].b;
    cycle += b;
    if (left <= steps % n) rest += b;
  }
  return processes_ * (steps / n * cycle + rest);  // NOLINT(clang-analyzer-core.DivideZero): a stage has a shape
}

double Schedule::cells(const Stage& stage) const {
  const std::vector<Use> used = uses(stage);
  double cells = 0;
  for (std::size_t i = used.size(); i-- > 0;) cells += double(processes_ * used[i].count) * stage.shapes[i].cells();
  return cells;
}

// The most steps at a stage's end that together own at most `clips` clips.
std::int64_t Schedule::steps_before(const Stage& stage, std::int64_t clips) const {
  const auto n = std::int64_t(stage.shapes.size());
  const std::int64_t cycle = clips_of_last(stage, n);
  std::int64_t steps = clips / cycle * n, left = clips % cycle;
  while (true) {
    left -= processes_ * stage.shapes[short_position(stage, steps + 1)].b;
    if (left < 0) return steps;
    ++steps;
  }
}

std::int64_t Schedule::first_clip(const Stage& stage, std::int64_t index) const {
  return stage.clip_stop - clips_of_last(stage, stage.stop - index);
}

void Schedule::lay_stages(const Plan& plan) {
  std::int64_t start = 0, clip_start = 0;
  for (const PlannedStage& planned : plan.stages) {
    Stage stage{};
    stage.shapes = planned.shapes;
    stage.end_epoch = planned.end_epoch;
    stage.lr_scale = planned.lr_scale;
    stage.long_position = planned.long_position;
    stage.start = stage.stop = start;
    stage.clip_start = stage.clip_stop = clip_start;
    // The fewest steps that own the clips planned for the stage. The last stage has at least one step, even if a large
    // batch before it has already passed the end, because training ends on its base.
    const bool is_last = &planned == &plan.stages.back();
    const std::int64_t wanted = std::max<std::int64_t>(is_last, clips_by(planned.end_epoch, samples_) - clip_start);
    if (wanted > 0) {
      const std::int64_t steps = steps_before(stage, wanted - 1) + 1;
      stage.stop = start + steps;
      stage.clip_stop = clip_start + clips_of_last(stage, steps);
      stage.cells = cells(stage);
    }
    start = stage.stop;
    clip_start = stage.clip_stop;
    stages_.push_back(stage);
  }
}

void Schedule::lay_clock(const Plan& plan) {
  for (const ClockStretch& planned : plan.clock) {
    auto stage = std::lower_bound(stages_.begin(), stages_.end(), planned.end_epoch,
                                  [](const Stage& s, double end) { return s.end_epoch < end; });
    if (stage == stages_.end()) --stage;
    const std::int64_t position = clips_by(planned.end_epoch, samples_);
    Stretch stretch{stage->stop, stage->clip_stop, progress_at(planned.baseline_epoch, baseline_epochs_),
                    planned.lr_stage};
    if (planned.end_epoch < stage->end_epoch && position < stage->clip_stop) {
      stretch.stop = stage->stop - steps_before(*stage, stage->clip_stop - std::max(position, stage->clip_start));
      stretch.clip_stop = first_clip(*stage, stretch.stop);
    }
    clock_.push_back(stretch);
  }
  // A stage belongs to the LR stage in which it ends. Only in a stage with a drop inside, such as fine-tuning, do steps
  // differ.
  for (Stage& stage : stages_) {
    auto stretch = std::lower_bound(plan.clock.begin(), plan.clock.end(), stage.end_epoch,
                                    [](const ClockStretch& c, double end) { return c.end_epoch < end; });
    stage.lr_stage = stretch == plan.clock.end() ? plan.clock.back().lr_stage : stretch->lr_stage;
  }
}

double Schedule::progress(std::size_t stretch, std::int64_t first) const {
  const Stretch& to = clock_[stretch];
  const double from_progress = stretch == 0 ? 0.0 : clock_[stretch - 1].progress;
  const std::int64_t from = stretch == 0 ? 0 : clock_[stretch - 1].clip_stop;
  return from_progress + (to.progress - from_progress) * (double(first - from) / double(to.clip_stop - from));
}

Step Schedule::at(std::int64_t index) const {
  if (index < 0 || index >= size()) refuse("step ", index, " of a schedule of ", size(), " steps");
  const auto stage = std::upper_bound(stages_.begin(), stages_.end(), index,
                                      [](std::int64_t i, const Stage& s) { return i < s.stop; });
  const auto stretch = std::upper_bound(clock_.begin(), clock_.end(), index,
                                        [](std::int64_t i, const Stretch& s) { return i < s.stop; });
  const std::size_t position = short_position(*stage, stage->stop - index);
  const std::int64_t first = first_clip(*stage, index);
  Step step;
  step.index = index;
  step.first = first;
  step.shape = stage->shapes[position];
  step.base = stage->base();
  step.baseline = baseline_;
  step.stage = int(stage - stages_.begin());
  step.long_position = stage->long_position;
  step.short_position = int(position);
  step.lr_stage = stretch->lr_stage;
  step.lr_scale = stage->lr_scale;
  step.progress = progress(std::size_t(stretch - clock_.begin()), first);
  return step;
}

std::int64_t Schedule::find(std::int64_t position) const {
  if (position <= 0) return 0;
  const auto stage = std::lower_bound(stages_.begin(), stages_.end(), position,
                                      [](const Stage& s, std::int64_t p) { return s.clip_stop < p; });
  if (stage == stages_.end()) return size();
  return stage->stop - steps_before(*stage, stage->clip_stop - position);
}

}  // namespace multigrid
