// Walker: what one thread of a CUDA block makes of the staged rows. It owns two neighbouring columns of one plane,
// keeps their taps in registers and walks down the rows, so that a source row is filtered once and an output row is
// stored once. Host and device.
#pragma once

#include "resample_worker.h"

namespace multigrid {

// Which walker. The usual cells, stored as planes of channels, have code of their own: linear ones, and antialiased
// ones up to a stride of 3.
struct Path {
  bool sums;  // cells of more than two rows: a source row lies in two of them at most; else a cell is a mix of two
              // source rows, and a source row may lie in many cells
  int taps;   // of a column: up to 2 in mixes, up to 3, 4 or 6 in sums; or 0 for any number, and any layout
};

MULTIGRID_PHASE Path path_of(const Launch& launch, const Source& source) {
  const bool sums = many_rows(source), usual = launch.paired && launch.layout == Layout::cthw && !launch.blend;
  const int taps = source.column_taps, most = !sums ? 2 : taps <= 3 ? 3 : taps <= 4 ? 4 : 6;
  return {sums, usual && taps <= most ? most : 0};
}

template <class Kind, class Out, bool Sums, int Taps>
class Walker {
 public:
  MULTIGRID_PHASE explicit Walker(const Worker<Kind>& worker);
  MULTIGRID_PHASE void walk(const Worker<Kind>& worker, int batch);

 private:
  static constexpr int channels = Kind::channels, values = 2 * channels, kept_taps = Taps > 0 ? Taps : 4;

  template <int Turn>
  MULTIGRID_PHASE bool step(const Worker<Kind>& worker, int end);
  MULTIGRID_PHASE void filter_staged(const Worker<Kind>& worker, float* sum);
  MULTIGRID_PHASE void filter(const std::uint32_t* row, float* sum) const;
  MULTIGRID_PHASE void filter_any(const Worker<Kind>& worker, const std::uint32_t* row, float* sum) const;
  MULTIGRID_PHASE void finish_row(const Worker<Kind>& worker, const float* sum);
  MULTIGRID_PHASE void store(const Launch& launch, const float* value);

  // The thread's plane in the tile, or -1, and its columns there.
  int plane_, column_, first_[2];
  bool alone_;  // the second column is past the last
  float weight_[2][kept_taps];

  // What it carries down the rows: the filtered rows, or the sums of this cell and the next. They take turns, so that
  // nothing is copied.
  float kept_[2][values] = {};
  bool second_turn_ = false;

