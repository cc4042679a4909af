// What pymultigrid._core binds, one function for each file, and what the files share.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>

#include "plan/sampling.h"

namespace multigrid {

void bind_shape(pybind11::module_& m);
void bind_grid(pybind11::module_& m);
void bind_step(pybind11::module_& m);
void bind_plan(pybind11::module_& m);
void bind_schedule(pybind11::module_& m);
void bind_sampling(pybind11::module_& m);
void bind_resample(pybind11::module_& m);
void bind_cuda(pybind11::module_& m);

Extent extent_from(const pybind11::object& extent);
SamplingOptions sampling_from(const pybind11::object& stride, const pybind11::object& short_side,
                              const pybind11::object& area, const pybind11::object& aspect,
                              const pybind11::object& flip, const pybind11::object& segments,
                              const pybind11::object& beyond);

// Any array of numbers as contiguous doubles.
using Doubles = pybind11::array_t<double, pybind11::array::c_style | pybind11::array::forcecast>;
Doubles doubles(const std::string& name, const pybind11::object& numbers);

}  // namespace multigrid
