#include "resample_columns.h"

#include <algorithm>
#include <cstring>

namespace multigrid {

void LineTable::fill(const Cells& cells, Filter filter) {
  const std::int64_t size = cells.size;
  first.resize(size);
  own.resize(size);
  position.resize(size);
  wanted.clear();
  count = 0;
  for (std::int64_t cell = 0; cell < size; ++cell) {
    const Taps taps = taps_of(cells, filter, cell);
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
    const double share = share_of(taps, filter);
    for (std::int64_t t = 0; t < taps.count; ++t) weight[i * count + t] = part_of(taps, filter, share, t);
  }
}

// Which value of the row, channel fastest, is kept in each slot of the filtered row. Slots past the last repeat it.
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

void ColumnTable::fill(const LineTable& line, std::int64_t lo, const Scale& scale, int lanes, bool planar, bool bytes) {
  const std::int64_t channels = static_cast<std::int64_t>(scale.times.size());
  lanes_ = lanes;
  const std::int64_t values = static_cast<std::int64_t>(line.first.size()) * channels;
  const std::int64_t block = 4 * lanes * (planar ? 3 : 1);
  columns_ = {};
  columns_.vectors = static_cast<int>((values + block - 1) / block * (planar ? 3 : 1));
  columns_.taps = line.count;
  columns_.channels = static_cast<int>(channels);
  columns_.planar = planar;
  order_values(values);
  start_.resize(value_.size());
  for (std::size_t slot = 0; slot < value_.size(); ++slot) {
    const std::int64_t pixel = line.first[pixel_[slot]] - lo, channel = value_[slot] - pixel_[slot] * channels;
    start_[slot] = static_cast<std::int32_t>(pixel * channels + channel);
  }
  const bool shuffled = choose_group(bytes);
  fill_weights(line, scale);
  if (shuffled)
    fill_bytes();
  else
    fill_floats(line);
}

// How many taps a window of 16 bytes, or of twice 8, holds for every quad; false if not even one.
bool ColumnTable::choose_group(bool bytes) {
  const std::int64_t channels = columns_.channels;
  std::int32_t whole = 1;
  for (std::size_t slot = 0; slot < start_.size(); slot += 4) {
    const auto ends = std::minmax_element(&start_[slot], &start_[slot] + 4);
    whole = std::max(whole, *ends.second - *ends.first + 1);
  }
  const bool split = whole > 16;
  if (!bytes || (split && channels == 1)) return false;  // of two or more channels, a quad touches at most two pixels
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

void ColumnTable::fill_weights(const LineTable& line, const Scale& scale) {
  const std::int64_t width = 4 * lanes_, channels = columns_.channels;
  float* weight = weight_.at_least(row_floats() * columns_.taps);
  float* shift = shift_.at_least(row_floats());
  columns_.weight = weight;
  columns_.shift = shift;
  for (std::int64_t slot = 0; slot < row_floats(); ++slot) {
    const std::int64_t pixel = pixel_[slot], channel = value_[slot] - pixel * channels;
    float* to = weight + slot / width * columns_.taps * width + slot % width;
    for (int t = 0; t < columns_.taps; ++t)
      to[t * width] = t < line.count ? line.weight[pixel * line.count + t] * scale.times[channel] : 0.0f;
    shift[slot] = scale.plus[channel];
  }
}

void ColumnTable::fill_floats(const LineTable& line) {
  const std::int64_t width = 4 * lanes_, channels = columns_.channels;
  std::int32_t* to = offset_.at_least(row_floats() * columns_.taps);
  columns_.offset = to;
  for (std::int64_t slot = 0; slot < row_floats(); slot += width)
    for (int t = 0; t < columns_.taps; ++t)
      for (std::int64_t i = 0; i < width; ++i) {
        const int own = line.own[pixel_[slot + i]];
        *to++ = start_[slot + i] + static_cast<std::int32_t>(t < own ? t * channels : 0);
      }
}

void ColumnTable::fill_bytes() {
  const int channels = columns_.channels, group = columns_.group, halves = columns_.split ? 2 : 1;
  const std::int64_t quads = row_floats() / 4, width = 16 * lanes_;
  std::int32_t* offset = offset_.at_least(quads * halves);
  std::uint8_t* mask = mask_.at_least(quads * group * 16);
  std::memset(mask, 0x80, quads * group * 16);  // a set top bit picks a zero
  columns_.offset = offset;
  columns_.mask = mask;
  std::int32_t furthest = 0;
  for (std::int64_t quad = 0; quad < quads; ++quad) {
    const std::int32_t* start = &start_[quad * 4];
    std::int32_t base[2] = {start[0], start[3]};
    bool high[4];
    for (int i = 0; i < 4; ++i) {
      high[i] = columns_.split && pixel_[quad * 4 + i] != pixel_[quad * 4];
      base[high[i]] = std::min(base[high[i]], start[i]);
    }
    for (int half = 0; half < halves; ++half) {
      *offset++ = base[half];
      furthest = std::max(furthest, base[half]);
    }
    std::uint8_t* at = mask + quad / lanes_ * group * width + quad % lanes_ * 16;
    for (int t = 0; t < group; ++t)
      for (int i = 0; i < 4; ++i)
        at[t * width + 4 * i] = static_cast<std::uint8_t>(start[i] - base[high[i]] + t * channels + (high[i] ? 8 : 0));
  }
  columns_.reach = furthest + std::int64_t{columns_.taps - group} * channels + 16 / halves;
}

}  // namespace multigrid
