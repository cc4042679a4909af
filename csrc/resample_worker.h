// Worker: what one thread of a CUDA block does, in phases between barriers. Host and device: tests run the phases on
// the host, one thread after the other, and compare with the CPU path.
//
// Source rows are staged in shared memory a few at a time, a word for a pixel (three bytes, or a float), so that every
// byte is asked for once, in whole words, however it is aligned. A thread owns two neighbouring columns of one plane:
// it keeps their taps in registers and walks down the rows, so that a source row is filtered once and an output row is
// stored once.
//
//   fill_tables | open, stage(0) | stage(1), walk(0) | stage(2), walk(1) | ...      each | a barrier
//
// stage and walk of one step touch different halves of the staged rows.
#pragma once

#include "resample_tile.h"

namespace multigrid {

template <class Kind, class Out>
class Worker {
 public:
  MULTIGRID_PHASE Worker(const Launch& launch, std::uint32_t tile, int thread, std::uint32_t* shared);
  MULTIGRID_PHASE void fill_tables();
  MULTIGRID_PHASE void open();
  MULTIGRID_PHASE int batches() const { return (slots_ + batch_ - 1) / batch_; }
  MULTIGRID_PHASE void stage(int batch) const;
  MULTIGRID_PHASE void walk(int batch) { many_ ? walk_rows<true>(batch) : walk_rows<false>(batch); }

 private:
  static constexpr int channels = Kind::channels, values = 2 * channels;

  MULTIGRID_PHASE PlaneRows& plane_rows(int plane) const { return reinterpret_cast<PlaneRows*>(shared_)[plane]; }
  MULTIGRID_PHASE std::uint32_t* row_at(int row) const { return shared_ + rows_at_ + row * (2 + row_taps_); }
  MULTIGRID_PHASE std::int32_t first_of(int row) const { return static_cast<std::int32_t>(row_at(row)[0]); }
  MULTIGRID_PHASE std::int32_t count_of(int row) const { return static_cast<std::int32_t>(row_at(row)[1]); }
  MULTIGRID_PHASE float weight_of_row(int row, int tap) const { return from_bits(row_at(row)[2 + tap]); }
  MULTIGRID_PHASE std::uint32_t& late_weight(int tap, int column) const {
    return shared_[columns_at_ + (tap - kept_taps) * 2 * pairs_ + column];
  }
  MULTIGRID_PHASE std::uint32_t* staged_row(int batch, int plane, int frame, int slot) const {
    return shared_ + staged_at_ + (((batch & 1) * most_rows_ + plane * frames_ + frame) * batch_ + slot) * row_words_;
  }
  MULTIGRID_PHASE int last_slot(int row) const {
    return skip_ ? (row + 1) * row_taps_ - 1 : first_of(row) + count_of(row) - 1 - first_of(0);
  }
  MULTIGRID_PHASE int source_row(int slot) const;

  MULTIGRID_PHASE void choose_columns(const Cells& w);
  MULTIGRID_PHASE void fill_plane(int plane) const;
  MULTIGRID_PHASE void fill_row(const Cells& h, int row) const;
  MULTIGRID_PHASE void stage_packed(const char* from, std::uint32_t* to, int lane) const;
  MULTIGRID_PHASE void stage_one(const char* from, std::uint32_t* to, float times) const;
  MULTIGRID_PHASE void filter_across(const std::uint32_t* row, float* sum) const;
  MULTIGRID_PHASE void filter_plane(int batch, int slot, float* sum) const;
  MULTIGRID_PHASE void add_row(int row, int slot, const float* filtered, float* sum) const;
  template <bool Many>
  MULTIGRID_PHASE void walk_rows(int batch);
  MULTIGRID_PHASE void store(int row, const float* value) const;

