// The largest value of each count: more than any training needs, and small enough that no product of them overflows.
// Python checks against the same numbers (pymultigrid._core.limits); docs/limits.md lists them.
#pragma once

#include <cstdint>

namespace multigrid {

constexpr std::int64_t most_samples = std::int64_t{1} << 40;  // videos of a data set
constexpr std::int64_t most_steps = std::int64_t{1} << 32;    // iterations: Philox counts steps in 32 bits
constexpr double least_epochs = 0x1p-40, most_epochs = 0x1p32;
constexpr std::int64_t most_clips = std::int64_t{1} << 53;  // of a schedule: exact in a double
constexpr std::int64_t most_processes = 1 << 24;
constexpr std::int64_t most_stages = 1'000'000;              // of a plan, and points of its clock
constexpr std::int64_t most_factors = 1'000;                 // of a long or a short cycle
constexpr std::int64_t most_shapes = 4'000'000;              // of all stages together
constexpr std::int64_t most_size = 1 << 24;                  // of a batch or a clip along an axis
constexpr std::int64_t most_extent = std::int64_t{1} << 31;  // of a video along an axis
constexpr std::int64_t most_stride = std::int64_t{1} << 31;  // in frames
constexpr int most_views = 1'000;                            // clips, and crops, of a video in evaluation
constexpr std::int64_t most_videos = 1 << 20;                // of one call of resample
constexpr std::int64_t most_moments = 1 << 16;               // values of mean or std
constexpr int most_threads = 4096;                           // of one call of resample

}  // namespace multigrid
