// The algorithm of rows.h, written over a vector type V. Each instruction set has one source file that includes this
// one. They share nothing (no standard containers, everything in an unnamed namespace), or the linker might give one
// file the AVX-512 copy of a function from another.

#include "resample/cpu/rows.h"

namespace multigrid {
namespace {

// Windows is 1 if one window holds all taps, else 0. A vector store may alias anything behind a pointer, so what the
// loops need is copied out of the arguments first. Rows are addressed by their distance from the first, which saves
// registers.
template <class V, int Group, bool Split, int Rows, int Windows>
void across_group(const std::uint8_t* const* rows, const Columns& columns, float* const* out) {
  constexpr int width = 4 * V::lanes, offsets = Split ? 2 * V::lanes : V::lanes;
  const std::int64_t advance = Group * columns.channels, windows = Windows ? Windows : columns.taps / Group;
  const std::int32_t* offset = columns.offset;
  const std::int32_t* const end = offset + std::int64_t{columns.vectors} * offsets;
  const std::uint8_t* mask = columns.mask;
  const float* weight = columns.weight;
  const std::uint8_t* const row = rows[0];
  float* to = out[0];
  std::int64_t row_ahead[Rows], out_ahead[Rows];
  for (int r = 0; r < Rows; ++r) row_ahead[r] = rows[r] - rows[0], out_ahead[r] = out[r] - out[0];
  for (; offset != end; offset += offsets, mask += Group * 4 * width, to += width) {
    typename V::Floats sum[Rows];
    for (auto& one : sum) one = V::all(0);
    const std::uint8_t* from = row;
    for (std::int64_t window = 0; window < windows; ++window, from += advance) {
      typename V::Bytes bytes[Rows];
      for (int r = 0; r < Rows; ++r)
        bytes[r] = Split ? V::split_windows(from, offset, row_ahead[r]) : V::windows(from, offset, row_ahead[r]);
      for (int t = 0; t < Group; ++t, weight += width) {
        const auto order = V::order(mask + t * 4 * width);
        const auto share = V::load(weight);
        for (int r = 0; r < Rows; ++r)
          sum[r] = Windows == 1 && t == 0 ? V::product(V::pick(bytes[r], order), share)
                                          : V::add_product(V::pick(bytes[r], order), share, sum[r]);
      }
    }
    for (int r = 0; r < Rows; ++r) V::store(to + out_ahead[r], sum[r]);
  }
}

template <class V, int Group, bool Split>
void across_rows(const std::uint8_t* const* rows, int count, const Columns& columns, float* const* out) {
  if (count == together && columns.taps == Group) return across_group<V, Group, Split, together, 1>(rows, columns, out);
  if (count == together) return across_group<V, Group, Split, together, 0>(rows, columns, out);
  for (int r = 0; r < count; ++r) across_group<V, Group, Split, 1, 0>(rows + r, columns, out + r);
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

// Adds the weighted rows to the next Count vectors.
template <class V, int Count>
void add_rows(const float* const* rows, const float* weight, int count, std::int64_t at, typename V::Floats* sum) {
  for (int i = 0; i < count; ++i) {
    const float* row = rows[i] + at;
    const auto share = V::all(weight[i]);
    for (int j = 0; j < Count; ++j) sum[j] = V::add_product(V::load(row + j * 4 * V::lanes), share, sum[j]);
  }
}

template <class V, class T>
void store_some(T* to, typename V::Floats from, std::int64_t count, std::int64_t spare) {
  constexpr int width = 4 * V::lanes;
  if (count + spare >= width) return V::store(to, from);
  T values[width];
  V::store(values, from);
  for (std::int64_t i = 0; i < count; ++i) to[i] = values[i];
}

// C T H W of one or three channels: vectors that hold whole planes, and a shift that repeats. Two blocks at a time.
template <class V, class T, int Planes>
void down_planes(const float* const* rows, const float* weight, int count, const Columns& columns, const Place& place) {
  constexpr int width = 4 * V::lanes;
  T* out = static_cast<T*>(place.data);
  const std::int64_t plane = place.plane, pixels = place.pixels;
  typename V::Floats shift[Planes], sum[2 * Planes];
  for (int j = 0; j < Planes; ++j) shift[j] = V::load(columns.shift + j * width);
  std::int64_t x = 0;
  for (; x + 2 * width <= pixels; x += 2 * width) {
    for (int j = 0; j < 2 * Planes; ++j) sum[j] = shift[j % Planes];
    add_rows<V, 2 * Planes>(rows, weight, count, x * Planes, sum);
    if constexpr (Planes == 3) V::planes(sum[0], sum[1], sum[2]), V::planes(sum[3], sum[4], sum[5]);
    for (int j = 0; j < 2 * Planes; ++j) V::store(out + j % Planes * plane + x + j / Planes * width, sum[j]);
  }
  for (; x < pixels; x += width) {
    for (int j = 0; j < Planes; ++j) sum[j] = shift[j];
    add_rows<V, Planes>(rows, weight, count, x * Planes, sum);
    if constexpr (Planes == 3) V::planes(sum[0], sum[1], sum[2]);
    for (int j = 0; j < Planes; ++j) store_some<V>(out + j * plane + x, sum[j], pixels - x, place.spare);
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
    auto sum = V::load(columns.shift + at);
    add_rows<V, 1>(rows, weight, count, at, &sum);
    if (layout == Layout::thwc) {
      store_some<V>(out + at, sum, values - at, place.spare);
      continue;
    }
    T one[width];
    V::store(one, sum);
    for (std::int64_t i = 0; i < width && pixel < place.pixels; ++i) {
      out[channel * place.plane + pixel] = one[i];
      if (++channel == columns.channels) channel = 0, ++pixel;
    }
  }
}

template <class V, class T>
void down_typed(const float* const* rows, const float* weight, int count, const Columns& columns, Layout layout,
                const Place& place) {
  if (columns.planar)
    down_planes<V, T, 3>(rows, weight, count, columns, place);
  else if (columns.channels == 1)
    down_planes<V, T, 1>(rows, weight, count, columns, place);
  else
    down_values<V, T>(rows, weight, count, columns, layout, place);
}

template <class V>
void down(const float* const* rows, const float* weight, int count, const Columns& columns, DType dtype, Layout layout,
          const Place& place) {
  visit(dtype, [&](auto zero) { down_typed<V, decltype(zero)>(rows, weight, count, columns, layout, place); });
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
  visit(from.dtype, [&](auto zero) { to_floats_typed<V, decltype(zero)>(from, out); });
}

// Whole cache lines only: a non-temporal store of part of a line costs more than a cached store of the line.
template <class V>
void stream(char* to, const char* from, std::int64_t bytes) {
  constexpr std::int64_t line = 64, width = 16 * V::lanes;
  const std::int64_t ahead = -reinterpret_cast<std::intptr_t>(to) & (line - 1);
  std::int64_t done = ahead < bytes ? ahead : bytes;
  std::memcpy(to, from, done);
  for (; done + line <= bytes; done += line)
    for (std::int64_t i = done; i < done + line; i += width) V::stream(to + i, from + i);
  std::memcpy(to + done, from + done, bytes - done);
}

template <class V>
constexpr RowCode row_code(const char* name) {
  if constexpr (V::bytes)
    return {name, V::lanes, true, across_bytes<V>, across_floats<V>, down<V>, to_floats<V>, stream<V>, V::settle};
  else
    return {name, V::lanes, false, nullptr, across_floats<V>, down<V>, to_floats<V>, stream<V>, V::settle};
}

}  // namespace
}  // namespace multigrid
