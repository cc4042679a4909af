// pymultigrid._core: what Python sees of the core. Values, their docstrings, and the kinds of their arguments.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "plan/cycles.h"
#include "plan/refuse.h"
#include "plan/sampling.h"
#include "plan/schedule.h"
#include "python/arguments.h"
#include "python/value.h"
#include "resample/resample.h"

namespace py = pybind11;
using namespace multigrid;
using namespace py::literals;

namespace multigrid {
void bind_plan(py::module_& m);      // plan.cpp
void bind_resample(py::module_& m);  // resample.cpp
}  // namespace multigrid

namespace {

using RangeTuple = std::optional<std::pair<double, double>>;

std::optional<Range> range(const RangeTuple& pair) {
  return pair ? std::optional<Range>({pair->first, pair->second}) : std::nullopt;
}

Extent extent_of(const py::object& extent) {
  if (!py::isinstance<py::sequence>(extent) || py::len(extent) != 3) {
    throw py::type_error("extent (" + std::string(py::repr(extent)) + ") must be the video's (frames, height, width)");
  }
  const auto size = [&](int i) { return whole<std::int64_t>("extent", extent[py::int_(i)], 1); };
  return {size(0), size(1), size(2)};
}

Shape make_shape(const py::object& b, const py::object& t, const py::object& h, const py::object& w) {
  return {whole<std::int64_t>("b", b, 1), whole<std::int64_t>("t", t, 1), whole<std::int64_t>("h", h, 1),
          whole<std::int64_t>("w", w, 1)};
}

Axis make_axis(double start, double span, std::int64_t size) {
  if (!std::isfinite(start) || !std::isfinite(span) || span == 0 || size < 1) {
    refuse("Axis(", start, ", ", span, ", ", size,
           "): start must be finite, span finite and not 0 (negative reads backwards), size at least 1");
  }
  return {start, span, size};
}

void bind_shape(py::module_& m) {
  bind_value(m, "Shape", R"(A mini-batch shape: `b` clips of `t` frames of `h` x `w` pixels.

`b` is per process, as ``DataLoader(batch_size=)`` is.

>>> from pymultigrid import Shape
>>> print(Shape(8, 32, 224, 224))
8x32x224x224
>>> b, t, h, w = Shape(8, 32, 224, 224)
)",
             field("b", &Shape::b), field("t", &Shape::t), field("h", &Shape::h), field("w", &Shape::w))
      .def(py::init(&make_shape), "b"_a, "t"_a, "h"_a, "w"_a)
      .def(py::init([](const py::args&, const py::kwargs&) -> Shape {
        throw py::type_error("Shape takes four whole numbers, clips, frames, height, width: Shape(8, 32, 224, 224)");
      }))
      .def("__iter__", [](const Shape& s) { return py::iter(py::make_tuple(s.b, s.t, s.h, s.w)); })
      .def("__str__", [](const Shape& s) { return py::str("{}x{}x{}x{}").format(s.b, s.t, s.h, s.w); });
}

using Doubles = py::array_t<double, py::array::c_style | py::array::forcecast>;

Doubles map_points(const Grid& grid, const Doubles& points) {
  const py::ssize_t width = points.ndim() > 0 ? points.shape(points.ndim() - 1) : 0;
  if (width != 2 && width != 4) {
    refuse("points has a last axis of ", width, "; it must hold (x, y) points or (x0, y0, x1, y1) boxes");
  }
  Doubles mapped(std::vector<py::ssize_t>(points.shape(), points.shape() + points.ndim()));
  const double* from = points.data();
  double* to = mapped.mutable_data();
  for (py::ssize_t i = 0; i < points.size(); ++i) to[i] = map_point(i % 2 == 0 ? grid.w : grid.h, from[i]);
  // A flip swaps a box's corners.
  for (double* box = to; width == 4 && box < to + mapped.size(); box += 4) {
    if (box[0] > box[2]) std::swap(box[0], box[2]);
    if (box[1] > box[3]) std::swap(box[1], box[3]);
  }
  return mapped;
}

