// The row functions of the resampler, one implementation per vector instruction set. The tables are laid out for
// vectors of `lanes` quads (4 floats in 16 bytes), so that one algorithm serves every width.
#pragma once

#include <cstdint>

#include "resample/clip.h"

namespace multigrid {

// The horizontal taps of a clip. A row of the clip has size x channels values, channel fastest; a quad is four
// neighbouring values. `planar` rows (three channels, written C T H W) are kept so that three vectors hold the red,
// green and blue of 4 x lanes pixels after shuffles inside the lanes: vector j, lane l of a block is quad 3 l + j.
//
// Bytes: tap t of a vector is fetched by the byte shuffle mask[t % group] from the 16 bytes at
// offset[lane] + t / group * group * channels. With `split` the upper 8 bytes have an offset of their own.
// Floats: group = 0, and every tap has its own offset: a pixel that a cell does not look at may be a NaN.
struct Columns {
  int vectors, taps, group, channels;
  bool split, planar;
  std::int64_t reach;          // bytes of the row that are read, from its first
  const std::int32_t* offset;  // [vectors][lanes], with `split` [vectors][2 lanes]; floats [vectors][taps][4 lanes]
  const std::uint8_t* mask;    // [vectors][group][16 lanes]
  const float* weight;         // [vectors][taps][4 lanes], with the scale of the channel
  const float* shift;          // [vectors][4 lanes], added once, by `down`
};

// Rows are filtered this many at a time, so that they share the loads of the tables.
constexpr int together = 4;

// An output row of a clip: `pixels` pixels, the distance in values between planes, and how many values past the row's
// end may be overwritten because the next row is written there later. Storing whole vectors is faster.
struct Place {
  void* data;
  std::int64_t pixels, plane, spare;
};

// The source of values that are not contiguous bytes: `count` values of `channels` each.
struct Strided {
  const void* data;
  DType dtype;
  std::int64_t count, channels, pitch, pitch_c;
};

// The functions of one instruction set.
struct RowCode {
  const char* name;
  int lanes;
  bool bytes;  // whether it has the byte shuffle
  void (*across_bytes)(const std::uint8_t* const* rows, int count, const Columns& columns, float* const* out);
  void (*across_floats)(const float* row, const Columns& columns, float* out);
  // out = shift + sum of weight[i] * rows[i], converted and stored
  void (*down)(const float* const* rows, const float* weight, int count, const Columns& columns, DType dtype,
               Layout layout, const Place& place);
  void (*to_floats)(const Strided& from, float* out);
  // Copies with non-temporal stores, for memory too large to stay in the caches. Call `settle` before another thread
  // reads it.
  void (*stream)(char* to, const char* from, std::int64_t bytes);
  void (*settle)();
};

// nullptr if the build has no such code. The caller checks what the machine supports.
const RowCode* plain_code();
const RowCode* avx2_code();
const RowCode* avx512_code();
const RowCode* neon_code();

}  // namespace multigrid
