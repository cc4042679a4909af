// Binds Step and Stage.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>

#include "plan/sampling.h"
#include "plan/schedule.h"
#include "python/module.h"
#include "python/value.h"

namespace py = pybind11;
using namespace py::literals;

namespace multigrid {
namespace {

Grid step_grid(const Step& step, const py::object& extent, const py::object& seed, const py::object& sample,
               const py::object& stride, const py::object& short_side, const py::object& area, const py::object& aspect,
               const py::object& flip, const py::object& segments, const py::object& beyond) {
  const SamplingOptions options = sampling_from(stride, short_side, area, aspect, flip, segments, beyond);
  return draw_grid(step, extent_from(extent), options, whole<std::uint64_t>("seed", seed, 0),
                   whole<std::uint64_t>("sample", sample, 0));
}

}  // namespace

void bind_step(py::module_& m) {
  auto step = bind_value<Step>(
      m, "Step", R"(One iteration of a schedule, a pure function of the schedule and `index`.

index     : the iteration, from 0
first     : its first clip in the stream of clips over all processes
shape     : the mini-batch shape (`Shape`), per process
base      : the shape of its long-cycle stage; sub-mini-batch BN splits follow ``base.b``
baseline  : the shape of training without multigrid
stage     : index into ``schedule.stages``
long      : position in the long cycle
short     : position in the short cycle; the last is the base
lr_stage  : how many learning-rate drops have passed
lr_scale  : factor of the learning rate (linear scaling rule on ``base.b``)
progress  : the baseline's clock in [0, 1); the learning rate is ``policy(step.progress * epochs) * step.lr_scale``

>>> from pymultigrid import Schedule, Shape
>>> schedule = Schedule(Shape(8, 32, 224, 224), samples=240_436, epochs=239, lr_drops=(94, 154, 196))
>>> step = schedule[2]
>>> print(step.shape, step.base, step.lr_scale)
128x8x112x112 64x8x158x158 8.0
)",
      "Step(index, first, shape, base, baseline, stage, long, short, lr_stage, lr_scale, progress)", check,
      field("index", &Step::index), field("first", &Step::first), field("shape", &Step::shape),
      field("base", &Step::base), field("baseline", &Step::baseline), field("stage", &Step::stage),
      field("long", &Step::long_position), field("short", &Step::short_position), field("lr_stage", &Step::lr_stage),
      field("lr_scale", &Step::lr_scale), field("progress", &Step::progress));
  define(
      step, "grid", step_grid,
      "step.grid(extent, seed=, sample=): the video's extent (frames, height, width) and, by name, seed and sample, "
      "whole numbers; stride; short_side, area or aspect, each a pair (low, high); flip, a number; segments, True or "
      "False; beyond, a word",
      R"(grid(self, extent, *, seed, sample, stride=1, short_side=None, area=None, aspect=None, flip=0.0, segments=False, beyond='error')
--

A random sampling grid of this step's shape over a video of `extent` = (frames, height, width).

The same arguments give the same grid in every process and release (counter-based random numbers).

seed       : the run's seed
sample     : the clip's position in the stream, ``step.first`` and up; with `step` it keys the draw
stride     : the baseline's temporal stride s in source frames. The clip's stride is drawn uniformly from the integers
             s .. s x (T // t) that the video is long enough for; T are the baseline's frames and t this step's
short_side : (low, high): the video's short side is scaled to a size from this range before the baseline's crop is cut;
             the low end shrinks with the step's crop. Default: (256, 320) for a crop of 224, proportional for others
area       : (low, high), instead of short_side: the box's share of the frame (random resized crop), with `aspect`
             (low, high), its width / height (default 3/4 .. 4/3)
flip       : share of the clips that are mirrored
segments   : one frame from each of t equal parts of the video instead of a stride (as TSN, with one offset for all)
beyond     : with too few frames: "error" raises, "clamp" repeats the last frame, "loop" starts the video again

Source: Wu et al. 2020, section 3.2.

>>> from pymultigrid import Schedule, Shape
>>> schedule = Schedule(Shape(8, 32, 224, 224), samples=240_436, epochs=239, lr_drops=(94, 154, 196))
>>> grid = schedule[2].grid((300, 256, 340), seed=0, sample=17, stride=2)
>>> grid.t.size, grid.h.size, grid.w.size
(8, 112, 112)
)",
      "extent"_a, py::kw_only(), "seed"_a, "sample"_a, "stride"_a = 1, "short_side"_a = py::none(),
      "area"_a = py::none(), "aspect"_a = py::none(), "flip"_a = 0.0, "segments"_a = false, "beyond"_a = "error");

  bind_value<Stage>(m, "Stage", R"(One stage of a schedule: steps [start, stop) of the same base shape.

shapes    : its short cycle; the last is `base`
base      : the shape of the long-cycle stage
end_epoch : its planned end in epochs, before any rounding
start, stop : its iterations
clip_start, clip_stop : its clips of the stream over all processes; `clips` of them
cells     : sampling points (clips x T x H x W) over all processes, which is its nominal compute
long, lr_scale : as in `Step`; lr_stage : the LR stage in which it ends (fine-tuning has a drop in its middle)
)",
                    "Stage(shapes, end_epoch, lr_scale, long, lr_stage, start, stop, clip_start, clip_stop, cells)",
                    check, field("shapes", &Stage::shapes), field("end_epoch", &Stage::end_epoch),
                    field("lr_scale", &Stage::lr_scale), field("long", &Stage::long_position),
                    field("lr_stage", &Stage::lr_stage), field("start", &Stage::start), field("stop", &Stage::stop),
                    field("clip_start", &Stage::clip_start), field("clip_stop", &Stage::clip_stop),
                    field("cells", &Stage::cells))
      .def_property_readonly("base", &Stage::base)
      .def_property_readonly("clips", &Stage::clips);
  define(
      m, "uses",
      [](const py::object& stage, const py::object& start) {
        Stage rest = read<Stage>("stage", stage);
        rest.start = std::clamp(whole<std::int64_t>("start", start, 0), rest.start, rest.stop);
        const std::vector<Use> found = uses(rest);
        py::list list;
        for (std::size_t i = 0; i < found.size(); ++i)
          list.append(py::make_tuple(rest.shapes[i], found[i].first, found[i].count));
        return list;
      },
      "uses(stage, start=0)",
      "Each shape of a stage's short cycle, the first step from `start` on that has it, and how many do.", "stage"_a,
      "start"_a = 0);
}

}  // namespace multigrid