void bind_grid(py::module_& m) {
  bind_value(m, "Axis", R"(One axis of a sampling grid: `size` cells over `span` source frames or pixels.

Cell i covers ``[start + i * stride, start + (i + 1) * stride)`` with ``stride = span / size``. A negative span reads
the same cells backwards: ``Axis(start + span, -span, size)`` is the flip of ``Axis(start, span, size)``.

>>> from pymultigrid import Axis
>>> Axis(0, 32, 8).stride
4.0
)",
             field("start", &Axis::start), field("span", &Axis::span), field("size", &Axis::size))
      .def(py::init(&make_axis), "start"_a, "span"_a, "size"_a)
      .def_property_readonly("stride", &Axis::stride, "Source frames or pixels from one cell to the next.");

  bind_value(m, "Grid", R"(Where a clip is read from a video: an `Axis` each for time, height and width.

`beyond` says what frames past the video's end are: ``"error"``, ``"clamp"`` (the last frame) or ``"loop"`` (from the
start again).

>>> from pymultigrid import Axis, Grid
>>> Grid(Axis(0, 16, 4), Axis(0, 224, 112), Axis(0, 224, 112)).frames(30)
[0, 4, 8, 12]
)",
             field("t", &Grid::t), field("h", &Grid::h), field("w", &Grid::w), field("beyond", &Grid::beyond))
      .def(py::init([](const Axis& t, const Axis& h, const Axis& w, Beyond beyond) { return Grid{t, h, w, beyond}; }),
           "t"_a, "h"_a, "w"_a, "beyond"_a = Beyond::error)
      .def(
          "frames",
          [](const Grid& grid, const py::object& length) {
            return picked_frames(grid, whole<std::int64_t>("length", length, 1));
          },
          "length"_a, "The frame of a video of `length` frames that each output frame picks (temporal nearest).")
      .def("map", &map_points, "points"_a,
           R"(Where points or boxes of the video lie in the clip, so that labels follow.

points : array ``(..., 2)`` of (x, y) or ``(..., 4)`` of (x0, y0, x1, y1), in source pixels; pixel i covers [i, i + 1).
Returns float64 of the same shape in output pixels, not clipped to the clip; boxes keep x0 <= x1 under a flip.

>>> from pymultigrid import Axis, Grid
>>> grid = Grid(Axis(0, 8, 8), Axis(0, 200, 100), Axis(300, -200, 100))
>>> grid.map([[110, 20, 150, 60]]).tolist()
[[75.0, 10.0, 95.0, 30.0]]
)");
}

Grid step_grid(const Step& step, const py::object& extent, const py::object& seed, const py::object& sample,
               const py::object& stride, const RangeTuple& short_side, const RangeTuple& area, const RangeTuple& aspect,
               double flip, bool segments, Beyond beyond) {
  const SamplingOptions options{
      whole<std::int64_t>("stride", stride, 1), range(short_side), range(area), range(aspect), flip, segments, beyond};
  return draw_grid(step, extent_of(extent), options, whole<std::uint64_t>("seed", seed, 0),
                   whole<std::uint64_t>("sample", sample, 0));
}

