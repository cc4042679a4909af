#include "resample/cpu/columns.h"

#include <algorithm>
#include <cstring>

namespace multigrid {
namespace {

// The taps [from, from + count) of each cell. A cell with fewer taps gets weights of 0: for bytes on any pixel, for
// floats on a pixel of the cell, since any other may be a NaN.
void fill_part(LineTable& part, const LineTable& line, int from, int count, bool bytes) {
  const std::size_t size = line.first.size();
  part.count = count;
  part.first.resize(size);
  part.own.resize(size);
  part.weight.assign(size * count, 0.0f);
  for (std::size_t i = 0; i < size; ++i) {
    const int own = line.own[i] - from;
    part.first[i] = line.first[i] + (bytes || own > 0 ? from : line.own[i] - 1);
    part.own[i] = std::clamp(own, 1, count);
    for (int t = 0; t < std::min(own, count); ++t) part.weight[i * count + t] = line.weight[i * line.count + from + t];
  }
}

}  // namespace

void LineTable::fill(const Cells& cells, Filter filter, Pulse& pulse) {
  const std::int64_t size = cells.size;
  first.resize(size);
  own.resize(size);
  position.resize(size);
  wanted.clear();
  count = 0;
  for (std::int64_t cell = 0; cell < size; ++cell) {
    const Taps taps = taps_of(cells, filter, cell);
    pulse.beat(16);
    count = std::max(count, static_cast<int>(taps.count));
  }
  weight.assign(size * count, 0.0f);
  for (std::int64_t cell = 0; cell < size; ++cell) {
    const std::int64_t i = cells.placed(cell);
    const Taps taps = taps_of(cells, filter, cell);
    first[i] = taps.first;
    own[i] = static_cast<int>(taps.count);
    const std::int64_t next = wanted.empty() ? taps.first : std::max(taps.first, wanted.back() + 1);
    for (std::int64_t k = next; k < taps.first + taps.count; ++k) wanted.push_back(k);
    position[i] = static_cast<std::int64_t>(wanted.size()) - taps.count;
    pulse.beat(16 * taps.count);
    const double share = share_of(taps, filter);
    for (std::int64_t t = 0; t < taps.count; ++t) weight[i * count + t] = part_of(taps, filter, share, t);
  }
}

// The index in the row (channel fastest) of the value in each slot of the filtered row. Slots past the last repeat it.
void ColumnTable::order_values(std::int64_t values) {
  const std::int32_t channels = columns_.channels, lanes = lanes_, vectors = columns_.planar ? 3 : 1;
  value_.clear();
  for (std::int32_t block = 0; block < columns_.vectors * lanes; block += vectors * lanes)
    for (std::int32_t vector = 0; vector < vectors; ++vector)
      for (std::int32_t lane = 0; lane < lanes; ++lane)
        for (std::int32_t i = 0; i < 4; ++i) {
          const std::int32_t value = (block + vectors * lane + vector) * 4 + i;
          value_.push_back(std::min(value, static_cast<std::int32_t>(values) - 1));
        }
  pixel_.clear();
  for (const std::int32_t value : value_) pixel_.push_back(value / channels);
}

void ColumnTable::fill(const LineTable& line, std::int64_t lo, std::int64_t hi, const Scale& scale, int lanes,
                       bool planar, bool bytes, Pulse& pulse) {
  const std::int64_t channels = static_cast<std::int64_t>(scale.times.size());
  lanes_ = lanes;
  const std::int64_t values = static_cast<std::int64_t>(line.first.size()) * channels;
  const std::int64_t block = 4 * lanes * (planar ? 3 : 1);
  columns_ = {};
  columns_.vectors = static_cast<int>((values + block - 1) / block * (planar ? 3 : 1));
  columns_.taps = line.count;
  columns_.channels = static_cast<int>(channels);
  columns_.planar = planar;
  pulse.beat(4 * values);
  order_values(values);
  start_.resize(value_.size());
  for (std::size_t slot = 0; slot < value_.size(); ++slot) {
    const std::int64_t pixel = line.first[pixel_[slot]] - lo, channel = value_[slot] - pixel_[slot] * channels;
    start_[slot] = static_cast<std::int32_t>(pixel * channels + channel);
  }
  early_.assign(value_.size(), 0);
  const bool shuffled = choose_group(bytes);
  if (shuffled) end_inside(hi - lo);
  fill_weights(line, scale, pulse);
  if (shuffled)
    fill_bytes((hi - lo) * channels, pulse);
  else
    fill_floats(line, pulse);
}

// How many taps a window of 16 bytes, or two windows of 8, hold for every quad; false if less than one.
bool ColumnTable::choose_group(bool bytes) {
  const std::int64_t channels = columns_.channels;
  std::int32_t whole = 1;
  for (std::size_t slot = 0; slot < start_.size(); slot += 4) {
    const auto ends = std::minmax_element(&start_[slot], &start_[slot] + 4);
    whole = std::max(whole, *ends.second - *ends.first + 1);
  }
  const bool split = whole > 16;
  if (!bytes || (split && channels == 1)) return false;  // with two or more channels a quad touches at most two pixels
  const std::int64_t most = split ? 1 + (8 - 4) / channels : 1 + (16 - whole) / channels;
  int best = 1, least = 0;
  for (int group = 1; group <= std::min<std::int64_t>(most, 4); ++group) {
    const int cost = (columns_.taps + group - 1) / group * (group + 1);
    if (group == 1 || cost < least) best = group, least = cost;
  }
  columns_.split = split;
  columns_.group = best;
  columns_.taps = (columns_.taps + best - 1) / best * best;
  return true;
}

// Cells at the row's end have fewer taps. They are placed last among a full number of taps, so that none is past the
// row.
void ColumnTable::end_inside(std::int64_t pixels) {
  const std::int32_t channels = columns_.channels;
  const auto last = static_cast<std::int32_t>(std::max<std::int64_t>(0, pixels - columns_.taps));
  for (std::size_t slot = 0; slot < start_.size(); ++slot) {
    early_[slot] = std::max(0, start_[slot] / channels - last);
    start_[slot] -= early_[slot] * channels;
  }
}

void ColumnTable::fill_weights(const LineTable& line, const Scale& scale, Pulse& pulse) {
  const std::int64_t width = 4 * lanes_, channels = columns_.channels;
  float* weight = weight_.at_least(row_floats() * columns_.taps);
  float* shift = shift_.at_least(row_floats());
  columns_.weight = weight;
  columns_.shift = shift;
  for (std::int64_t slot = 0; slot < row_floats(); ++slot) {
    const std::int64_t pixel = pixel_[slot], channel = value_[slot] - pixel * channels;
    pulse.beat(columns_.taps);
    float* to = weight + slot / width * columns_.taps * width + slot % width;
    for (int t = 0; t < columns_.taps; ++t) {
      const int own = t - early_[slot];
      const bool any = own >= 0 && own < line.count;
      to[t * width] = any ? line.weight[pixel * line.count + own] * scale.times[channel] : 0.0f;
    }
    shift[slot] = scale.plus[channel];
  }
}

void ColumnTable::fill_floats(const LineTable& line, Pulse& pulse) {
  const std::int64_t width = 4 * lanes_, channels = columns_.channels;
  std::int32_t* to = offset_.at_least(row_floats() * columns_.taps);
  columns_.offset = to;
  for (std::int64_t slot = 0; slot < row_floats(); slot += width) {
    pulse.beat(width * columns_.taps);
    for (int t = 0; t < columns_.taps; ++t)
      for (std::int64_t i = 0; i < width; ++i) {
        const int own = line.own[pixel_[slot + i]];
        *to++ = start_[slot + i] + static_cast<std::int32_t>(t < own ? t * channels : 0);
      }
  }
}

// A window that would end past the row's `width` bytes is moved back, as far as its taps stay in it.
void ColumnTable::fill_bytes(std::int64_t width, Pulse& pulse) {
  const int channels = columns_.channels, group = columns_.group, halves = columns_.split ? 2 : 1;
  const int window = 16 / halves, vector = 16 * lanes_;
  const std::int64_t quads = row_floats() / 4, last_window = std::int64_t{columns_.taps - group} * channels;
  std::int32_t* offset = offset_.at_least(quads * halves);
  std::uint8_t* mask = mask_.at_least(quads * group * 16);
  std::memset(mask, 0x80, quads * group * 16);  // a set top bit selects zero
  columns_.offset = offset;
  columns_.mask = mask;
  std::int32_t furthest = 0;
  for (std::int64_t quad = 0; quad < quads; ++quad) {
    pulse.beat(4 * group);
    const std::int32_t* start = &start_[quad * 4];
    std::int32_t base[2] = {start[0], start[3]}, top[2] = {0, 0};
    int half_of[4];
    for (int i = 0; i < 4; ++i) {
      const int half = half_of[i] = columns_.split && pixel_[quad * 4 + i] != pixel_[quad * 4];
      base[half] = std::min(base[half], start[i]);
      top[half] = std::max(top[half], start[i]);
    }
    for (int half = 0; half < halves; ++half) {
      const std::int64_t behind = std::max<std::int64_t>(0, base[half] + last_window + window - width);
      const int room = std::min(window - (top[half] - base[half] + (group - 1) * channels + 1), base[half]);
      base[half] -= static_cast<std::int32_t>(std::min<std::int64_t>(behind, room));
      *offset++ = base[half];
      furthest = std::max(furthest, base[half]);
    }
    std::uint8_t* at = mask + quad / lanes_ * group * vector + quad % lanes_ * 16;
    for (int t = 0; t < group; ++t)
      for (int i = 0; i < 4; ++i)
        at[t * vector + 4 * i] =
            static_cast<std::uint8_t>(start[i] - base[half_of[i]] + t * channels + window * half_of[i]);
  }
  columns_.reach = furthest + last_window + window;
}

void ColumnTables::fill(const LineTable& line, std::int64_t lo, std::int64_t hi, const Scale& scale,
                        const RowCode& code, bool planar, bool bytes, Pulse& pulse) {
  used_ = line.count <= most_summed ? 1 : (line.count + summed_together - 1) / summed_together;
  if (tables_.size() < used_) tables_.resize(used_);
  if (used_ == 1) {
    tables_[0].fill(line, lo, hi, scale, code.lanes, planar, bytes, pulse);
    reach_ = columns().reach;
    return;
  }
  reach_ = 0;
  for (std::size_t p = 0; p < used_; ++p) {
    const int from = static_cast<int>(p) * summed_together;
    fill_part(part_, line, from, std::min(line.count - from, summed_together), p == 0 ? bytes : of_bytes());
    tables_[p].fill(part_, lo, hi, scale, code.lanes, planar, p == 0 ? bytes : of_bytes(), pulse);
    reach_ = std::max(reach_, tables_[p].columns().reach);
  }
}

// Adds the sums of all tables.
template <class Across>
void ColumnTables::add_tables(int count, float* const* out, Across across) {
  const std::int64_t width = row_floats();
  float* parts[together];
  for (int r = 0; r < count; ++r) parts[r] = floats_.at_least(count * width) + r * width;
  sums_.assign(count * width, 0.0);
  for (std::size_t p = 0; p < used_; ++p) {
    across(tables_[p].columns(), parts);
    for (std::int64_t i = 0; i < count * width; ++i) sums_[i] += parts[0][i];
  }
  for (int r = 0; r < count; ++r)
    for (std::int64_t i = 0; i < width; ++i) out[r][i] = static_cast<float>(sums_[r * width + i]);
}

void ColumnTables::across_bytes(const RowCode& code, const std::uint8_t* const* rows, int count, float* const* out) {
  if (used_ == 1) return code.across_bytes(rows, count, columns(), out);
  add_tables(count, out, [&](const Columns& part, float* const* to) { code.across_bytes(rows, count, part, to); });
}

void ColumnTables::across_floats(const RowCode& code, const float* row, float* out) {
  if (used_ == 1) return code.across_floats(row, columns(), out);
  add_tables(1, &out, [&](const Columns& part, float* const* to) { code.across_floats(row, part, to[0]); });
}

}  // namespace multigrid
