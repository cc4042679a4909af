// Binds Shape.

#include "plan/shape.h"

#include <pybind11/pybind11.h>

#include "python/module.h"
#include "python/value.h"

namespace py = pybind11;

namespace multigrid {

void bind_shape(py::module_& m) {
  bind_value<Shape>(m, "Shape", R"(A mini-batch shape: `b` clips of `t` frames of `h` x `w` pixels.

`b` is per process, like ``DataLoader(batch_size=)``.

>>> from pymultigrid import Shape
>>> print(Shape(8, 32, 224, 224))
8x32x224x224
>>> b, t, h, w = Shape(8, 32, 224, 224)
)",
                    "Shape(8, 32, 224, 224), for example: Shape takes four whole numbers, clips, frames, height, width",
                    nullptr, field("b", &Shape::b, 1, most_samples), field("t", &Shape::t, 1, most_size),
                    field("h", &Shape::h, 1, most_size), field("w", &Shape::w, 1, most_size))
      .def("__iter__", [](const Shape& s) { return py::iter(py::make_tuple(s.b, s.t, s.h, s.w)); })
      .def("__str__", [](const Shape& s) { return py::str("{}x{}x{}x{}").format(s.b, s.t, s.h, s.w); });
}

}  // namespace multigrid