void bind_steps(py::module_& m) {
  bind_value(m, "Step", R"(One iteration of a schedule, a pure function of the schedule and `index`.

index     : the iteration, from 0
first     : its first clip in the stream of clips over all processes
shape     : the mini-batch shape (`Shape`), per process
base      : the shape of its long-cycle stage; sub-mini-batch BN splits follow ``base.b``
baseline  : the shape of training without multigrid
stage     : which of ``schedule.stages``
long      : position in the long cycle
short     : position in the short cycle; the last is the base
lr_stage  : how many learning-rate drops have passed
lr_scale  : factor of the learning rate (linear scaling rule on ``base.b``)
progress  : the baseline's clock in [0, 1): ``policy(step.progress * epochs) * step.lr_scale`` is right for any policy

>>> from pymultigrid import Schedule, Shape
>>> schedule = Schedule(Shape(8, 32, 224, 224), samples=240_436, epochs=239, lr_drops=(94, 154, 196))
>>> step = schedule[2]
>>> print(step.shape, step.base, step.lr_scale)
128x8x112x112 64x8x158x158 8.0
)",
             field("index", &Step::index), field("first", &Step::first), field("shape", &Step::shape),
             field("base", &Step::base), field("baseline", &Step::baseline), field("stage", &Step::stage),
             field("long", &Step::long_position), field("short", &Step::short_position),
             field("lr_stage", &Step::lr_stage), field("lr_scale", &Step::lr_scale), field("progress", &Step::progress))
      .def(
          "grid", &step_grid, "extent"_a, py::kw_only(), "seed"_a, "sample"_a, "stride"_a = 1,
          "short_side"_a = py::none(), "area"_a = py::none(), "aspect"_a = py::none(), "flip"_a = 0.0,
          "segments"_a = false, "beyond"_a = Beyond::error,
          R"(grid(self, extent, *, seed, sample, stride=1, short_side=None, area=None, aspect=None, flip=0.0, segments=False, beyond='error')
--

A random sampling grid of this step's shape over a video of `extent` = (frames, height, width).

The same arguments give the same grid in every process and release (counter-based random numbers).

seed       : the run's
sample     : the clip's position in the stream, ``step.first`` and up; with `step` it keys the draw
stride     : the baseline's temporal stride s in source frames. The clip's is uniform over the integers s .. s x (T // t),
             T the baseline's frames and t this step's, as far as the video is long enough
short_side : (low, high), the video's short side is scaled to a size drawn from here before the baseline's crop is cut;
             the low end shrinks with the step's crop. Default: (256, 320) for a crop of 224, in proportion for others
area       : (low, high), instead: the box's share of the frame (random resized crop), with `aspect` (low, high), its
             width / height (default 3/4 .. 4/3)
flip       : share of the clips that are mirrored
segments   : one frame from each of t equal parts of the video instead of a stride (as TSN, with one offset for all)
beyond     : a video with too few frames is an "error", "clamp" repeats its last frame, "loop" starts it again

Source: Wu et al. 2020, section 3.2.

>>> from pymultigrid import Schedule, Shape
>>> schedule = Schedule(Shape(8, 32, 224, 224), samples=240_436, epochs=239, lr_drops=(94, 154, 196))
>>> grid = schedule[2].grid((300, 256, 340), seed=0, sample=17, stride=2)
>>> grid.t.size, grid.h.size, grid.w.size
(8, 112, 112)
)")
      .def("grid", [](const Step&, const py::args&, const py::kwargs&) -> Grid {
        throw py::type_error(
            "grid takes the video's extent (frames, height, width) and by name seed and sample, whole numbers; stride; "
            "short_side, area or aspect, each a pair (low, high); flip, a number; segments, True or False; beyond, a "
            "word");
      });

  bind_value(m, "Stage", R"(One stage of a schedule: steps [start, stop) of the same base shape.

shapes    : its short cycle; the last is `base`
base      : the shape of the long-cycle stage
end_epoch : where it is planned to end, in epochs, before any rounding
start, stop : its iterations
clip_start, clip_stop : its clips of the stream over all processes; `clips` of them
cells     : sampling points (clips x T x H x W) over all processes, its nominal compute
long, lr_scale : as in `Step`; lr_stage : the one in which it ends, as fine-tuning has a drop in its middle
)",
             field("shapes", &Stage::shapes), field("end_epoch", &Stage::end_epoch),
             field("lr_scale", &Stage::lr_scale), field("long", &Stage::long_position),
             field("lr_stage", &Stage::lr_stage), field("start", &Stage::start), field("stop", &Stage::stop),
             field("clip_start", &Stage::clip_start), field("clip_stop", &Stage::clip_stop),
             field("cells", &Stage::cells))
      .def_property_readonly("base", &Stage::base)
      .def_property_readonly("clips", &Stage::clips);
}

