// ClipView: a video in memory that the caller owns. BatchView: the memory that clips are written to.
#pragma once

#include <cstddef>
#include <cstdint>

#include "resample/dtype.h"

namespace multigrid {

// T x H x W x C values; a pitch is the distance in bytes to the next frame, row, pixel or channel, and may be
// negative (a reversed view) or zero (a broadcast one).
struct ClipView {
  const void* data;
  DType dtype;
  std::int64_t t, h, w, c;
  std::int64_t pitch_t, pitch_h, pitch_w, pitch_c;
};

// The bytes of a video, from the lowest address to one past the highest.
struct Memory {
  const char *begin, *end;
};

template <class View>
MULTIGRID_HD inline Memory memory_of(const View& video) {
  const char* data = static_cast<const char*>(video.data);
  Memory memory{data, data + bytes_of(static_cast<DType>(video.dtype))};
  const std::int64_t steps[] = {video.pitch_t * (video.t - 1), video.pitch_h * (video.h - 1),
                                video.pitch_w * (video.w - 1), video.pitch_c * (video.c - 1)};
  for (const std::int64_t step : steps) (step < 0 ? memory.begin : memory.end) += step;
  return memory;
}

enum class Layout : int { cthw, thwc };

// B dense clips of C x T x H x W or T x H x W x C values, one after the other.
struct BatchView {
  void* data;
  DType dtype;
  Layout layout;
  std::int64_t b, c, t, h, w;

  std::int64_t clip_bytes() const { return c * t * h * w * bytes_of(dtype); }
};

}  // namespace multigrid
