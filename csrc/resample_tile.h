// Launch: a batch as the CUDA kernel is told of it, and the pixels as it keeps them. Host and device.
//
// A tile is a stretch of rows and columns of a few planes of one clip: the work of one block. A plane is a frame, where
// pixels are three bytes, else one channel of a frame.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "clip.h"
#include "half.h"
#include "taps.h"

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#define MULTIGRID_PHASE __host__ __device__ __forceinline__
#else
#define MULTIGRID_PHASE inline
#endif

namespace multigrid {

// A video and the box of it that is read: axes t, h, w, whose sizes are the batch's.
struct Source {
  const char* data;
  std::int64_t pitch_t, pitch_h, pitch_w, pitch_c;
  double start[3], span[3];
  std::int32_t t, h, w;
  std::uint8_t dtype, beyond;
  std::uint16_t c;
};

MULTIGRID_HD inline Cells cells_of(const Source& source, int axis, std::int32_t size) {
  return cells_of(Axis{source.start[axis], source.span[axis], size});
}

// The bytes of a video, from the lowest to past the highest.
struct Memory {
  const char *begin, *end;

  MULTIGRID_HD explicit Memory(const Source& video) : begin(video.data), end(video.data) {
    const std::int64_t steps[] = {video.pitch_t * (video.t - 1), video.pitch_h * (video.h - 1),
                                  video.pitch_w * (video.w - 1), video.pitch_c * (video.c - 1)};
    for (const std::int64_t step : steps) (step < 0 ? begin : end) += step;
    end += bytes_of(static_cast<DType>(video.dtype));
  }
};

// How every clip is cut into tiles.
struct Tiling {
  std::int32_t pairs, rows, planes;     // of a tile: pairs of columns, output rows, planes
  std::int32_t across, down, in_depth;  // tiles of a clip
  std::int32_t words;                   // of shared memory
  std::int32_t threads;
};

constexpr int most_sources = 300, most_channels = 32;

// Everything that a launch is told. It travels as the kernel's parameter, of which CUDA takes 32764 bytes: no table to
// copy, to keep alive or to wait for.
struct Launch {
  void* out;
  std::int32_t clips, c, t, h, w;
  DType dtype;
  Layout layout;
  Filter filter;
  bool rgb, blend, paired;  // rgb: all videos are three bytes a pixel; paired: two neighbours may be stored at once
  float times[2][most_channels], plus[most_channels];  // of a channel; times[1] for uint8 videos

  // From a value to its neighbour along an axis.
  std::int64_t row_step, pixel_step, channel_step, clip_step;

  MULTIGRID_HD std::int32_t planes() const { return rgb ? t : t * c; }
  MULTIGRID_HD std::uint32_t tiles() const {
    return static_cast<std::uint32_t>(clips) * tiling.in_depth * tiling.down * tiling.across;
  }

  Tiling tiling;
  Source sources[most_sources];
};
static_assert(sizeof(Launch) <= 32764);

// Taps of a column that are kept in registers: antialias up to a stride of 1.5 needs no more.
constexpr int kept_taps = 3;

// A plane of the tile: its frame, or the two that are blended.
struct PlaneRows {
  const char* frame[2];
  float share[2];
};

MULTIGRID_HD inline std::int32_t up_to_4(std::int32_t n) { return (n + 3) / 4 * 4; }

// Where a tile's tables lie in shared memory, in words: the tile, its planes, its rows (first pixel, count, weights),
// the columns' taps past those kept, and then twice the staged rows.
constexpr std::int32_t planes_at = 20;
struct TileRoom {
  std::int32_t row_taps, column_taps, rows, columns, staged;

