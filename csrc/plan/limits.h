// How large a count may be: beyond what any training has, and small enough that no product of two of them overflows.
// docs/limits.md is the same table.
#pragma once

#include <cstdint>

namespace multigrid {

constexpr std::int64_t most_samples = std::int64_t{1} << 40;  // videos of a data set
constexpr std::int64_t most_steps = std::int64_t{1} << 32;   // iterations of a schedule: Philox counts steps in 32 bits
constexpr std::int64_t most_stages = 1'000'000;              // of a plan, and the points of its clock
constexpr std::int64_t most_factors = 1'000;                 // of a long or a short cycle
constexpr std::int64_t most_size = std::int64_t{1} << 24;    // frames, rows or columns of a clip; clips of a batch
constexpr std::int64_t most_extent = std::int64_t{1} << 31;  // frames, rows or columns of a video
constexpr std::int64_t most_stride = std::int64_t{1} << 31;  // frames from one to the next
constexpr std::int64_t most_videos = std::int64_t{1} << 20;  // of one call of resample
constexpr std::int64_t most_moments = std::int64_t{1} << 16;  // of a mean or std
constexpr int most_threads = 4096;                            // of one call of resample

}  // namespace multigrid
