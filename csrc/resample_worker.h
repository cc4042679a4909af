// Worker: what one thread of a CUDA block does, in phases between barriers. Host and device: tests run the phases on
// the host, one thread after the other, and compare with the CPU path.
//
// Source rows are staged in shared memory a few at a time, a word for a pixel (three bytes, or a float), so that every
// byte is asked for once, in whole words, however it is aligned. A thread owns two neighbouring columns of one plane:
// it keeps their taps in registers and walks down the rows, so that a source row is filtered once and an output row is
// stored once.
//
//   made | fill_tables | stage(0) | stage(1), walk(0) | stage(2), walk(1) | ...      each | a barrier
//
// What is staged and what is walked between two barriers are different halves of the staged rows.
#pragma once

#include "resample_tile.h"

namespace multigrid {

// Of one tile, at the head of its shared memory: what all threads of the block know. A slot is a source row, in the
// order in which the cells need it.
struct Tile {
  std::int32_t row, plane, rows, planes, low, width;  // first output row and plane, how many, and the source columns
  std::int32_t row_taps, column_taps, batch;          // batch: slots that are staged together
  std::int32_t rows_at, columns_at, staged_at, staged_words;  // in words
  bool many, skip;          // cells of more than two rows; rows between them that none needs
  bool packed;              // three bytes a pixel, side by side
  const char *begin, *end;  // of the video's memory
};

static_assert(sizeof(Tile) <= 4 * planes_at);

template <class Kind, class Out>
class Worker {
 public:
  MULTIGRID_PHASE Worker(const Launch& launch, std::uint32_t tile, int thread, std::uint32_t* shared);
  MULTIGRID_PHASE void fill_tables();
  MULTIGRID_PHASE int batches() const { return (slots() + tile().batch - 1) / tile().batch; }
  MULTIGRID_PHASE void stage(int batch) const;
  MULTIGRID_PHASE void walk(int batch) { tile().many ? walk_rows<true>(batch) : walk_rows<false>(batch); }

 private:
  static constexpr int channels = Kind::channels, values = 2 * channels;

  MULTIGRID_PHASE Tile& tile() const { return *reinterpret_cast<Tile*>(shared_); }
  MULTIGRID_PHASE PlaneRows& plane_rows(int plane) const {
    return reinterpret_cast<PlaneRows*>(shared_ + planes_at)[plane];
  }
  MULTIGRID_PHASE std::uint32_t* row_at(int row) const {
    return shared_ + tile().rows_at + row * (2 + tile().row_taps);
  }
  MULTIGRID_PHASE int first_of(int row) const { return static_cast<int>(row_at(row)[0]); }
  MULTIGRID_PHASE int count_of(int row) const { return static_cast<int>(row_at(row)[1]); }
  MULTIGRID_PHASE float weight_of_row(int row, int tap) const { return from_bits(row_at(row)[2 + tap]); }
  MULTIGRID_PHASE std::uint32_t* late_weights(int tap) const {
    return shared_ + tile().columns_at + (tap - kept_taps) * 2 * launch_.tiling.pairs + 2 * pair_;
  }
  MULTIGRID_PHASE std::uint32_t* staged_row(int batch, int plane, int frame, int slot) const {
    const int frames = launch_.blend ? 2 : 1, half = (batch & 1) * launch_.tiling.planes * frames;
    return shared_ + tile().staged_at + ((half + plane * frames + frame) * tile().batch + slot) * tile().staged_words;
  }
  MULTIGRID_PHASE int last_slot(int row) const {
    return tile().skip ? (row + 1) * tile().row_taps - 1 : first_of(row) + count_of(row) - 1 - first_of(0);
  }
  MULTIGRID_PHASE float plus(int c) const { return channels == 1 ? plus_ : launch_.plus[c]; }
  MULTIGRID_PHASE int slots() const { return last_slot(tile().rows - 1) + 1; }
  MULTIGRID_PHASE int source_row(int slot) const;

