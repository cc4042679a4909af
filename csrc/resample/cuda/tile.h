// Launch: the kernel's argument, which describes a batch; and how the kernel stores pixels. Host and device.
//
// A tile is a range of rows and columns of a few planes of one clip, and the work of one block. A plane is a frame if
// pixels are three bytes, else one channel of a frame.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <type_traits>

#include "resample/clip.h"
#include "resample/taps.h"

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_pipeline.h>
#define MULTIGRID_INLINE __host__ __device__ __forceinline__
#else
#define MULTIGRID_INLINE inline
#endif

namespace multigrid {

// A video and the box of it that is read: axes t, h, w, with the sizes of the batch.
struct Source {
  const char* data;
  std::int64_t pitch_t, pitch_h, pitch_w, pitch_c;
  double start[3], span[3];
  std::int32_t t, h, w, row_taps, column_taps;  // taps: the most of any cell
  std::uint16_t c;
  std::uint8_t dtype, beyond;
  bool skips;  // the distance between cells exceeds their height: some rows are in none
};

MULTIGRID_HD inline Cells cells_of(const Source& source, int axis, std::int32_t size) {
  return cells_of(Axis{source.start[axis], source.span[axis], size});
}

// How every clip is cut into tiles, and the layout of a tile's shared memory, in words.
struct Tiling {
  std::int32_t pairs, rows, planes;     // of a tile: pairs of columns, output rows, planes
  std::int32_t across, down, in_depth;  // tiles of a clip
  std::int32_t threads;
  std::int32_t log_slots,
      log_lanes;  // 2^log_slots source rows of a plane are staged together, each by 2^log_lanes
  std::int32_t rows_at, columns_at, staged_at, staged_words, words;
};

constexpr int most_sources = 256, most_channels = 32;

// The argument of a launch. It is passed as the kernel's parameter, for which CUDA allows 32764 bytes, so there is no
// table to copy, to keep alive or to wait for.
struct Launch {
  void* out;
  std::int32_t clips, c, t, h, w;
  DType dtype;
  Layout layout;
  Filter filter;
  bool rgb, blend, paired;  // rgb: all videos have three bytes a pixel; paired: two neighbours may be stored together
  float times[2][most_channels], plus[most_channels];  // of a channel; times[1] for uint8 videos

  // The distance from a value to its neighbour along an axis, in bytes.
  std::int64_t row_step, pixel_step, channel_step, clip_step;

  MULTIGRID_HD std::int32_t planes() const { return rgb ? t : t * c; }
  MULTIGRID_HD std::uint32_t tiles() const {
    return static_cast<std::uint32_t>(clips) * tiling.in_depth * tiling.down * tiling.across;
  }

