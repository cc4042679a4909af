// Which pixels an output cell reads, and their weights. Shared by CPU and CUDA, so that the two cannot diverge.
#pragma once

#include <cmath>
#include <cstdint>

#include "plan/grid.h"
#include "resample/device.h"

namespace multigrid {

// How a cell combines its pixels; `smooth` is linear with the antialias filter.
enum class Filter : int { nearest, linear, smooth, area };

// An axis read forwards: cell i covers [start + i * span / size, start + (i + 1) * span / size) with span > 0, pixel k
// covers [k, k + 1), and only the pixels lo <= k < hi, those that the box touches, may be read.
struct Cells {
  double start, span;
  std::int64_t size, lo, hi;
  bool reversed;

  MULTIGRID_HD double edge(double i) const { return start + i * span / static_cast<double>(size); }
  MULTIGRID_HD std::int64_t placed(std::int64_t i) const { return reversed ? size - 1 - i : i; }
};

// The start of the box, rounded to 2^-24 of a pixel: in floating point (start + span) - span is not always start, but a
// reversed axis must read exactly the cells of the forward one.
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

// What a cell reads: the stretch [from, to) of the axis, and the pixels first <= k < first + count in it. `first` and
// `first + count` never decrease from one cell to the next.
struct Taps {
  std::int64_t first, count;
  double from, to;
};

MULTIGRID_HD inline Taps taps_of(const Cells& cells, Filter filter, std::int64_t i) {
  const double cell = static_cast<double>(i), stride = cells.span / static_cast<double>(cells.size);
  double from, to, first, last;
  if (filter == Filter::area) {
    from = cells.edge(cell);
    to = cells.edge(cell + 1);
    first = std::floor(from);
    last = std::ceil(to) - 1;
  } else {
    const double centre = cells.edge(cell + 0.5);
    const double radius = filter == Filter::smooth && stride > 1 ? stride : 1;
    from = centre - radius;
    to = centre + radius;
    first = filter == Filter::nearest ? std::floor(centre) : std::floor(from + 0.5);
    last = filter == Filter::nearest ? first : std::ceil(to - 0.5) - 1;
  }
  const double lo = static_cast<double>(cells.lo), hi = static_cast<double>(cells.hi) - 1;
  first = first < lo ? lo : first > hi ? hi : first;
  last = last > hi ? hi : last < first ? first : last;
  return {static_cast<std::int64_t>(first), static_cast<std::int64_t>(last - first) + 1, from, to};
}

// The weight of pixel k before the weights of the cell are divided by their sum: its share of the stretch, or the
// height of a triangle over the stretch at k.
MULTIGRID_HD inline double weight_of(const Taps& taps, Filter filter, std::int64_t k) {
  if (filter == Filter::nearest) return 1;
  const double pixel = static_cast<double>(k);
  double weight;
  if (filter == Filter::area)
    weight = (taps.to < pixel + 1 ? taps.to : pixel + 1) - (taps.from > pixel ? taps.from : pixel);
  else
    weight = pixel + 0.5 - taps.from < taps.to - pixel - 0.5 ? pixel + 0.5 - taps.from : taps.to - pixel - 0.5;
  return weight > 0 ? weight : 0;
}

// 1 / the sum of a cell's weights, or 0 for an area cell so thin that its ends are the same double.
MULTIGRID_HD inline double share_of(const Taps& taps, Filter filter) {
  double sum = 0;
  MULTIGRID_ROLLED
  for (std::int64_t t = 0; t < taps.count; ++t) sum += weight_of(taps, filter, taps.first + t);
  return sum > 0 ? 1 / sum : 0;
}

// The normalised weight of pixel first + t in the cell. A cell that is too thin takes its first pixel.
MULTIGRID_HD inline float part_of(const Taps& taps, Filter filter, double share, std::int64_t t) {
  if (share == 0) return t == 0 ? 1.0f : 0.0f;
  return static_cast<float>(weight_of(taps, filter, taps.first + t) * share);
}

// Upper bound on the taps of a cell, slivers aside.
MULTIGRID_HD inline std::int64_t most_taps(const Cells& cells, Filter filter) {
  const double stride = cells.span / static_cast<double>(cells.size);
  if (filter == Filter::nearest) return 1;
  if (filter == Filter::area) return static_cast<std::int64_t>(std::ceil(stride)) + 1;
  return filter == Filter::smooth && stride > 1 ? static_cast<std::int64_t>(std::ceil(2 * stride)) : 2;
}

// Temporal nearest: the frame in which cell i starts (0, 2, 4 for stride 2).
MULTIGRID_HD inline std::int64_t frame_of(const Cells& cells, std::int64_t i) {
  const double frame = std::floor(cells.edge(static_cast<double>(i)));
  const double last = static_cast<double>(cells.hi) - 1;
  return static_cast<std::int64_t>(frame > last ? last : frame);
}

// The frame to read for a frame past the end of the video: the last one, or counted from the start again.
MULTIGRID_HD inline std::int64_t wrapped(std::int64_t frame, std::int64_t frames, Beyond beyond) {
  if (frame < frames) return frame;
  return beyond == Beyond::loop ? frame % frames : frames - 1;
}

}  // namespace multigrid