  MULTIGRID_PHASE void choose_columns(const Cells& w);
  MULTIGRID_PHASE void fill_plane(int plane) const;
  MULTIGRID_PHASE void fill_row(const Cells& h, int row) const;
  MULTIGRID_PHASE static int ahead_of(const char* from) {
    return static_cast<int>(reinterpret_cast<std::uintptr_t>(from) & 3);
  }
  MULTIGRID_PHASE void stage_packed(const char* from, std::uint32_t* to, int lane) const;
  MULTIGRID_PHASE void stage_one(const char* from, std::uint32_t* to, float times) const;
  MULTIGRID_PHASE void filter_across(const std::uint32_t* row, int taps, float share, float* sum) const;
  MULTIGRID_PHASE void filter_plane(const std::uint32_t* row, int taps, float* sum) const;
  MULTIGRID_PHASE void add_row(int row, int slot, const float* filtered, float* sum) const;
  template <bool Many>
  MULTIGRID_PHASE void walk_rows(int batch);
  MULTIGRID_PHASE void store(const float* value);

  const Launch& launch_;
  const Source& source_;
  std::uint32_t* const shared_;
  const int thread_;
  // The thread's plane in the tile, or -1, its pair of columns in the tile and in the clip, and what it carries down
  // the rows: the filtered row before, or the sums of this cell and the next.
  int plane_, pair_, column_, row_ = 0, first_[2] = {};
  float weight_[2][kept_taps] = {}, kept_[2][values] = {}, plus_;
  Out* out_;
  bool upwards_;
};

template <class Kind, class Out>
MULTIGRID_PHASE Worker<Kind, Out>::Worker(const Launch& launch, std::uint32_t index, int thread, std::uint32_t* shared)
    : launch_(launch),
      source_(launch.sources[index / (launch.tiling.across * launch.tiling.down * launch.tiling.in_depth)]),
      shared_(shared),
      thread_(thread) {
  const Tiling& tiling = launch.tiling;
  const Cells h = cells_of(source_, 1, launch.h), w = cells_of(source_, 2, launch.w);
  const std::uint32_t sheet = index / tiling.across, stack = sheet / tiling.down, clip = stack / tiling.in_depth;
  const TileRoom room(tiling, h, w, launch.filter);
  Tile tile;
  tile.row = sheet % tiling.down * tiling.rows;
  tile.rows = launch.h - tile.row < tiling.rows ? launch.h - tile.row : tiling.rows;
  tile.plane = stack % tiling.in_depth * tiling.planes;
  tile.planes = launch.planes() - tile.plane < tiling.planes ? launch.planes() - tile.plane : tiling.planes;
  tile.row_taps = room.row_taps, tile.column_taps = room.column_taps;
  tile.rows_at = room.rows, tile.columns_at = room.columns, tile.staged_at = room.staged;
  tile.many = tile.row_taps > 2;
  tile.skip = !tile.many && h.span > tile.row_taps * static_cast<double>(launch.h);
  const int column0 = static_cast<int>(index % tiling.across) * 2 * tiling.pairs;
  const int end = column0 + 2 * tiling.pairs < launch.w ? column0 + 2 * tiling.pairs : launch.w;
  const Taps low = taps_of(w, launch.filter, w.reversed ? launch.w - end : column0);
  const Taps high = taps_of(w, launch.filter, w.reversed ? launch.w - 1 - column0 : end - 1);
  tile.low = static_cast<int>(low.first);
  tile.width = static_cast<int>(high.first + high.count) - tile.low;
  tile.staged_words = row_words(tile.width, tile.column_taps);
  tile.batch = (tiling.words - tile.staged_at) / (2 * tiling.planes * (launch.blend ? 2 : 1) * tile.staged_words);
  tile.packed = channels == 3 && source_.pitch_w == 3 && source_.pitch_c == 1;
  const Memory memory(source_);
  tile.begin = memory.begin, tile.end = memory.end;
  if (thread == 0) this->tile() = tile;

  plane_ = thread / tiling.pairs, pair_ = thread % tiling.pairs;
  column_ = column0 + 2 * pair_;
  if (plane_ >= tile.planes || column_ >= launch.w) plane_ = -1;
  if (plane_ < 0) return;
  const int plane = tile.plane + plane_, frame = plane % launch.t, channel = plane / launch.t;
  const int row = h.reversed ? launch.h - 1 - tile.row : tile.row;
  upwards_ = h.reversed;
  out_ = static_cast<Out*>(launch.out) + clip * launch.clip_step + frame * (launch.h * launch.row_step) +
         channel * launch.channel_step + row * launch.row_step + column_ * launch.pixel_step;
  plus_ = launch.plus[channel % most_channels];
}

// The taps of the thread's two columns. Those past the ones kept are the same in all planes.
template <class Kind, class Out>
MULTIGRID_PHASE void Worker<Kind, Out>::choose_columns(const Cells& w) {
  if (plane_ < 0) return;
  const int low = tile().low, column_taps = tile().column_taps;
  MULTIGRID_UNROLL
  for (int p = 0; p < 2; ++p) {
    const int column = column_ + p < launch_.w ? column_ + p : column_;
    const Taps taps = taps_of(w, launch_.filter, w.placed(column));
    const double share = share_of(taps, launch_.filter);
    first_[p] = static_cast<int>(taps.first) - low;
    MULTIGRID_UNROLL
    for (int t = 0; t < kept_taps; ++t) weight_[p][t] = t < taps.count ? part_of(taps, launch_.filter, share, t) : 0.0f;
    for (int t = kept_taps; plane_ == 0 && t < column_taps; ++t)
      late_weights(t)[p] = t < taps.count ? bits_of(part_of(taps, launch_.filter, share, t)) : 0u;
  }
}

template <class Kind, class Out>
MULTIGRID_PHASE void Worker<Kind, Out>::fill_tables() {
  const Cells h = cells_of(source_, 1, launch_.h);
  for (int row = thread_; row < tile().rows; row += launch_.tiling.threads) fill_row(h, row);
  for (int plane = thread_; plane < tile().planes; plane += launch_.tiling.threads) fill_plane(plane);
  choose_columns(cells_of(source_, 2, launch_.w));
}

template <class Kind, class Out>
MULTIGRID_PHASE void Worker<Kind, Out>::fill_row(const Cells& h, int row) const {
  const Taps taps = taps_of(h, launch_.filter, tile().row + row);
  const double share = share_of(taps, launch_.filter);
  const int count = taps.count < tile().row_taps ? static_cast<int>(taps.count) : tile().row_taps;
  std::uint32_t* to = row_at(row);
  to[0] = static_cast<std::uint32_t>(taps.first);
  to[1] = static_cast<std::uint32_t>(count);
  for (int t = 0; t < count; ++t) to[2 + t] = bits_of(part_of(taps, launch_.filter, share, t));
}

template <class Kind, class Out>
MULTIGRID_PHASE void Worker<Kind, Out>::fill_plane(int plane) const {
  const int index = tile().plane + plane, frame = index % launch_.t, channel = index / launch_.t;
  const Cells t = cells_of(source_, 0, launch_.t);
  const Short beyond = static_cast<Short>(source_.beyond);
  std::int64_t frames[2] = {0, 0};
  float share[2] = {1, 0};
  if (launch_.blend) {
    const Taps taps = taps_of(t, Filter::linear, t.placed(frame));
    const double whole = share_of(taps, Filter::linear);
    MULTIGRID_UNROLL
    for (int f = 0; f < 2; ++f) {
      if (f >= taps.count) break;
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
MULTIGRID_PHASE int Worker<Kind, Out>::source_row(int slot) const {
  if (!tile().skip) return first_of(0) + slot;
  const int row = slot / tile().row_taps, tap = slot % tile().row_taps;
  return first_of(row) + (tap < count_of(row) ? tap : count_of(row) - 1);
}

// A warp takes a row, a lane four pixels at a time, or one.
template <class Kind, class Out>
MULTIGRID_PHASE void Worker<Kind, Out>::stage(int batch) const {
  const int begin = batch * tile().batch, left = slots() - begin;
  const int count = left < tile().batch ? left : tile().batch, frames = launch_.blend ? 2 : 1;
  const int rows = tile().planes * frames * count, lane = thread_ % 32, warps = launch_.tiling.threads / 32;
  for (int i = thread_ / 32; i < rows; i += warps) {
    const int slot = i % count, frame = i / count % frames, plane = i / count / frames;
    const PlaneRows& from = plane_rows(plane);
    if (frame == 1 && from.share[1] == 0) continue;
    const char* row = from.frame[frame] + source_row(begin + slot) * source_.pitch_h + tile().low * source_.pitch_w;
    std::uint32_t* to = staged_row(batch, plane, frame, slot);
    // Next to the ends of the video's memory, aligned words would hold foreign bytes.
    if (tile().packed && row - ahead_of(row) >= tile().begin && row + 3 * tile().width + 13 <= tile().end) {
      stage_packed(row, to, lane);
      continue;
    }
    const int channel = (tile().plane + plane) / launch_.t;
    const float times = launch_.times[source_.dtype == static_cast<int>(DType::u8)][channel % most_channels];
    for (int x = lane; x < tile().width; x += 32) stage_one(row + x * source_.pitch_w, to + x, times);
  }
}

template <class Kind, class Out>
MULTIGRID_PHASE void Worker<Kind, Out>::stage_one(const char* from, std::uint32_t* to, float times) const {
  if constexpr (channels == 3) {
    std::uint32_t word = 0;
    MULTIGRID_UNROLL
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

// Twelve bytes are four pixels, and lie in three or four aligned words. All that a lane reads of up to 384 pixels is on
// its way before the first is waited for.
template <class Kind, class Out>
MULTIGRID_PHASE void Worker<Kind, Out>::stage_packed(const char* from, std::uint32_t* to, int lane) const {
  constexpr int together = 3;
  const int chunks = (tile().width + 3) / 4, ahead = ahead_of(from);
  MULTIGRID_ROLLED
  for (int first = lane; first < chunks; first += 32 * together) {
    std::uint32_t words[together][4] = {};
    MULTIGRID_UNROLL
    for (int k = 0; k < together; ++k) {
      if (first + 32 * k >= chunks) continue;
      const char* word = from - ahead + 12 * (first + 32 * k);
      MULTIGRID_UNROLL
      for (int i = 0; i < 3; ++i) words[k][i] = read_word(word + 4 * i);
      if (ahead) words[k][3] = read_word(word + 12);
    }
    MULTIGRID_UNROLL
    for (int k = 0; k < together; ++k) {
      if (first + 32 * k >= chunks) continue;
      MULTIGRID_UNROLL
      for (int i = 0; i < 3; ++i) words[k][i] = shifted(words[k][i], words[k][i + 1], 8 * ahead);
      write_words(to + 4 * (first + 32 * k), words[k][0], shifted(words[k][0], words[k][1], 24),
                  shifted(words[k][1], words[k][2], 16), words[k][2] >> 8);
    }
  }
}

template <class Kind, class Out>
MULTIGRID_PHASE void Worker<Kind, Out>::filter_across(const std::uint32_t* row, int taps, float share,
                                                      float* sum) const {
  MULTIGRID_UNROLL
  for (int t = 0; t < kept_taps; ++t) {
    if (t >= taps) return;
    MULTIGRID_UNROLL
    for (int p = 0; p < 2; ++p)
      Kind::add(sum + p * channels, row[first_[p] + t], weight_[p][t] * share, launch_.times[1]);
  }
  MULTIGRID_ROLLED
  for (int t = kept_taps; t < taps; ++t) {
    const std::uint32_t* late = late_weights(t);
    MULTIGRID_UNROLL
    for (int p = 0; p < 2; ++p)
      Kind::add(sum + p * channels, row[first_[p] + t], from_bits(late[p]) * share, launch_.times[1]);
  }
}

// The staged row of the plane, or two rows blended.
template <class Kind, class Out>
MULTIGRID_PHASE void Worker<Kind, Out>::filter_plane(const std::uint32_t* row, int taps, float* sum) const {
  MULTIGRID_UNROLL
  for (int v = 0; v < values; ++v) sum[v] = 0;
  MULTIGRID_ROLLED
  for (int frame = 0; frame < (launch_.blend ? 2 : 1); ++frame) {
    const float share = plane_rows(plane_).share[frame];
    if (share != 0) filter_across(row + frame * tile().batch * tile().staged_words, taps, share, sum);
  }
}

// Adds what the source row is to an output row.
template <class Kind, class Out>
MULTIGRID_PHASE void Worker<Kind, Out>::add_row(int row, int source_row, const float* filtered, float* sum) const {
  const int tap = source_row - first_of(row);
  if (tap < 0 || tap >= count_of(row)) return;
  const float weight = weight_of_row(row, tap);
  MULTIGRID_UNROLL
  for (int v = 0; v < values; ++v) sum[v] += filtered[v] * weight;
}

// Many: cells are wider than a pixel, and a source row lies in two of them at most. Else a cell is a mix of two source
// rows, and a source row may lie in many cells.
template <class Kind, class Out>
template <bool Many>
MULTIGRID_PHASE void Worker<Kind, Out>::walk_rows(int batch) {
  if (plane_ < 0) return;
  const int rows = tile().rows, column_taps = tile().column_taps, staged_words = tile().staged_words;
  const int begin = batch * tile().batch, left = slots() - begin, first = first_of(0);
  const int end = begin + (left < tile().batch ? left : tile().batch);
  const std::uint32_t* staged = staged_row(batch, plane_, 0, 0);
  int last = row_ < rows ? last_slot(row_) : end;
  MULTIGRID_ROLLED
  for (int slot = begin; slot < end; ++slot, staged += staged_words) {
    float next[values];
    filter_plane(staged, column_taps, next);
    if (Many) add_row(row_, first + slot, next, kept_[0]);
    if (Many && row_ + 1 < rows) add_row(row_ + 1, first + slot, next, kept_[1]);
    while (last <= slot) {
      float value[values];
      const bool mixed = !Many && count_of(row_) == 2;
      const float above = mixed ? weight_of_row(row_, 0) : 0, here = Many ? 0 : weight_of_row(row_, mixed);
      MULTIGRID_UNROLL
      for (int v = 0; v < values; ++v) {
        value[v] = (Many ? kept_[0][v] : next[v] * here) + plus(v % channels);
        if (mixed) value[v] += kept_[0][v] * above;
        if (Many) kept_[0][v] = kept_[1][v], kept_[1][v] = 0;
      }
      store(value);
      last = ++row_ < rows ? last_slot(row_) : end;
    }
    MULTIGRID_UNROLL
    for (int v = 0; v < values; ++v)
      if (!Many) kept_[0][v] = next[v];
  }
}

// Stores two pixels, and goes to the next row. Constant indices only, or the values would leave the registers.
template <class Kind, class Out>
MULTIGRID_PHASE void Worker<Kind, Out>::store(const float* value) {
  const std::int64_t channel = launch_.channel_step, pixel = launch_.pixel_step;
  if (launch_.paired && launch_.layout == Layout::cthw) {
    MULTIGRID_UNROLL
    for (int c = 0; c < channels; ++c) assign_pair(out_ + c * channel, value[c], value[channels + c]);
  } else if (launch_.paired) {
    MULTIGRID_UNROLL
    for (int i = 0; i < channels; ++i) assign_pair(out_ + 2 * i, value[2 * i], value[2 * i + 1]);
  } else {
    MULTIGRID_UNROLL
    for (int v = 0; v < values; ++v)
      if (v < channels || column_ + 1 < launch_.w)
        assign(out_[v / channels * pixel + v % channels * channel], value[v]);
  }
  out_ += upwards_ ? -launch_.row_step : launch_.row_step;
}

}  // namespace multigrid
