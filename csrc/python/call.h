// The arguments of one call of resample, from Python to the core's views. Kinds are checked here; the rules about
// values are in resample/check.cpp.
#pragma once

#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "python/arrays.h"
#include "resample/resample.h"

namespace multigrid {

struct Videos {
  std::vector<Array> arrays;
  std::vector<ClipView> views;
  bool single;  // one video, not a batch or list
};

Videos videos_from(const pybind11::object& video, const Access& access);
std::vector<Grid> grids_from(const pybind11::object& grid, const std::vector<ClipView>& videos);
Layout layout_from(const pybind11::object& layout);
Options options_from(const pybind11::object& mode, const pybind11::object& temporal, const pybind11::object& antialias,
                     const pybind11::object& mean, const pybind11::object& std, int threads);

// The shape of the clips, and `out` as the view to write them to.
std::vector<std::int64_t> shape_of(const Videos& videos, const std::vector<Grid>& grids, Layout layout);
BatchView batch_from(const Array& out, const Videos& videos, const std::vector<Grid>& grids, Layout layout);

}  // namespace multigrid
