// Sampling: which sample is at a position of the stream, and where its clip is read. All random numbers of the project
// are drawn here. They are counter-based (Philox4x32-10, Salmon et al. 2011): a pure function of seed, step and sample.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "plan/grid.h"
#include "plan/schedule.h"
#include "plan/shape.h"

namespace multigrid {

// Four random words for a 64-bit key and a 128-bit counter.
std::array<std::uint32_t, 4> philox(std::uint64_t key, const std::array<std::uint32_t, 4>& counter);

// The sample at `position` of the stream: epoch by epoch, each a permutation of [0, samples).
std::int64_t shuffled(std::int64_t position, std::int64_t samples, std::uint64_t seed);

// Throws std::invalid_argument unless `rising` is the running sum of weights.
void check_rising(const double* rising, std::int64_t samples);

// The sample at `position` of a stream drawn with replacement; `rising` holds the running sum of `samples` weights.
std::int64_t drawn(std::int64_t position, const double* rising, std::int64_t samples, std::uint64_t seed);

// A source video: frames, height, width.
struct Extent {
  std::int64_t t, h, w;
};

struct Range {
  double low, high;
};

struct SamplingOptions {
  std::int64_t stride = 1;          // the baseline's temporal stride, in source frames
  std::optional<Range> short_side;  // the video's short side is scaled to this many pixels, for the baseline's crop
  std::optional<Range> area;        // instead: the box's share of the frame (random resized crop)
  std::optional<Range> aspect;      // with area: its width / height
  double flip = 0;                  // the share of clips read mirrored
  bool segments = false;            // one frame from each of t equal parts of the video, all at one offset
  Beyond beyond = Beyond::error;
};

// Throws std::invalid_argument for options that are invalid for every video, or with this baseline.
void check(const SamplingOptions& options);
void check(const SamplingOptions& options, const Shape& baseline);

// Paper, section 3.2 and its released code.
Grid draw_grid(const Step& step, const Extent& extent, const SamplingOptions& options, std::uint64_t seed,
               std::uint64_t sample);

// `clips` x `crops` grids of t x h x w cells, spread evenly over the video. Uses stride, segments and beyond of
// `options`.
std::vector<Grid> view_grids(const Shape& shape, const Extent& extent, int clips, int crops,
                             const SamplingOptions& options);

}  // namespace multigrid