  const Launch& launch_;
  const Source& source_;
  std::uint32_t* const shared_;
  const int thread_, pairs_, frames_;  // frames: two where they are blended
  // The tile's first plane and row, how many of each, and the source columns lo <= x < lo + width.
  int plane0_, row0_, tile_planes_, tile_rows_, lo_, width_;
  // Where things are in shared memory, in words. A slot is a source row in the order in which the cells need it.
  int row_taps_, column_taps_, rows_at_, columns_at_, staged_at_, most_rows_, row_words_, batch_, slots_ = 0;
  bool many_, skip_;  // more than two rows to a cell; rows that no cell looks at lie between
  // The thread's own plane, or -1, its pair of columns in the tile and in the clip, and what it carries down the rows:
  // the filtered row before, or the sums of this cell and the next.
  int plane_, pair_, column_, row_ = 0, first_[2] = {};
  float weight_[2][kept_taps] = {}, times_[channels], plus_[channels], kept_[2][values] = {};
  Out* out_;
  std::int64_t out_row_, out_pixel_, out_channel_;
};

template <class Kind, class Out>
MULTIGRID_PHASE Worker<Kind, Out>::Worker(const Launch& launch, std::uint32_t tile, int thread, std::uint32_t* shared)
    : launch_(launch),
      source_(launch.sources[tile / (launch.tiling.across * launch.tiling.down * launch.tiling.in_depth)]),
      shared_(shared),
      thread_(thread),
      pairs_(launch.tiling.pairs),
      frames_(launch.blend ? 2 : 1) {
  const Tiling& tiling = launch.tiling;
  const Cells h = cells_of(source_, 1, launch.h), w = cells_of(source_, 2, launch.w);
  const std::uint32_t sheet = tile / tiling.across, stack = sheet / tiling.down, clip = stack / tiling.in_depth;
  row0_ = sheet % tiling.down * tiling.rows;
  plane0_ = stack % tiling.in_depth * tiling.planes;
  tile_rows_ = launch.h - row0_ < tiling.rows ? launch.h - row0_ : tiling.rows;
  tile_planes_ = launch.planes() - plane0_ < tiling.planes ? launch.planes() - plane0_ : tiling.planes;
  const Room room(tiling, h, w, launch.filter);
  row_taps_ = room.row_taps, column_taps_ = room.column_taps;
  rows_at_ = room.rows, columns_at_ = room.columns, staged_at_ = room.staged;
  many_ = row_taps_ > 2;
  skip_ = !many_ && h.span > row_taps_ * static_cast<double>(launch.h);

  plane_ = thread / pairs_, pair_ = thread % pairs_;
  const int column0 = static_cast<int>(tile % tiling.across) * 2 * pairs_;
  column_ = column0 + 2 * pair_;
  const int end = column0 + 2 * pairs_ < launch.w ? column0 + 2 * pairs_ : launch.w;
  if (plane_ >= tile_planes_ || column_ >= launch.w) plane_ = -1;
  const Taps low = taps_of(w, launch.filter, w.reversed ? launch.w - end : column0);
  const Taps high = taps_of(w, launch.filter, w.reversed ? launch.w - 1 - column0 : end - 1);
  lo_ = static_cast<int>(low.first);
  width_ = static_cast<int>(high.first + high.count) - lo_;
  row_words_ = row_words(width_, column_taps_);
  most_rows_ = tiling.planes * frames_;
  batch_ = (tiling.words - staged_at_) / (2 * most_rows_ * row_words_);
  if (plane_ < 0) return;

  const std::int64_t plane = plane0_ + plane_, frame = plane % launch.t, channel = plane / launch.t;
  const bool planar = launch.layout == Layout::cthw;
  out_pixel_ = planar ? 1 : launch.c;
  out_row_ = launch.w * out_pixel_;
  out_channel_ = planar ? std::int64_t{launch.t} * launch.h * launch.w : 1;
  out_ = static_cast<Out*>(launch.out) + clip * (std::int64_t{launch.c} * launch.t * launch.h * launch.w) +
         frame * launch.h * out_row_ + channel * out_channel_ + column_ * out_pixel_ +
         (h.reversed ? launch.h - 1 - row0_ : row0_) * out_row_;
  if (h.reversed) out_row_ = -out_row_;
  const float* times = launch.times[source_.dtype == static_cast<int>(DType::u8)];
  for (int c = 0; c < channels; ++c) {
    times_[c] = times[(channel + c) % most_channels];
    plus_[c] = launch.plus[(channel + c) % most_channels];
  }
  choose_columns(w);
}

// The taps of the thread's two columns. Those past the ones kept are the same in all planes.
template <class Kind, class Out>
MULTIGRID_PHASE void Worker<Kind, Out>::choose_columns(const Cells& w) {
  for (int p = 0; p < 2; ++p) {
    const int column = column_ + p < launch_.w ? column_ + p : column_;
    const Taps taps = taps_of(w, launch_.filter, w.placed(column));
    const double share = share_of(taps, launch_.filter);
    first_[p] = static_cast<int>(taps.first) - lo_;
    for (int t = 0; t < kept_taps; ++t)
      weight_[p][t] = t < taps.count ? part_of(taps, launch_.filter, share, t) : 0.0f;
    for (int t = kept_taps; plane_ == 0 && t < column_taps_; ++t)
      late_weight(t, 2 * pair_ + p) = t < taps.count ? bits_of(part_of(taps, launch_.filter, share, t)) : 0u;
  }
}

template <class Kind, class Out>
MULTIGRID_PHASE void Worker<Kind, Out>::fill_tables() {
  const Cells h = cells_of(source_, 1, launch_.h);
  for (int row = thread_; row < tile_rows_; row += launch_.tiling.threads) fill_row(h, row);
  for (int plane = thread_; plane < tile_planes_; plane += launch_.tiling.threads) fill_plane(plane);
}

template <class Kind, class Out>
MULTIGRID_PHASE void Worker<Kind, Out>::fill_row(const Cells& h, int row) const {
  const Taps taps = taps_of(h, launch_.filter, row0_ + row);
  const double share = share_of(taps, launch_.filter);
  const int count = taps.count < row_taps_ ? static_cast<int>(taps.count) : row_taps_;
  row_at(row)[0] = static_cast<std::uint32_t>(taps.first);
  row_at(row)[1] = static_cast<std::uint32_t>(count);
  for (int t = 0; t < count; ++t) row_at(row)[2 + t] = bits_of(part_of(taps, launch_.filter, share, t));
}

template <class Kind, class Out>
MULTIGRID_PHASE void Worker<Kind, Out>::fill_plane(int plane) const {
  const int index = plane0_ + plane, frame = index % launch_.t, channel = index / launch_.t;
  const Cells t = cells_of(source_, 0, launch_.t);
  const Short beyond = static_cast<Short>(source_.beyond);
  std::int64_t frames[2] = {0, 0};
  float share[2] = {1, 0};
  if (launch_.blend) {
    const Taps taps = taps_of(t, Filter::linear, t.placed(frame));
    const double whole = share_of(taps, Filter::linear);
    for (int f = 0; f < 2 && f < taps.count; ++f) {
      frames[f] = wrapped(taps.first + f, source_.t, beyond);
      share[f] = part_of(taps, Filter::linear, whole, f);
    }
    if (frames[0] == frames[1]) share[0] += share[1], share[1] = 0;
  } else {
    frames[0] = wrapped(frame_of(t, t.placed(frame)), source_.t, beyond);
  }
  const char* data = source_.data + channel * source_.pitch_c;
  plane_rows(plane) = {{data + frames[0] * source_.pitch_t, data + frames[1] * source_.pitch_t}, {share[0], share[1]}};
}

template <class Kind, class Out>
MULTIGRID_PHASE void Worker<Kind, Out>::open() {
  slots_ = last_slot(tile_rows_ - 1) + 1;
}

template <class Kind, class Out>
MULTIGRID_PHASE int Worker<Kind, Out>::source_row(int slot) const {
  if (!skip_) return first_of(0) + slot;
  const int row = slot / row_taps_, tap = slot % row_taps_;
  return first_of(row) + (tap < count_of(row) ? tap : count_of(row) - 1);
}

// A warp takes a row, a lane four pixels at a time, or one.
template <class Kind, class Out>
MULTIGRID_PHASE void Worker<Kind, Out>::stage(int batch) const {
  const int begin = batch * batch_, count = slots_ - begin < batch_ ? slots_ - begin : batch_;
  const int rows = tile_planes_ * frames_ * count, lane = thread_ % 32;
  for (int i = thread_ / 32; i < rows; i += launch_.tiling.threads / 32) {
    const int slot = i % count, frame = i / count % frames_, plane = i / count / frames_;
    const PlaneRows& from = plane_rows(plane);
    if (frame == 1 && from.share[1] == 0) continue;
    const char* row = from.frame[frame] + source_row(begin + slot) * source_.pitch_h + lo_ * source_.pitch_w;
    std::uint32_t* to = staged_row(batch, plane, frame, slot);
    if constexpr (channels == 3) {
      if (source_.pitch_w == 3 && source_.pitch_c == 1) {
        stage_packed(row, to, lane);
        continue;
      }
    }
    const float times = launch_.times[source_.dtype == static_cast<int>(DType::u8)]
                                     [(plane0_ + plane) / launch_.t % most_channels];
    for (int x = lane; x < width_; x += 32) stage_one(row + x * source_.pitch_w, to + x, times);
  }
}

template <class Kind, class Out>
MULTIGRID_PHASE void Worker<Kind, Out>::stage_one(const char* from, std::uint32_t* to, float times) const {
  if constexpr (channels == 3) {
    std::uint32_t word = 0;
    for (int c = 0; c < 3; ++c) word |= std::uint32_t{read<std::uint8_t>(from + c * source_.pitch_c)} << 8 * c;
    *to = word;
  } else {
    float value;
    switch (static_cast<DType>(source_.dtype)) {
      case DType::u8:
        value = to_float(read<std::uint8_t>(from));
        break;
      case DType::f16:
        value = to_float(read<Half>(from));
        break;
      case DType::bf16:
        value = to_float(read<Bfloat16>(from));
        break;
      default:
        value = read<float>(from);
    }
    *to = bits_of(value * times);
  }
}

// Twelve bytes are four pixels, and lie in three or four aligned words. Only next to the ends of the video's memory
// would such a word hold foreign bytes.
template <class Kind, class Out>
MULTIGRID_PHASE void Worker<Kind, Out>::stage_packed(const char* from, std::uint32_t* to, int lane) const {
  const int chunks = (width_ + 3) / 4, ahead = static_cast<int>(reinterpret_cast<std::uintptr_t>(from) & 3);
  const Extent extent(source_);
  const bool inside = from - ahead >= extent.begin && from + 12 * chunks + 4 <= extent.end;
  for (int chunk = lane; chunk < chunks; chunk += 32) {
    const char* word = from - ahead + 12 * chunk;
    std::uint32_t words[4] = {};
    if (inside) {
      for (int i = 0; i < 3; ++i) words[i] = read_word(word + 4 * i);
      if (ahead) words[3] = read_word(word + 12);
    } else {
      for (int i = 0; i < 16; ++i)
        if (word + i >= extent.begin && word + i < extent.end)
          words[i / 4] |= std::uint32_t{read<std::uint8_t>(word + i)} << i % 4 * 8;
    }
    for (int i = 0; i < 3; ++i) words[i] = shifted(words[i], words[i + 1], 8 * ahead);
    write_words(to + 4 * chunk, words[0], shifted(words[0], words[1], 24), shifted(words[1], words[2], 16),
                words[2] >> 8);
  }
}

template <class Kind, class Out>
MULTIGRID_PHASE void Worker<Kind, Out>::filter_across(const std::uint32_t* row, float* sum) const {
  for (int t = 0; t < kept_taps; ++t)
    if (t < column_taps_)
      for (int p = 0; p < 2; ++p) Kind::add(sum + p * channels, row[first_[p] + t], weight_[p][t], times_);
  for (int t = kept_taps; t < column_taps_; ++t)
    for (int p = 0; p < 2; ++p)
      Kind::add(sum + p * channels, row[first_[p] + t], from_bits(late_weight(t, 2 * pair_ + p)), times_);
}

template <class Kind, class Out>
MULTIGRID_PHASE void Worker<Kind, Out>::filter_plane(int batch, int slot, float* sum) const {
  filter_across(staged_row(batch, plane_, 0, slot), sum);
  if (frames_ == 1) return;
  const float first = plane_rows(plane_).share[0], second = plane_rows(plane_).share[1];
  for (int v = 0; v < values; ++v) sum[v] *= first;
  if (second == 0) return;
  float later[values] = {};
  filter_across(staged_row(batch, plane_, 1, slot), later);
  for (int v = 0; v < values; ++v) sum[v] += second * later[v];
}

template <class Kind, class Out>
MULTIGRID_PHASE void Worker<Kind, Out>::add_row(int row, int slot, const float* filtered, float* sum) const {
  if (row >= tile_rows_) return;
  const int tap = first_of(0) + slot - first_of(row);
  if (tap < 0 || tap >= count_of(row)) return;
  const float weight = weight_of_row(row, tap);
  for (int v = 0; v < values; ++v) sum[v] += filtered[v] * weight;
}

// Many: cells are wider than a pixel, and a source row lies in two of them at most. Else a cell is a mix of two source
// rows, and a source row may lie in many cells.
template <class Kind, class Out>
template <bool Many>
MULTIGRID_PHASE void Worker<Kind, Out>::walk_rows(int batch) {
  if (plane_ < 0) return;
  const int begin = batch * batch_, end = slots_ < begin + batch_ ? slots_ : begin + batch_;
  for (int slot = begin; slot < end; ++slot) {
    float next[values] = {}, value[values];
    filter_plane(batch, slot - begin, next);
    if (Many) add_row(row_, slot, next, kept_[0]), add_row(row_ + 1, slot, next, kept_[1]);
    for (; row_ < tile_rows_ && last_slot(row_) <= slot; ++row_) {
      const bool mixed = !Many && count_of(row_) == 2;
      const float above = mixed ? weight_of_row(row_, 0) : 0, here = Many ? 0 : weight_of_row(row_, mixed);
      for (int v = 0; v < values; ++v) {
        value[v] = Many ? kept_[0][v] + plus_[v % channels] : next[v] * here + plus_[v % channels];
        if (mixed) value[v] += kept_[0][v] * above;
        if (Many) kept_[0][v] = kept_[1][v], kept_[1][v] = 0;
      }
      store(row_, value);
    }
    if (!Many)
      for (int v = 0; v < values; ++v) kept_[0][v] = next[v];
  }
}

template <class Kind, class Out>
MULTIGRID_PHASE void Worker<Kind, Out>::store(int row, const float* value) const {
  Out* to = out_ + row * out_row_;
  if (launch_.paired && out_pixel_ == 1) {
    for (int c = 0; c < channels; ++c) assign_pair(to + c * out_channel_, value[c], value[channels + c]);
  } else if (launch_.paired) {
    for (int i = 0; i < channels; ++i) assign_pair(to + 2 * i, value[2 * i], value[2 * i + 1]);
  } else {
    for (int p = 0; p < 2 && column_ + p < launch_.w; ++p)
      for (int c = 0; c < channels; ++c) assign(to[p * out_pixel_ + c * out_channel_], value[p * channels + c]);
  }
}

}  // namespace multigrid
