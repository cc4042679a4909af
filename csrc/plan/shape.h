// Shape: a mini-batch, B clips of T frames of H x W pixels.
#pragma once

#include <cstdint>

namespace multigrid {

struct Shape {
  std::int64_t b, t, h, w;

  // Sampling points of one clip, and of the whole batch: the nominal cost of a step.
  double clip_cells() const { return double(t) * double(h) * double(w); }
  double cells() const { return double(b) * clip_cells(); }
};

}  // namespace multigrid
