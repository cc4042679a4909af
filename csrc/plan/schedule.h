// Schedule: a plan laid over one stream of clips. Item i is computed, not stored.
#pragma once

#include <cstdint>
#include <vector>

#include "plan/cycles.h"
#include "plan/shape.h"

namespace multigrid {

// A planned stage with its steps [start, stop) and its clips [clip_start, clip_stop) of the stream over all processes.
struct Stage {
  std::vector<Shape> shapes;
  double end_epoch;
  double lr_scale;
  int long_position;
  int lr_stage;
  std::int64_t start, stop, clip_start, clip_stop;
  double cells;  // sampling points over all processes: the nominal compute

  const Shape& base() const { return shapes.back(); }
  std::int64_t clips() const { return clip_stop - clip_start; }
};

struct Step {
  std::int64_t index;  // the iteration
  std::int64_t first;  // its first clip in the stream over all processes
  Shape shape, base, baseline;
  int stage, long_position, short_position, lr_stage;
  double lr_scale, progress;
};

// How many steps of a stage have one shape of its short cycle, and the first of them.
struct Use {
  std::int64_t first, count;
};
std::vector<Use> uses(const Stage& stage);  // one per shape

// Throw std::invalid_argument for a value that no schedule has, for example from a damaged file.
void check(const Stage& stage);
void check(const Step& step);

// The number of clips before `end_epoch`, rounded up. A product within rounding error of a whole number is that number.
std::int64_t clips_by(double end_epoch, std::int64_t samples);

class Schedule {
 public:
  Schedule(const Shape& baseline, double baseline_epochs, std::int64_t samples, std::int64_t processes,
           const Plan& plan);

  const std::vector<Stage>& stages() const { return stages_; }
  std::int64_t size() const { return stages_.back().stop; }
  std::int64_t clips() const { return stages_.back().clip_stop; }

  Step at(std::int64_t index) const;
  // The first step whose `first` is at or after `position`; size() if there is none.
  std::int64_t find(std::int64_t position) const;

 private:
  // A stretch of the baseline's clock in steps and clips: it ends before step `stop`, which begins at clip `clip_stop`.
  struct Stretch {
    std::int64_t stop, clip_stop;
    double progress;
    int lr_stage;
  };

  void lay_stages(const Plan& plan);
  void lay_clock(const Plan& plan);
  std::int64_t clips_of_last(const Stage& stage, std::int64_t steps) const;
  double cells(const Stage& stage) const;
  std::int64_t steps_before(const Stage& stage, std::int64_t clips) const;
  std::int64_t first_clip(const Stage& stage, std::int64_t index) const;
  double progress(std::size_t stretch, std::int64_t first) const;

  Shape baseline_;
  double baseline_epochs_;
  std::int64_t samples_, processes_;
  std::vector<Stage> stages_;
  std::vector<Stretch> clock_;
};

}  // namespace multigrid
