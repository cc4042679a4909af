#include "plan/sampling.h"

#include <algorithm>
#include <cmath>

#include "plan/refuse.h"

namespace multigrid {
namespace {

// Uniform in [0, 1), 53 bits.
double unit(const std::array<std::uint32_t, 4>& words) {
  return double((std::uint64_t(words[0]) << 32 | words[1]) >> 11) * 0x1p-53;
}

// The successive numbers of one draw, uniform in [0, 1).
class Draws {
 public:
  Draws(std::uint64_t seed, std::uint64_t step, std::uint64_t sample) : seed_(seed), step_(step), sample_(sample) {}

  double uniform() {
    // 32 bits of the step are enough for four billion iterations.
    return unit(philox(seed_, {count_++, std::uint32_t(step_), std::uint32_t(sample_), std::uint32_t(sample_ >> 32)}));
  }
  double uniform(const Range& range) { return range.low + (range.high - range.low) * uniform(); }
  std::int64_t integer(std::int64_t low, std::int64_t high) {  // bounds included
    return low + std::min(high - low, std::int64_t(uniform() * double(high - low + 1)));
  }

 private:
  std::uint64_t seed_, step_, sample_;
  std::uint32_t count_ = 0;
};

void check_length(std::int64_t frames, std::int64_t t, const SamplingOptions& options) {
  const std::int64_t stride = options.stride;
  if (options.beyond != Beyond::error || t * stride <= frames) return;
  if (options.segments)
    refuse("the video has ", frames, " frames, fewer than the ", t, " segments; pass beyond=\"clamp\" to repeat some");
  refuse("the video has ", frames, " frames, fewer than the clip's ", t, " frames x stride ", stride, " = ", t * stride,
         "; pass beyond=\"clamp\" or beyond=\"loop\", or a smaller stride");
}

// One frame from each of t equal parts, `share` of the way into its part.
Axis segments_axis(double share, std::int64_t frames, std::int64_t t) {
  return {share * double(frames) / double(t), double(frames), t};
}

Axis draw_time(const Step& step, std::int64_t frames, const SamplingOptions& options, Draws& draws) {
  const std::int64_t t = step.shape.t;
  check_length(frames, t, options);
  if (options.segments) return segments_axis(draws.uniform(), frames, t);
  const std::int64_t widest = options.stride * (step.baseline.t / t);
  const std::int64_t fits = std::max(options.stride, frames / t);
  const std::int64_t stride = draws.integer(options.stride, std::min(widest, fits));
  const std::int64_t last_start =
      options.beyond == Beyond::loop && stride * t > frames ? frames - 1 : frames - stride * t;
  const std::int64_t start = draws.integer(0, std::max<std::int64_t>(0, last_start));
  return {double(start), double(stride * t), t};
}

struct Box {
  double h, w;
};

// The video's short side is scaled to s pixels and the crop is cut from the result: a box of crop * short / s source
// pixels.
Box jittered_box(const Step& step, const Extent& extent, const SamplingOptions& options, Draws& draws) {
  const double full_h = double(step.baseline.h), full_w = double(step.baseline.w), full = std::min(full_h, full_w);
  const double coarse = std::sqrt(double(step.shape.h) * double(step.shape.w) / (full_h * full_w));
  // 256 to 320 for a crop of 224, proportional for others.
  const Range side = options.short_side.value_or(Range{full * 256 / 224, full * 320 / 224});
  const double crop = full * coarse, low = std::nearbyint(side.low * coarse);
  const double s = draws.uniform({std::max(low, crop), std::max(side.high, crop)});
  // The baseline's aspect: a step that is coarser along one axis reads the same box on fewer points.
  const double scale = coarse * double(std::min(extent.h, extent.w)) / s;
  const double height = double(extent.h), width = double(extent.w), h = full_h * scale, w = full_w * scale;
  const double shrink = std::min({1.0, height / h, width / w});
  return {std::min(h * shrink, height), std::min(w * shrink, width)};
}

// Ten tries to fit a box of the drawn area and aspect, then the largest that fits, as in torchvision's
// RandomResizedCrop.
Box resized_box(const Extent& extent, const SamplingOptions& options, Draws& draws) {
  const double height = double(extent.h), width = double(extent.w);
  const Range aspect = options.aspect.value_or(Range{3.0 / 4, 4.0 / 3});
  for (int attempt = 0; attempt < 10; ++attempt) {
    const double area = height * width * draws.uniform(*options.area);
    const double ratio = std::exp(draws.uniform({std::log(aspect.low), std::log(aspect.high)}));
    const Box box{std::sqrt(area / ratio), std::sqrt(area * ratio)};
    if (box.h <= height && box.w <= width) return box;
  }
  const double ratio = std::clamp(width / height, aspect.low, aspect.high);
  return {std::min(height, width / ratio), std::min(width, height * ratio)};
}

Axis cut(double start, double span, double extent, std::int64_t size) {
  return {std::min(start, extent - span), span, size};
}

void check_range(const char* name, const Range& range, double top) {
  if (!(range.low > 0 && range.low <= range.high && range.high <= top && std::isfinite(range.high))) {
    refuse(name, " (", range.low, ", ", range.high, ") must be a rising pair above 0 and ",
           top == 1 ? "at most 1, shares of the frame" : "finite", "; two equal numbers fix the value");
  }
}

}  // namespace

void check(const SamplingOptions& options) {
  if (!(options.flip >= 0 && options.flip <= 1)) refuse("flip (", options.flip, ") must be a probability in [0, 1]");
  if (options.short_side && options.area) refuse("short_side and area both choose the box; pass one of them");
  if (options.aspect && !options.area) refuse("aspect needs area; pass area=(0.08, 1.0), for example");
  if (options.area) check_range("area", *options.area, 1);
  if (options.aspect) check_range("aspect", *options.aspect, HUGE_VAL);
  if (options.short_side) check_range("short_side", *options.short_side, HUGE_VAL);
  if (options.segments && (options.stride != 1 || options.beyond == Beyond::loop)) {
    refuse("segments takes one frame from each of a clip's equal parts of the whole video; leave out stride (",
           options.stride, ") and beyond=\"loop\"");
  }
}

void check(const SamplingOptions& options, const Shape& baseline) {
  check(options);
  const auto full = double(std::min(baseline.h, baseline.w));
  if (options.short_side && options.short_side->low < full) {
    refuse("short_side (", options.short_side->low, ", ", options.short_side->high,
           ") must begin at the baseline's crop (", full,
           ") or above: it is the size the video is scaled to before the crop");
  }
}

std::array<std::uint32_t, 4> philox(std::uint64_t key, const std::array<std::uint32_t, 4>& counter) {
  auto x = counter;
  auto k0 = std::uint32_t(key), k1 = std::uint32_t(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = 0xD2511F53ull * x[0], b = 0xCD9E8D57ull * x[2];
    x = {std::uint32_t(b >> 32) ^ x[1] ^ k0, std::uint32_t(b), std::uint32_t(a >> 32) ^ x[3] ^ k1, std::uint32_t(a)};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return x;
}

// A Feistel network on the smallest even number of bits that holds `samples`, applied until the result is below
// `samples`.
std::int64_t shuffled(std::int64_t position, std::int64_t samples, std::uint64_t seed) {
  const auto epoch = std::uint64_t(position / samples);
  int half = 1;
  while (samples > std::int64_t(1) << (2 * half)) ++half;
  const auto mask = std::uint32_t((std::uint64_t(1) << half) - 1);
  auto x = std::uint64_t(position % samples);
  do {
    auto left = std::uint32_t(x >> half), right = std::uint32_t(x) & mask;
    for (std::uint32_t round = 0; round < 6; ++round) {
      const auto mixed = philox(seed, {right, round, std::uint32_t(epoch), 0xFFFFFFFFu})[0] & mask;
      const std::uint32_t next = left ^ mixed;
      left = right;
      right = next;
    }
    x = std::uint64_t(left) << half | right;
  } while (x >= std::uint64_t(samples));
  return std::int64_t(x);
}

void check_rising(const double* rising, std::int64_t samples) {
  if (samples < 1) refuse("rising must be the running sum of at least one weight");
  const double sum = rising[samples - 1];
  if (!(sum > 0 && std::isfinite(sum)))
    refuse("rising ends at ", sum, "; the sum of the weights must be above 0 and finite");
}

// The last word keeps the counters apart from those of `shuffled` (all ones) and of grids (below 2^31).
std::int64_t drawn(std::int64_t position, const double* rising, std::int64_t samples, std::uint64_t seed) {
  const auto p = std::uint64_t(position);
  const double share = unit(philox(seed, {std::uint32_t(p), std::uint32_t(p >> 32), 0, 0xFFFFFFFEu}));
  // share < 1 keeps the product below the sum of the weights, even after rounding, so the sample has a weight.
  const std::int64_t found = std::upper_bound(rising, rising + samples, share * rising[samples - 1]) - rising;
  return std::min(found, samples - 1);  // also if the sums do not rise
}

Grid draw_grid(const Step& step, const Extent& extent, const SamplingOptions& options, std::uint64_t seed,
               std::uint64_t sample) {
  check(options, step.baseline);
  Draws draws(seed, std::uint64_t(step.index), sample);
  const Axis t = draw_time(step, extent.t, options, draws);
  const Box box = options.area ? resized_box(extent, options, draws) : jittered_box(step, extent, options, draws);
  const double height = double(extent.h), width = double(extent.w);
  const Axis h = cut(draws.uniform({0, height - box.h}), box.h, height, step.shape.h);
  Axis w = cut(draws.uniform({0, width - box.w}), box.w, width, step.shape.w);
  if (draws.uniform() < options.flip) w = {w.start + w.span, -w.span, w.size};
  // A frame drawn in each segment can lie past the end of the last cell, but never past the last frame.
  return {t, h, w, options.segments ? Beyond::clamp : options.beyond};
}

std::vector<Grid> view_grids(const Shape& shape, const Extent& extent, int clips, int crops,
                             const SamplingOptions& options) {
  check(options);
  check_length(extent.t, shape.t, options);
  const std::int64_t stride = options.stride;
  // The largest box of the clip's aspect that fits; crops move it along the side that has room.
  const double height = double(extent.h), width = double(extent.w);
  const double scale = std::min(height / double(shape.h), width / double(shape.w));
  const double h = std::min(height, double(shape.h) * scale), w = std::min(width, double(shape.w) * scale);
  const double room = double(std::max<std::int64_t>(0, extent.t - stride * shape.t));
  const auto at = [](int i, int n, double end) { return n == 1 ? end / 2 : end * i / (n - 1); };
  std::vector<Grid> grids;
  for (int i = 0; i < clips; ++i) {
    const Axis t = options.segments ? segments_axis((i + 0.5) / clips, extent.t, shape.t)
                                    : Axis{std::floor(at(i, clips, room)), double(stride * shape.t), shape.t};
    for (int j = 0; j < crops; ++j) {
      const Axis rows = cut(at(j, crops, height - h), h, height, shape.h);
      const Axis columns = cut(at(j, crops, width - w), w, width, shape.w);
      grids.push_back({t, rows, columns, options.segments ? Beyond::clamp : options.beyond});
    }
  }
  return grids;
}

}  // namespace multigrid