  // The next slot, and its staged row; where the tile's row is in the shared memory, the slot that completes it, and
  // its weights and those of the row after it; and where it is written.
  int slot_ = 0, row_, last_, here_ = 0, after_ = 0;
  const std::uint32_t* staged_;
  char* out_;
  std::int64_t to_next_row_;
  float times_, plus_;
};

template <class Kind, class Out, bool Sums, int Taps>
MULTIGRID_PHASE Walker<Kind, Out, Sums, Taps>::Walker(const Worker<Kind>& worker) {
  const Launch& launch = worker.launch;
  const Tile& tile = worker.tile();
  plane_ = worker.thread / launch.tiling.pairs, column_ = worker.thread % launch.tiling.pairs * 2;
  if (plane_ >= tile.planes || column_ >= tile.columns) plane_ = -1;
  if (plane_ < 0) return;
  alone_ = column_ + 1 == tile.columns;
  MULTIGRID_UNROLL
  for (int p = 0; p < 2; ++p) {
    const int column = p == 1 && !alone_ ? column_ + 1 : column_;
    first_[p] = (static_cast<int>(worker.columns(0)[column]) - tile.left) * Kind::step;
    MULTIGRID_UNROLL
    for (int t = 0; t < kept_taps; ++t) weight_[p][t] = from_bits(worker.columns(1 + t)[column]);
  }
  const int plane = tile.plane + plane_, frame = plane % launch.t, channel = plane / launch.t;
  const bool upwards = worker.source.span[1] < 0;
  times_ = launch.times[worker.source.dtype == static_cast<int>(DType::u8)][channel % most_channels];
  plus_ = launch.plus[channel % most_channels];
  row_ = launch.tiling.rows_at, last_ = worker.last_slot(row_);
  if (Sums) here_ = worker.weights_at(row_), after_ = worker.weights_at(row_ + row_words<Sums>(worker.source));
  out_ = static_cast<char*>(launch.out) + (&worker.source - launch.sources) * launch.clip_step +
         frame * (launch.h * launch.row_step) + channel * launch.channel_step +
         (upwards ? launch.h - 1 - tile.row : tile.row) * launch.row_step + (tile.column + column_) * launch.pixel_step;
  to_next_row_ = upwards ? -launch.row_step : launch.row_step;
}

template <class Kind, class Out, bool Sums, int Taps>
MULTIGRID_PHASE void Walker<Kind, Out, Sums, Taps>::filter(const std::uint32_t* row, float* sum) const {
  MULTIGRID_UNROLL
  for (int v = 0; v < values; ++v) sum[v] = 0;
  MULTIGRID_UNROLL
  for (int p = 0; p < 2; ++p)
    Kind::template add<kept_taps>(sum + p * channels, row, static_cast<int>(*row) + first_[p], weight_[p]);
}

// One staged row or two blended, in columns of any number of taps.
template <class Kind, class Out, bool Sums, int Taps>
MULTIGRID_PHASE void Walker<Kind, Out, Sums, Taps>::filter_any(const Worker<Kind>& worker, const std::uint32_t* row,
                                                               float* sum) const {
  const Tiling& tiling = worker.launch.tiling;
  MULTIGRID_UNROLL
  for (int v = 0; v < values; ++v) sum[v] = 0;
  MULTIGRID_ROLLED
  for (int frame = 0; frame < (worker.launch.blend ? 2 : 1); ++frame, row += tiling.staged_words << tiling.log_slots) {
    const float share = worker.plane(plane_).share[frame];
    if (share == 0) continue;
    float one[values];
    filter(row, one);
    MULTIGRID_ROLLED
    for (int tap = kept_taps; tap < worker.source.column_taps; tap += 4) {
      const std::uint32_t* weights = worker.columns(1 + tap) + column_;
      MULTIGRID_UNROLL
      for (int p = 0; p < 2; ++p) {
        float weight[4];
        MULTIGRID_UNROLL
        for (int t = 0; t < 4; ++t) weight[t] = from_bits(weights[2 * tiling.pairs * t + p]);
        Kind::template add<4>(one + p * channels, row, static_cast<int>(*row) + first_[p] + tap * Kind::step, weight);
      }
    }
    MULTIGRID_UNROLL
    for (int v = 0; v < values; ++v) sum[v] = Kind::with(sum[v], one[v], share);
  }
}

template <class Kind, class Out, bool Sums, int Taps>
MULTIGRID_PHASE void Walker<Kind, Out, Sums, Taps>::walk(const Worker<Kind>& worker, int batch) {
  if (plane_ < 0) return;
  const int whole = (batch + 1) << worker.launch.tiling.log_slots, slots = worker.tile().slots;
  const int end = whole < slots ? whole : slots;
  staged_ = worker.staged_row(batch, plane_, 0, 0);
  MULTIGRID_ROLLED
  while (true) {
    if (!second_turn_ && !step<0>(worker, end)) return;
    second_turn_ = true;
    if (!step<1>(worker, end)) return;
    second_turn_ = false;
  }
}

// One slot of mixes, or all slots of a sum. False at the end of what is staged.
template <class Kind, class Out, bool Sums, int Taps>
template <int Turn>
MULTIGRID_PHASE bool Walker<Kind, Out, Sums, Taps>::step(const Worker<Kind>& worker, int end) {
  float *mine = kept_[Turn], *other = kept_[1 - Turn];
  if constexpr (Sums) {
    MULTIGRID_ROLLED
    for (const int stop = last_ < end ? last_ + 1 : end; slot_ < stop; ++slot_) {
      float next[values];
      filter_staged(worker, next);
      const float here = from_bits(worker.shared[here_ + slot_]), after = from_bits(worker.shared[after_ + slot_]);
      MULTIGRID_UNROLL
      for (int v = 0; v < values; ++v) {
        mine[v] = Kind::with(mine[v], next[v], here);
        other[v] = Kind::with(other[v], next[v], after);
      }
    }
    if (slot_ <= last_) return false;
    finish_row(worker, mine);
    here_ = after_, after_ = worker.weights_at(row_ + row_words<Sums>(worker.source));
    MULTIGRID_UNROLL
    for (int v = 0; v < values; ++v) mine[v] = 0;
  } else {
    if (slot_ == end) return false;
    filter_staged(worker, mine);
    MULTIGRID_ROLLED
    for (; last_ <= slot_;) {
      const float above = from_bits(worker.shared[row_ + 2]), here = from_bits(worker.shared[row_ + 3]);
      float sum[values];
      MULTIGRID_UNROLL
      for (int v = 0; v < values; ++v) sum[v] = Kind::with(Kind::with(0, other[v], above), mine[v], here);
      finish_row(worker, sum);
    }
    ++slot_;
  }
  return true;
}

template <class Kind, class Out, bool Sums, int Taps>
MULTIGRID_PHASE void Walker<Kind, Out, Sums, Taps>::filter_staged(const Worker<Kind>& worker, float* sum) {
  if constexpr (Taps > 0)
    filter(staged_, sum);
  else
    filter_any(worker, staged_, sum);
  staged_ += worker.launch.tiling.staged_words;
}

template <class Kind, class Out, bool Sums, int Taps>
MULTIGRID_PHASE void Walker<Kind, Out, Sums, Taps>::finish_row(const Worker<Kind>& worker, const float* sum) {
  const Launch& launch = worker.launch;
  float value[values];
  MULTIGRID_UNROLL
  for (int v = 0; v < values; ++v) {
    const int c = v % channels;
    value[v] = sum[v] * (channels == 1 ? times_ : launch.times[1][c]) + (channels == 1 ? plus_ : launch.plus[c]);
  }
  store(launch, value);
  row_ += row_words<Sums>(worker.source);
  last_ = worker.last_slot(row_);
}

// Stores two pixels, and goes to the next row. Constant indices only, or the values would leave the registers.
template <class Kind, class Out, bool Sums, int Taps>
MULTIGRID_PHASE void Walker<Kind, Out, Sums, Taps>::store(const Launch& launch, const float* value) {
  if (Taps > 0 || (launch.paired && launch.layout == Layout::cthw)) {
    MULTIGRID_UNROLL
    for (int c = 0; c < channels; ++c) assign_pair<Out>(out_ + c * launch.channel_step, value[c], value[channels + c]);
  } else if (launch.paired) {
    MULTIGRID_UNROLL
    for (int i = 0; i < channels; ++i) assign_pair<Out>(out_ + 2 * i * sizeof(Out), value[2 * i], value[2 * i + 1]);
  } else {
    MULTIGRID_UNROLL
    for (int v = 0; v < values; ++v)
      if (v < channels || !alone_)
        assign_one<Out>(out_ + v / channels * launch.pixel_step + v % channels * launch.channel_step, value[v]);
  }
  out_ += to_next_row_;
}

}  // namespace multigrid
