// Binds the order of samples in the stream, and the grids of evaluation.

#include "plan/sampling.h"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "python/module.h"
#include "python/value.h"

namespace py = pybind11;
using namespace py::literals;

namespace multigrid {
namespace {

std::int64_t position_from(const char* name, const py::object& position) {
  return whole(name, position, std::int64_t{0}, most_clips);
}

std::uint64_t seed_from(const py::object& seed) { return whole<std::uint64_t>("seed", seed, 0); }

std::int64_t samples_from(const py::object& samples) {
  return whole("samples", samples, std::int64_t{1}, most_samples);
}

// of(p) for the positions first .. first + count.
template <class Of>
std::vector<std::int64_t> each(const py::object& first, const py::object& count, Of of) {
  const std::int64_t from = position_from("first", first), to = from + position_from("count", count);
  std::vector<std::int64_t> all;
  for (std::int64_t p = from; p < to; ++p) {
    heed(p - from);
    all.push_back(of(p));
  }
  return all;
}

std::vector<std::int64_t> shuffle(const py::object& first, const py::object& count, const py::object& samples,
                                  const py::object& seed) {
  const std::int64_t all = samples_from(samples);
  const std::uint64_t key = seed_from(seed);
  return each(first, count, [&](std::int64_t p) { return shuffled(p, all, key); });
}

std::vector<std::int64_t> draw(const py::object& first, const py::object& count, const py::object& rising,
                               const py::object& seed) {
  const Doubles sums = doubles("rising", rising);
  check_rising(sums.data(), sums.ndim() == 1 ? sums.size() : 0);
  const std::uint64_t key = seed_from(seed);
  return each(first, count, [&](std::int64_t p) { return drawn(p, sums.data(), sums.size(), key); });
}

std::vector<Grid> views(const py::object& shape, const py::object& extent, const py::object& clips,
                        const py::object& crops, const py::object& stride, const py::object& segments,
                        const py::object& beyond) {
  const SamplingOptions options =
      sampling_from(stride, py::none(), py::none(), py::none(), py::int_(0), segments, beyond);
  return view_grids(read<Shape>("shape", shape), extent_from(extent), whole("clips", clips, 1, most_views),
                    whole("crops", crops, 1, most_views), options);
}

std::optional<Range> range(const std::string& name, const py::object& pair) {
  if (pair.is_none()) return std::nullopt;
  if (!py::isinstance<py::sequence>(pair) || py::isinstance<py::str>(pair) || py::len(pair) != 2)
    throw py::type_error(said(name, pair) + " must be a pair (low, high)");
  return Range{number(name, pair[py::int_(0)]), number(name, pair[py::int_(1)])};
}

void check_sampling(const py::object& baseline, const py::object& stride, const py::object& short_side,
                    const py::object& area, const py::object& aspect, const py::object& flip,
                    const py::object& segments, const py::object& beyond) {
  const SamplingOptions options = sampling_from(stride, short_side, area, aspect, flip, segments, beyond);
  if (baseline.is_none()) return check(options);
  check(options, read<Shape>("baseline", baseline));
}

}  // namespace

SamplingOptions sampling_from(const py::object& stride, const py::object& short_side, const py::object& area,
                              const py::object& aspect, const py::object& flip, const py::object& segments,
                              const py::object& beyond) {
  SamplingOptions options;
  options.stride = whole<std::int64_t>("stride", stride, 1, most_stride);
  options.short_side = range("short_side", short_side);
  options.area = range("area", area);
  options.aspect = range("aspect", aspect);
  if (PyBool_Check(flip.ptr()))
    throw py::type_error(said("flip", flip) + " must be a number: 0.5 mirrors half of the clips");
  options.flip = number("flip", flip);
  options.segments = flag("segments", segments);
  options.beyond = beyond_from("beyond", beyond);
  return options;
}

Extent extent_from(const py::object& extent) {
  if (!py::isinstance<py::sequence>(extent) || py::len(extent) != 3)
    throw py::type_error(said("extent", extent) + " must be the video's (frames, height, width)");
  const auto size = [&](int i) { return whole("extent", extent[py::int_(i)], std::int64_t{1}, most_extent); };
  return {size(0), size(1), size(2)};
}

void bind_sampling(py::module_& m) {
  define(m, "view_grids", views, "view_grids(shape, extent, clips, crops, stride, segments, beyond)",
         "`clips` x `crops` grids, spread evenly over the video.", "shape"_a, "extent"_a, "clips"_a, "crops"_a,
         "stride"_a, "segments"_a, "beyond"_a);
  define(m, "check_sampling", check_sampling,
         "check_sampling(baseline=None, *, stride, short_side, area, aspect, flip, segments, beyond)",
         "Refuse options that `Step.grid` would refuse for every video, or with this baseline.",
         "baseline"_a = py::none(), py::kw_only(), "stride"_a = 1, "short_side"_a = py::none(), "area"_a = py::none(),
         "aspect"_a = py::none(), "flip"_a = 0.0, "segments"_a = false, "beyond"_a = "error");
  define(
      m, "shuffled",
      [](const py::object& position, const py::object& samples, const py::object& seed) {
        return shuffled(position_from("position", position), samples_from(samples), seed_from(seed));
      },
      "shuffled(position, samples, seed)",
      "The sample at `position` of the stream: epoch by epoch, each a permutation of range(samples).", "position"_a,
      "samples"_a, "seed"_a);
  define(m, "shuffle", shuffle, "shuffle(first, count, samples, seed)",
         "`shuffled` at the positions first .. first + count.", "first"_a, "count"_a, "samples"_a, "seed"_a);
  define(
      m, "draw", draw, "draw(first, count, rising, seed)",
      "The samples at the positions first .. first + count, with replacement; rising: the running sum of the weights.",
      "first"_a, "count"_a, "rising"_a, "seed"_a);
}

}  // namespace multigrid
