// Grid: where a clip is read from a video. Host and device.
#pragma once

#include <cstdint>

namespace multigrid {

// `size` cells of width `span / size`, in source frames or pixels: cell i covers
// [start + i * stride, start + (i + 1) * stride). A negative span reads the same cells backwards
// (a flip): start is then the upper end of the box.
struct Axis {
  double start, span;
  std::int64_t size;

  double stride() const { return span / double(size); }
};

// What a frame past the end of a short video is: an error, the last frame, or the video from its start again.
enum class Beyond : int { error, clamp, loop };

struct Grid {
  Axis t, h, w;
  Beyond beyond;
};

// Maps a source coordinate to an output coordinate, both continuous: cell i covers [i, i + 1).
inline double map_point(const Axis& axis, double source) { return (source - axis.start) / axis.stride(); }

// Throws std::invalid_argument for an empty or infinite axis.
void check(const Axis& axis);

// Map `count` numbers, alternately x and y, to the clip; and boxes (x0, y0, x1, y1), whose corners a flip swaps.
void map_points(const Grid& grid, const double* from, std::int64_t count, double* to);
void map_boxes(const Grid& grid, const double* from, std::int64_t count, double* to);

}  // namespace multigrid
