#include "plan/grid.h"

#include <cmath>
#include <utility>

#include "plan/refuse.h"

namespace multigrid {

void check(const Axis& axis) {
  if (!std::isfinite(axis.start) || !std::isfinite(axis.span) || axis.span == 0 || axis.size < 1)
    refuse("Axis(", axis.start, ", ", axis.span, ", ", axis.size,
           "): start must be finite, span finite and not 0 (negative reads backwards), size at least 1");
}

void map_points(const Grid& grid, const double* from, std::int64_t count, double* to) {
  for (std::int64_t i = 0; i < count; ++i) to[i] = map_point(i % 2 == 0 ? grid.w : grid.h, from[i]);
}

void map_boxes(const Grid& grid, const double* from, std::int64_t count, double* to) {
  map_points(grid, from, count, to);
  for (double* box = to; box < to + count; box += 4) {
    if (box[0] > box[2]) std::swap(box[0], box[2]);
    if (box[1] > box[3]) std::swap(box[1], box[3]);
  }
}

}  // namespace multigrid