  Tiling tiling;
  Source sources[most_sources];
};
static_assert(sizeof(Launch) <= 32764);

// In words of a tile's shared memory: where the planes begin, and the length of each.
constexpr std::int32_t planes_at = 16, plane_words = 6;

// Cells of more than two rows are summed as the rows arrive; others are a mix of the last two.
MULTIGRID_HD inline bool many_rows(const Source& source) { return source.row_taps > 2; }

// The words of a row in a tile's table: see Stager.
template <bool Sums>
MULTIGRID_HD inline std::int32_t row_words(const Source& source) {
  return Sums ? 2 + 2 * source.row_taps : 4;
}
MULTIGRID_HD inline std::int32_t row_words(const Source& source) {
  return many_rows(source) ? row_words<true>(source) : row_words<false>(source);
}

MULTIGRID_HD inline std::int32_t up_to_4(std::int32_t n) { return (n + 3) / 4 * 4; }

// Misaligned access, which faults on a GPU, must also fail on the host.
inline void check_aligned(const void* at, std::size_t bytes) {
  if (reinterpret_cast<std::uintptr_t>(at) % bytes != 0) std::abort();
}

// Reads memory that nobody writes during the launch.
template <class T>
MULTIGRID_HD inline T read(const char* from) {
#ifdef __CUDA_ARCH__
  return __ldg(reinterpret_cast<const T*>(from));
#else
  check_aligned(from, alignof(T));
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
#endif
}

template <class T>
MULTIGRID_HD inline void write(char* to, const T& value) {
#ifdef __CUDA_ARCH__
  *reinterpret_cast<T*>(to) = value;
#else
  check_aligned(to, alignof(T));
  std::memcpy(to, &value, sizeof value);
#endif
}

// Copies 4 or 16 bytes between addresses that are multiples of that. The copy may complete after the return.
template <int Bytes>
MULTIGRID_HD inline void copy(std::uint32_t* to, const char* from) {
#ifdef __CUDA_ARCH__
  __pipeline_memcpy_async(to, from, Bytes);
#else
  check_aligned(to, Bytes), check_aligned(from, Bytes);
  std::memcpy(to, from, Bytes);
#endif
}

// Bytes `shift / 8 % 4` and up of the eight bytes low, high.
MULTIGRID_HD inline std::uint32_t shifted(std::uint32_t low, std::uint32_t high, int shift) {
#ifdef __CUDA_ARCH__
  return __funnelshift_r(low, high, shift);
#else
  return shift % 32 ? low >> shift % 32 | high << (32 - shift % 32) : low;
#endif
}

// Converts a sum to the output: scaled and shifted. A byte only results from bytes, with weights whose sum is 1, and is
// rounded by pushing its fraction out of the mantissa.
template <class Out>
MULTIGRID_HD inline float scaled(float sum, float times, float plus) {
  return std::is_same_v<Out, std::uint8_t> ? sum + 12582912.0f : sum * times + plus;
}

template <class Out>
MULTIGRID_HD inline Out converted(float scaled) {
  if constexpr (std::is_same_v<Out, std::uint8_t>) return static_cast<std::uint8_t>(bits_of(scaled) & 0xffu);
#ifdef __CUDA_ARCH__
  if constexpr (std::is_same_v<Out, Half>) return {__half_as_ushort(__float2half_rn(scaled))};
  if constexpr (std::is_same_v<Out, Bfloat16>) return {__bfloat16_as_ushort(__float2bfloat16_rn(scaled))};
#endif
  Out to;
  assign(to, scaled);
  return to;
}

template <class Out>
MULTIGRID_HD inline void assign_one(char* to, float x) {
  const Out value = converted<Out>(x);
  write(to, value);
}

// Two neighbours, `to` aligned to both.
template <class Out>
MULTIGRID_HD inline void assign_pair(char* to, float a, float b) {
  struct alignas(2 * sizeof(Out)) Pair {
    Out first, second;
  };
  write(to, Pair{converted<Out>(a), converted<Out>(b)});
}

// How the pixels of a staged row are stored, from the position in its first word on.
//
// Three bytes a pixel, as in the video. A byte is reinterpreted as the bits of a float, whose value is exactly 2^-149
// times the byte; this takes one instruction. The weights of columns compensate 2^126 of it, those of rows the rest.
struct Rgb {
  static constexpr int channels = 3, step = 3;
  static constexpr float times_column = 0x1p126f, times_row = 0x1p23f;

  MULTIGRID_INLINE static float level(std::uint32_t word, int byte) {
#ifdef __CUDA_ARCH__
    return __uint_as_float(__byte_perm(word, 0, 0x4440 | byte));
#else
    return from_bits(word >> 8 * byte & 0xffu);
#endif
  }

  MULTIGRID_INLINE static float with(float sum, float x, float weight) { return sum + x * weight; }

  // Adds the pixels from byte `at` on.
  template <int Taps>
  MULTIGRID_INLINE static void add(float* sum, const std::uint32_t* row, int at, const float* weight) {
    constexpr int read = (3 * Taps + 2) / 4 + 1, used = (3 * Taps + 3) / 4;  // words; 0 to 3 bytes come before `at`
    std::uint32_t words[read];
    MULTIGRID_UNROLL
    for (int i = 0; i < read; ++i) words[i] = row[(at >> 2) + i];
    MULTIGRID_UNROLL
    for (int i = 0; i < used; ++i) words[i] = shifted(words[i], words[i + 1 < read ? i + 1 : i], 8 * at);
    MULTIGRID_UNROLL
    for (int v = 0; v < 3 * Taps; ++v) sum[v % 3] = with(sum[v % 3], level(words[v / 4], v % 4), weight[v / 3]);
  }
};

// One channel, as floats. A weight of 0 is skipped, because its pixel may be a NaN.
struct Single {
  static constexpr int channels = 1, step = 1;
  static constexpr float times_column = 1, times_row = 1;

  MULTIGRID_INLINE static float with(float sum, float x, float weight) { return weight != 0 ? sum + x * weight : sum; }

  template <int Taps>
  MULTIGRID_INLINE static void add(float* sum, const std::uint32_t* row, int at, const float* weight) {
    MULTIGRID_UNROLL
    for (int t = 0; t < Taps; ++t) *sum = with(*sum, from_bits(row[at + t]), weight[t]);
  }
};

}  // namespace multigrid