  MULTIGRID_HD TileRoom(const Tiling& tiling, const Cells& h, const Cells& w, Filter filter)
      : row_taps(static_cast<std::int32_t>(most_taps(h, filter))),
        column_taps(static_cast<std::int32_t>(most_taps(w, filter))),
        rows(planes_at + tiling.planes * static_cast<std::int32_t>(sizeof(PlaneRows) / 4)),
        columns(rows + tiling.rows * (2 + row_taps)),
        staged(up_to_4(columns + (column_taps > kept_taps ? (column_taps - kept_taps) * 2 * tiling.pairs : 0))) {}
};

// The words of a staged row: its pixels in fours, and as many more as a column may look past them with weight 0.
MULTIGRID_HD inline std::int32_t row_words(std::int32_t pixels, std::int32_t taps) {
  return up_to_4(pixels) + up_to_4(taps - 1);
}

template <class T>
MULTIGRID_HD inline T read(const char* from) {
#ifdef __CUDA_ARCH__
  return *reinterpret_cast<const T*>(from);
#else
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
#endif
}

// Four bytes at an address that is a multiple of four, from memory that nobody writes meanwhile.
MULTIGRID_HD inline std::uint32_t read_word(const char* from) {
#ifdef __CUDA_ARCH__
  return __ldg(reinterpret_cast<const unsigned int*>(from));
#else
  return read<std::uint32_t>(from);
#endif
}

// Four words at an address that is a multiple of sixteen.
MULTIGRID_HD inline void write_words(std::uint32_t* to, std::uint32_t a, std::uint32_t b, std::uint32_t c,
                                     std::uint32_t d) {
#ifdef __CUDA_ARCH__
  *reinterpret_cast<uint4*>(to) = make_uint4(a, b, c, d);
#else
  to[0] = a, to[1] = b, to[2] = c, to[3] = d;
#endif
}

// Bytes `shift / 8` and up of the eight bytes low, high.
MULTIGRID_HD inline std::uint32_t shifted(std::uint32_t low, std::uint32_t high, int shift) {
#ifdef __CUDA_ARCH__
  return __funnelshift_r(low, high, shift);
#else
  return shift ? low >> shift | high << (32 - shift) : low;
#endif
}

// Two neighbours, `to` aligned to both.
template <class Out>
MULTIGRID_HD inline void assign_pair(Out* to, float a, float b) {
#ifdef __CUDA_ARCH__
  if constexpr (std::is_same_v<Out, Half>) {
    *reinterpret_cast<__half2*>(to) = __floats2half2_rn(a, b);
  } else if constexpr (std::is_same_v<Out, Bfloat16>) {
    *reinterpret_cast<__nv_bfloat162*>(to) = __floats2bfloat162_rn(a, b);
  } else {
    struct alignas(2 * sizeof(Out)) Pair {
      Out first, second;
    } pair;
    assign(pair.first, a), assign(pair.second, b);
    *reinterpret_cast<Pair*>(to) = pair;
  }
#else
  assign(to[0], a), assign(to[1], b);
#endif
}

// Three bytes in a word, read together. 2^23 + byte is a float whose last bits are the byte, and the product with its
// scale, less 2^23 times that, is rounded once.
struct Rgb {
  static constexpr int channels = 3;

  MULTIGRID_PHASE static void add(float* sum, std::uint32_t word, float weight, const float* times) {
    MULTIGRID_UNROLL
    for (int c = 0; c < 3; ++c) {
#ifdef __CUDA_ARCH__
      const float lifted = __uint_as_float(__byte_perm(word, 0x4b000000u, 0x7440 | c));
      const float value = __fmaf_rn(lifted, times[c], -8388608.0f * times[c]);
#else
      const float value = static_cast<float>(word >> 8 * c & 0xffu) * times[c];
#endif
      sum[c] += value * weight;
    }
  }
};

// One channel, as the bits of a float that has its scale already. A weight of 0 is no tap, and may lie on a NaN.
struct Single {
  static constexpr int channels = 1;

  MULTIGRID_PHASE static void add(float* sum, std::uint32_t word, float weight, const float*) {
    if (weight != 0) *sum += from_bits(word) * weight;
  }
};

}  // namespace multigrid
