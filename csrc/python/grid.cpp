// Binds Axis and Grid.

#include "plan/grid.h"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "plan/refuse.h"
#include "python/module.h"
#include "python/value.h"
#include "resample/resample.h"

namespace py = pybind11;
using namespace py::literals;

namespace multigrid {
namespace {

py::array map(const Grid& grid, const py::object& points) {
  const Doubles from = doubles("points", points);
  const py::ssize_t width = from.ndim() > 0 ? from.shape(from.ndim() - 1) : 0;
  if (width != 2 && width != 4)
    refuse("points has a last axis of ", width, "; it must hold (x, y) points or (x0, y0, x1, y1) boxes");
  Doubles mapped(std::vector<py::ssize_t>(from.shape(), from.shape() + from.ndim()));
  (width == 2 ? map_points : map_boxes)(grid, from.data(), from.size(), mapped.mutable_data());
  return mapped;
}

}  // namespace

Beyond beyond_from(const std::string& name, py::handle value) {
  const std::string given = text(name, value);
  if (given == "error") return Beyond::error;
  if (given == "clamp") return Beyond::clamp;
  if (given == "loop") return Beyond::loop;
  refuse(name, " (\"", given, "\") must be \"error\", \"clamp\" (repeat the last frame) or \"loop\" (start again)");
}

void bind_grid(py::module_& m) {
  bind_value<Axis>(m, "Axis", R"(One axis of a sampling grid: `size` cells over `span` source frames or pixels.

Cell i covers ``[start + i * stride, start + (i + 1) * stride)`` with ``stride = span / size``. A negative span reads
the same cells backwards: ``Axis(start + span, -span, size)`` is the flip of ``Axis(start, span, size)``.

>>> from pymultigrid import Axis
>>> Axis(0, 32, 8).stride
4.0
)",
                   "Axis(start, span, size)", check, field("start", &Axis::start), field("span", &Axis::span),
                   field("size", &Axis::size, -most_size, most_size))
      .def_property_readonly("stride", &Axis::stride, "Source frames or pixels from one cell to the next.");

  auto grid =
      bind_value<Grid>(m, "Grid", R"(Where a clip is read from a video: an `Axis` each for time, height and width.

`beyond` says what to read past the video's end: ``"error"`` (raise), ``"clamp"`` (the last frame) or ``"loop"`` (the
video from its start again).

>>> from pymultigrid import Axis, Grid
>>> Grid(Axis(0, 16, 4), Axis(0, 224, 112), Axis(0, 224, 112)).frames(30)
[0, 4, 8, 12]
)",
                       "Grid(t, h, w, beyond='error') of three Axis", nullptr, field("t", &Grid::t),
                       field("h", &Grid::h), field("w", &Grid::w), field("beyond", &Grid::beyond));
  grid.def(py::init([](const py::object& t, const py::object& h, const py::object& w) {
             return Grid{read<Axis>("t", t), read<Axis>("h", h), read<Axis>("w", w), Beyond::error};
           }),
           py::prepend(), "t"_a, "h"_a, "w"_a);
  define(
      grid, "frames",
      [](const Grid& self, const py::object& length) {
        return picked_frames(self, whole<std::int64_t>("length", length, 1, most_extent));
      },
      "grid.frames(length)", "The frame of a video of `length` frames that each output frame takes (temporal nearest).",
      "length"_a);
  define(grid, "map", map, "grid.map(points)",
         R"(Map points or boxes of the video to the clip, for labels such as boxes and key points.

points : array ``(..., 2)`` of (x, y) or ``(..., 4)`` of (x0, y0, x1, y1), in source pixels; pixel i covers [i, i + 1).
Returns float64 of the same shape in output pixels, not clipped to the clip; boxes keep x0 <= x1 under a flip.

>>> from pymultigrid import Axis, Grid
>>> grid = Grid(Axis(0, 8, 8), Axis(0, 200, 100), Axis(300, -200, 100))
>>> grid.map([[110, 20, 150, 60]]).tolist()
[[75.0, 10.0, 95.0, 30.0]]
)",
         "points"_a);
  define(
      m, "touched_box",
      [](const py::object& grid, const py::object& height, const py::object& width) {
        const Box box = touched_box(read<Grid>("grid", grid), whole<std::int64_t>("height", height, 1, most_extent),
                                    whole<std::int64_t>("width", width, 1, most_extent));
        return py::make_tuple(box.top, box.bottom, box.left, box.right);
      },
      "touched_box(grid, height, width)",
      "The rows [top, bottom) and columns [left, right) of a video that the grid looks at.", "grid"_a, "height"_a,
      "width"_a);
}

}  // namespace multigrid
