// Where an output cell looks and with what weights. Shared by CPU and CUDA: they cannot drift.
#pragma once

#include <cmath>
#include <cstdint>

#include "grid.h"

#ifdef __CUDACC__
#define MULTIGRID_HD __host__ __device__
#else
#define MULTIGRID_HD
#endif

namespace multigrid {

// What a cell makes of the pixels; `smooth` is linear with the antialias filter.
enum class Filter : int { nearest, linear, smooth, area };

// An axis read forwards: cell i covers [start + i * span / size, start + (i + 1) * span / size) with span > 0, pixel k
// covers [k, k + 1), and only the pixels lo <= k < hi, those that the box touches, may be looked at.
struct Cells {
  double start, span;
  std::int64_t size, lo, hi;
  bool reversed;

  MULTIGRID_HD double edge(double i) const { return start + i * span / static_cast<double>(size); }
  MULTIGRID_HD std::int64_t placed(std::int64_t i) const { return reversed ? size - 1 - i : i; }
};

// The box's start to 2^-24 of a pixel: (start + span) - span is not always start, and a reversed axis must read
// exactly the cells of the forward one.
MULTIGRID_HD inline double snapped(double x) { return std::floor(x * 16777216.0 + 0.5) / 16777216.0; }

MULTIGRID_HD inline Cells cells_of(const Axis& axis) {
  const bool reversed = axis.span < 0;
  const double span = reversed ? -axis.span : axis.span;
  const double start = snapped(reversed ? axis.start + axis.span : axis.start);
  const double end = snapped(start + span);
  return {
      start,   span, axis.size, static_cast<std::int64_t>(std::floor(start)), static_cast<std::int64_t>(std::ceil(end)),
      reversed};
}

// The pixels first <= k < first + count that cell i looks at; `first` never falls as i grows.
struct Taps {
  std::int64_t first, count;
};

// Half the width of the triangle, in pixels.
MULTIGRID_HD inline double radius(const Cells& cells, Filter filter) {
  const double stride = cells.span / static_cast<double>(cells.size);
  return filter == Filter::smooth && stride > 1 ? stride : 1;
}

MULTIGRID_HD inline Taps taps_of(const Cells& cells, Filter filter, std::int64_t i) {
  const double centre = cells.edge(static_cast<double>(i) + 0.5);
  double first = std::floor(centre), last = first;
  if (filter == Filter::area) {
    first = std::floor(cells.edge(static_cast<double>(i)));
    last = std::ceil(cells.edge(static_cast<double>(i) + 1)) - 1;
  } else if (filter != Filter::nearest) {
    const double r = radius(cells, filter);
    first = std::floor(centre - r + 0.5);
    last = std::ceil(centre + r - 0.5) - 1;
  }
  const double lo = static_cast<double>(cells.lo), hi = static_cast<double>(cells.hi) - 1;
  first = first < lo ? lo : first > hi ? hi : first;
  last = last > hi ? hi : last < first ? first : last;
  return {static_cast<std::int64_t>(first), static_cast<std::int64_t>(last - first) + 1};
}

// What pixel k counts in cell i, before the weights of the cell are divided by their sum.
MULTIGRID_HD inline double weight_of(const Cells& cells, Filter filter, std::int64_t i, std::int64_t k) {
  const double pixel = static_cast<double>(k);
  if (filter == Filter::nearest) return 1;
  if (filter == Filter::area) {
    const double from = cells.edge(static_cast<double>(i)), to = cells.edge(static_cast<double>(i) + 1);
    return (to < pixel + 1 ? to : pixel + 1) - (from > pixel ? from : pixel);
  }
  const double away = std::fabs(pixel + 0.5 - cells.edge(static_cast<double>(i) + 0.5));
  const double weight = 1 - away / radius(cells, filter);
  return weight > 0 ? weight : 0;
}

// Temporal nearest: the frame in which cell i starts (0, 2, 4 for stride 2).
MULTIGRID_HD inline std::int64_t frame_of(const Cells& cells, std::int64_t i) {
  const double frame = std::floor(cells.edge(static_cast<double>(i)));
  const double last = static_cast<double>(cells.hi) - 1;
  return static_cast<std::int64_t>(frame > last ? last : frame);
}

// A frame past the end of the video: its last frame, or the video again.
MULTIGRID_HD inline std::int64_t wrapped(std::int64_t frame, std::int64_t frames, Short beyond) {
  if (frame < frames) return frame;
  return beyond == Short::loop ? frame % frames : frames - 1;
}

}  // namespace multigrid
