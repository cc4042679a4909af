#include "python/call.h"

#include "plan/limits.h"
#include "python/arguments.h"

namespace py = pybind11;

namespace multigrid {
namespace {

bool is_list(py::handle object) { return py::isinstance<py::list>(object) || py::isinstance<py::tuple>(object); }

// A copy of the list, because code that runs while its elements are read may change it and release them.
py::tuple elements(const py::object& list) { return py::tuple(list); }

ClipView view_of(const Array& array, std::size_t axis) {
  const std::int64_t* size = array.shape.data() + axis;
  const std::int64_t* pitch = array.pitch.data() + axis;
  return {array.data, array.dtype, size[0], size[1], size[2], size[3], pitch[0], pitch[1], pitch[2], pitch[3]};
}

void check_count(std::size_t videos) {
  if (videos > static_cast<std::size_t>(most_videos))
    throw py::value_error("there are " + std::to_string(videos) + " videos; one call takes at most " +
                          std::to_string(most_videos) + ": split them");
}

void add_list(Videos& videos, const py::tuple& list, const Access& access) {
  check_count(list.size());
  for (std::size_t i = 0; i < list.size(); ++i) {
    const std::string name = "videos[" + std::to_string(i) + "]";
    const Array& array = videos.arrays.emplace_back(array_from(list[i], name, access));
    if (array.shape.size() != 4)
      throw py::value_error(name + " is " + text_of(array.shape) + "; in a list every video must be T x H x W x C");
    videos.views.push_back(view_of(array, 0));
  }
}

std::vector<Grid> whole_grids(const py::tuple& size, const std::vector<ClipView>& videos) {
  std::int64_t sizes[3];
  for (std::size_t i = 0; i < 3; ++i) {
    if (!PyIndex_Check(size[i].ptr())) throw py::type_error("size must be three whole numbers (t, h, w)");
    sizes[i] = whole<std::int64_t>("size", size[i], std::numeric_limits<std::int64_t>::min());
  }
  const auto all_of = [](std::int64_t extent, std::int64_t size) { return Axis{0, static_cast<double>(extent), size}; };
  std::vector<Grid> grids;
  for (const ClipView& video : videos)
    grids.push_back({all_of(video.t, sizes[0]), all_of(video.h, sizes[1]), all_of(video.w, sizes[2]), Beyond::error});
  return grids;
}

std::vector<double> numbers_from(const char* name, const py::object& object) {
  if (object.is_none()) return {};
  try {
    if (PyNumber_Check(object.ptr()) && !py::hasattr(object, "__len__")) return {py::float_(object)};
    std::vector<double> numbers;
    for (const py::handle one : object) {
      if (!PyNumber_Check(one.ptr()))
        throw py::type_error(std::string(name) + " must be a number or one number per channel, not strings");
      numbers.push_back(py::float_(py::reinterpret_borrow<py::object>(one)));
      if (numbers.size() > static_cast<std::size_t>(most_moments))
        throw py::value_error(std::string(name) + " has more than " + std::to_string(most_moments) +
                              " values; pass one number or one per channel");
    }
    if (!numbers.empty()) return numbers;
  } catch (py::error_already_set& error) {
    if (!error.matches(PyExc_TypeError) && !error.matches(PyExc_ValueError)) throw;
  }
  throw py::type_error(std::string(name) + " must be a number or one number per channel");
}

}  // namespace

Videos videos_from(const py::object& video, const Access& access) {
  Videos videos{{}, {}, false};
  if (is_list(video)) {
    add_list(videos, elements(video), access);
    return videos;
  }
  const Array& array = videos.arrays.emplace_back(array_from(video, "video", access));
  if (array.shape.size() != 4 && array.shape.size() != 5)
    throw py::value_error("video is " + text_of(array.shape) + "; it must be T x H x W x C, or B x T x H x W x C");
  videos.single = array.shape.size() == 4;
  if (videos.single) {
    videos.views.push_back(view_of(array, 0));
    return videos;
  }
  check_count(array.shape[0]);
  for (std::int64_t i = 0; i < array.shape[0]; ++i) {
    ClipView view = view_of(array, 1);
    view.data = static_cast<const char*>(view.data) + i * array.pitch[0];
    videos.views.push_back(view);
  }
  return videos;
}

std::vector<Grid> grids_from(const py::object& grid, const std::vector<ClipView>& videos) {
  if (py::isinstance<Grid>(grid)) return {grid.cast<Grid>()};
  const py::tuple list = is_list(grid) ? elements(grid) : py::tuple();
  if (list.empty()) throw py::type_error("grid must be a Grid, one Grid per video, or a size (t, h, w)");
  if (list.size() == 3 && PyIndex_Check(list[0].ptr())) return whole_grids(list, videos);
  std::vector<Grid> grids;
  for (const py::handle one : list) {
    if (!py::isinstance<Grid>(one)) throw py::type_error("grids[" + std::to_string(grids.size()) + "] must be a Grid");
    grids.push_back(one.cast<Grid>());
  }
  return grids;
}

Layout layout_from(const py::object& layout) {
  return word<Layout>("layout", layout, {{"CTHW", Layout::cthw}, {"THWC", Layout::thwc}});
}

Options options_from(const py::object& mode, const py::object& temporal, const py::object& antialias,
                     const py::object& mean, const py::object& std, int threads) {
  const Filter linear = flag("antialias", antialias) ? Filter::smooth : Filter::linear;
  const Filter filter =
      word<Filter>("mode", mode, {{"nearest", Filter::nearest}, {"linear", linear}, {"area", Filter::area}});
  const bool blend = word<bool>("temporal", temporal, {{"nearest", false}, {"linear", true}});
  return {filter, blend, numbers_from("mean", mean), numbers_from("std", std), threads};
}

std::vector<std::int64_t> shape_of(const Videos& videos, const std::vector<Grid>& grids, Layout layout) {
  const Grid& grid = grids[0];
  std::vector<std::int64_t> shape = {grid.t.size, grid.h.size, grid.w.size};
  shape.insert(layout == Layout::cthw ? shape.begin() : shape.end(), videos.views[0].c);
  if (!videos.single) shape.insert(shape.begin(), static_cast<std::int64_t>(videos.views.size()));
  return shape;
}

BatchView batch_from(const Array& out, const Videos& videos, const std::vector<Grid>& grids, Layout layout) {
  const std::vector<std::int64_t> shape = shape_of(videos, grids, layout);
  if (!out.writable)
    throw py::value_error("out is read-only, or does not say that it is writable; pass an array that can be written");
  if (out.shape != shape)
    throw py::value_error("out is " + text_of(out.shape) + "; the clips are " + text_of(shape) +
                          ": pass an array of that shape");
  std::int64_t dense = bytes_of(out.dtype);
  for (std::size_t i = shape.size(); i-- > 0; dense *= shape[i])
    if (shape[i] != 1 && out.pitch[i] != dense)
      throw py::value_error("out must be C-contiguous; pass a dense array and copy from it");
  if (reinterpret_cast<std::uintptr_t>(out.data) % bytes_of(out.dtype) != 0)
    throw py::value_error("out must be aligned to its dtype; pass a freshly allocated array");
  const Grid& grid = grids[0];
  BatchView batch{};
  batch.data = out.data, batch.dtype = out.dtype, batch.layout = layout;
  batch.b = static_cast<std::int64_t>(videos.views.size()), batch.c = videos.views[0].c;
  batch.t = grid.t.size, batch.h = grid.h.size, batch.w = grid.w.size;
  return batch;
}

}  // namespace multigrid
