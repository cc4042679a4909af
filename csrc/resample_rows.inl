// The algorithm of resample_rows.h, written over a vector type V. Included by one source file for each instruction
// set, with nothing shared between them: no standard containers, everything in an unnamed namespace, or the linker
// might hand one file's AVX-512 copy of a function to another.

#include "half.h"
#include "resample_rows.h"

namespace multigrid {
namespace {

template <class V, int Group, bool Split, int Rows>
void across_group(const std::uint8_t* const* rows, const Columns& columns, float* const* out) {
  constexpr int width = 4 * V::lanes, offsets = Split ? 2 * V::lanes : V::lanes;
  const std::int64_t advance = Group * columns.channels, last = (columns.taps / Group - 1) * advance;
  const std::int32_t* offset = columns.offset;
  const std::uint8_t* mask = columns.mask;
  const float* weight = columns.weight;
  for (std::int64_t v = 0; v < columns.vectors; ++v) {
    typename V::Floats sum[Rows];
    for (auto& one : sum) one = V::all(0);
    for (std::int64_t at = 0; at <= last; at += advance) {
      typename V::Bytes bytes[Rows];
      for (int r = 0; r < Rows; ++r)
        bytes[r] = Split ? V::split_windows(rows[r] + at, offset) : V::windows(rows[r] + at, offset);
      for (int t = 0; t < Group; ++t, weight += width) {
        const auto order = V::order(mask + t * 4 * width);
        const auto share = V::load(weight);
        for (int r = 0; r < Rows; ++r) sum[r] = V::add_product(V::pick(bytes[r], order), share, sum[r]);
      }
    }
    for (int r = 0; r < Rows; ++r) V::store(out[r] + v * width, sum[r]);
    offset += offsets;
    mask += Group * 4 * width;
  }
}

template <class V, int Group, bool Split>
void across_rows(const std::uint8_t* const* rows, int count, const Columns& columns, float* const* out) {
  if (count == together) return across_group<V, Group, Split, together>(rows, columns, out);
  for (int r = 0; r < count; ++r) across_group<V, Group, Split, 1>(rows + r, columns, out + r);
}

template <class V>
void across_bytes(const std::uint8_t* const* rows, int count, const Columns& columns, float* const* out) {
  using Across = void (*)(const std::uint8_t* const*, int, const Columns&, float* const*);
  static constexpr Across whole[] = {across_rows<V, 1, false>, across_rows<V, 2, false>, across_rows<V, 3, false>,
                                     across_rows<V, 4, false>};
  static constexpr Across split[] = {across_rows<V, 1, true>, across_rows<V, 2, true>, across_rows<V, 3, true>,
                                     across_rows<V, 4, true>};
  (columns.split ? split : whole)[columns.group - 1](rows, count, columns, out);
}

template <class V>
void across_floats(const float* row, const Columns& columns, float* out) {
  constexpr int width = 4 * V::lanes;
  const float* weight = columns.weight;
  const std::int32_t* offset = columns.offset;
  for (int v = 0; v < columns.vectors; ++v) {
    auto sum = V::all(0);
    for (int t = 0; t < columns.taps; ++t, weight += width, offset += width)
      sum = V::add_product(V::gather(row, offset), V::load(weight), sum);
    V::store(out + v * width, sum);
  }
}

// Taps is the number of rows if it is known, else 0.
template <class V, int Taps>
typename V::Floats down_one(const float* const* rows, const float* weight, int count, std::int64_t at,
                            typename V::Floats shift) {
  for (int i = 0; i < (Taps ? Taps : count); ++i)
    shift = V::add_product(V::load(rows[i] + at), V::all(weight[i]), shift);
  return shift;
}

// Vectors that hold whole planes, so that the shift repeats: C T H W of one or three channels.
template <class V, class T, int Planes, int Taps>
void down_planes(const float* const* rows, const float* weight, int count, const Columns& columns, const Place& place) {
  constexpr int width = 4 * V::lanes;
  typename V::Floats shift[Planes];
  for (int j = 0; j < Planes; ++j) shift[j] = V::load(columns.shift + j * width);
  T* out = static_cast<T*>(place.data);
  for (std::int64_t x = 0; x < place.pixels; x += width) {
    typename V::Floats plane[Planes];
    for (int j = 0; j < Planes; ++j)
      plane[j] = down_one<V, Taps>(rows, weight, count, x * Planes + j * width, shift[j]);
    if constexpr (Planes == 3) V::planes(plane[0], plane[1], plane[2]);
    const std::int64_t left = place.pixels - x;
    for (int j = 0; j < Planes; ++j) {
      if (left >= width) {
        V::store(out + j * place.plane + x, plane[j]);
      } else {
        T last[width];
        V::store(last, plane[j]);
        for (std::int64_t i = 0; i < left; ++i) out[j * place.plane + x + i] = last[i];
      }
    }
  }
}

// Any number of channels, to T H W C or, one value at a time, to C T H W.
template <class V, class T>
void down_values(const float* const* rows, const float* weight, int count, const Columns& columns, Layout layout,
                 const Place& place) {
  constexpr int width = 4 * V::lanes;
  T* out = static_cast<T*>(place.data);
  const std::int64_t values = place.pixels * columns.channels;
  std::int64_t pixel = 0, channel = 0;
  for (std::int64_t at = 0; at < values; at += width) {
    const auto sum = down_one<V, 0>(rows, weight, count, at, V::load(columns.shift + at));
    if (layout == Layout::thwc && at + width <= values) {
      V::store(out + at, sum);
      continue;
    }
    T last[width];
    V::store(last, sum);
    for (std::int64_t i = 0; i < width && at + i < values; ++i) {
      out[layout == Layout::thwc ? at + i : channel * place.plane + pixel] = last[i];
      if (++channel == columns.channels) channel = 0, ++pixel;
    }
  }
}

template <class V, class T, int Planes>
void down_counted(const float* const* rows, const float* weight, int count, const Columns& columns,
                  const Place& place) {
  if (count == 1)
    down_planes<V, T, Planes, 1>(rows, weight, count, columns, place);
  else if (count == 2)
    down_planes<V, T, Planes, 2>(rows, weight, count, columns, place);
  else
    down_planes<V, T, Planes, 0>(rows, weight, count, columns, place);
}

template <class V, class T>
void down_typed(const float* const* rows, const float* weight, int count, const Columns& columns, Layout layout,
                const Place& place) {
  if (columns.planar)
    down_counted<V, T, 3>(rows, weight, count, columns, place);
  else if (columns.channels == 1)
    down_counted<V, T, 1>(rows, weight, count, columns, place);
  else
    down_values<V, T>(rows, weight, count, columns, layout, place);
}

template <class V>
void down(const float* const* rows, const float* weight, int count, const Columns& columns, DType dtype, Layout layout,
          const Place& place) {
  switch (dtype) {
    case DType::u8:
      return down_typed<V, std::uint8_t>(rows, weight, count, columns, layout, place);
    case DType::f16:
      return down_typed<V, Half>(rows, weight, count, columns, layout, place);
    case DType::bf16:
      return down_typed<V, Bfloat16>(rows, weight, count, columns, layout, place);
    case DType::f32:
      return down_typed<V, float>(rows, weight, count, columns, layout, place);
  }
}

template <class V, class T>
void to_floats_typed(const Strided& from, float* out) {
  constexpr int width = 4 * V::lanes;
  const char* data = static_cast<const char*>(from.data);
  std::int64_t done = 0;
  if (from.pitch_c == sizeof(T) && from.pitch == from.channels * from.pitch_c)
    for (const std::int64_t all = from.count * from.channels; done + width <= all; done += width)
      V::store(out + done, V::widen(data + done * static_cast<std::int64_t>(sizeof(T)), T{}));
  for (std::int64_t pixel = done / from.channels, channel = done % from.channels; pixel < from.count; ++pixel) {
    for (; channel < from.channels; ++channel, ++done) {
      T value;
      std::memcpy(&value, data + pixel * from.pitch + channel * from.pitch_c, sizeof value);
      out[done] = to_float(value);
    }
    channel = 0;
  }
}

template <class V>
void to_floats(const Strided& from, float* out) {
  switch (from.dtype) {
    case DType::u8:
      return to_floats_typed<V, std::uint8_t>(from, out);
    case DType::f16:
      return to_floats_typed<V, Half>(from, out);
    case DType::bf16:
      return to_floats_typed<V, Bfloat16>(from, out);
    case DType::f32:
      return to_floats_typed<V, float>(from, out);
  }
}

template <class V>
constexpr RowCode row_code(const char* name) {
  if constexpr (V::bytes)
    return {name, V::lanes, true, across_bytes<V>, across_floats<V>, down<V>, to_floats<V>};
  else
    return {name, V::lanes, false, nullptr, across_floats<V>, down<V>, to_floats<V>};
}

}  // namespace
}  // namespace multigrid
