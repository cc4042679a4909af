// ClipView: a video in memory, owned by someone else. BatchView: where clips are written.
#pragma once

#include <cstddef>
#include <cstdint>

#include "device.h"

namespace multigrid {

enum class DType : int { u8, f16, f32, bf16 };

MULTIGRID_HD inline std::int64_t bytes_of(DType dtype) { return dtype == DType::u8 ? 1 : dtype == DType::f32 ? 4 : 2; }

// T x H x W x C values; a pitch is the distance in bytes to the next frame, row, pixel or channel, and may be
// negative (a reversed view) or zero (a broadcast one).
struct ClipView {
  const void* data;
  DType dtype;
  std::int64_t t, h, w, c;
  std::int64_t pitch_t, pitch_h, pitch_w, pitch_c;
};

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