// Steps [next, stop) of a schedule that the Python object keeps alive.
struct Steps {
  const Schedule* schedule;
  std::int64_t next, stop;
};

void bind_schedule(py::module_& m) {
  py::class_<Steps>(m, "Steps", "Iterator over the steps of a schedule.")
      .def("__iter__", [](py::object self) { return self; })
      .def("__next__", [](Steps& steps) {
        if (steps.next >= steps.stop) throw py::stop_iteration();
        return steps.schedule->at(steps.next++);
      });

  py::class_<Schedule>(m, "Schedule", "A plan laid over one stream of clips; see csrc/plan/schedule.h.")
      .def(py::init([](const Shape& baseline, double baseline_epochs, std::int64_t samples, std::int64_t processes,
                       const Plan& plan) { return Schedule(baseline, baseline_epochs, samples, processes, plan); }),
           py::kw_only(), "baseline"_a, "baseline_epochs"_a, "samples"_a, "processes"_a, "plan"_a)
      .def_property_readonly("stages", [](const Schedule& s) { return py::tuple(py::cast(s.stages())); })
      .def_property_readonly("clips", &Schedule::clips)
      .def("__len__", &Schedule::size)
      .def("at", &Schedule::at, "index"_a)
      .def("find", &Schedule::find, "position"_a)
      .def(
          "steps", [](const Schedule& s, std::int64_t start, std::int64_t stop) { return Steps{&s, start, stop}; },
          "start"_a, "stop"_a, py::keep_alive<0, 1>());

  m.def(
      "view_grids",
      [](const Shape& shape, const py::object& extent, int clips, int crops, std::int64_t stride, bool segments,
         Beyond beyond) { return view_grids(shape, extent_of(extent), clips, crops, stride, segments, beyond); },
      "shape"_a, "extent"_a, "clips"_a, "crops"_a, "stride"_a, "segments"_a, "beyond"_a);
  m.def(
      "shuffled",
      [](const py::object& position, std::int64_t samples, const py::object& seed) {
        return shuffled(whole<std::int64_t>("position", position, 0), samples, whole<std::uint64_t>("seed", seed, 0));
      },
      "position"_a, "samples"_a, "seed"_a,
      "The sample at `position` of the stream: epoch by epoch, each a permutation of range(samples).");
  m.def(
      "shuffle",
      [](std::int64_t first, std::int64_t count, std::int64_t samples, std::uint64_t seed) {
        std::vector<std::int64_t> order;
        for (std::int64_t p = first; p < first + count; ++p) order.push_back(shuffled(p, samples, seed));
        return order;
      },
      "first"_a, "count"_a, "samples"_a, "seed"_a, "`shuffled` at the positions first .. first + count.");
  m.def(
      "draw",
      [](std::int64_t first, std::int64_t count, const Doubles& rising, std::uint64_t seed) {
        std::vector<std::int64_t> samples;
        for (std::int64_t p = first; p < first + count; ++p)
          samples.push_back(drawn(p, rising.data(), rising.size(), seed));
        return samples;
      },
      "first"_a, "count"_a, "rising"_a, "seed"_a,
      "The samples at the positions first .. first + count, with replacement; rising: the running sum of the weights.");
  m.def("clips_by", &clips_by, "end_epoch"_a, "samples"_a, "The clips before `end_epoch`, rounded up.");
  m.def(
      "philox", [](std::uint64_t key, const std::array<std::uint32_t, 4>& counter) { return philox(key, counter); },
      "key"_a, "counter"_a, "Philox4x32-10, for the tests.");
}

}  // namespace

PYBIND11_MODULE(_core, m, py::mod_gil_not_used()) {
  py::options options;
  options.disable_function_signatures();
  bind_shape(m);
  bind_grid(m);
  bind_steps(m);
  bind_plan(m);
  bind_schedule(m);
  bind_resample(m);
}
