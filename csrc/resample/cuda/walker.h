// Walker: one thread of a CUDA block, which turns staged rows into output. It owns two neighbouring columns of one
// plane, keeps their taps in registers and walks down the rows, so that a source row is filtered once and an output row
// is stored once. Host and device.
#pragma once

#include "resample/cuda/stager.h"

namespace multigrid {

// Calls `run` with the walker that a tile needs, which has two template arguments.
//
// Sums: whether cells have more than two rows. Then a source row is in at most two cells; otherwise a cell is a mix of
// two source rows, and a source row may be in many cells.
//
// Taps: the taps of a column. The usual cells, stored as planes of channels, have specialised code: linear ones, and
// antialiased ones up to a stride of 3. 0 stands for any number of taps and any layout.
#ifdef __CUDACC__
#pragma nv_exec_check_disable
#endif
template <class Run>
MULTIGRID_INLINE void with_walker(const Launch& launch, const Source& source, Run run) {
  const bool usual = launch.paired && launch.layout == Layout::cthw && !launch.blend;
  const int taps = usual ? source.column_taps : 7;
  if (!many_rows(source))
    taps <= 2 ? run.template walk<false, 2>() : run.template walk<false, 0>();
  else if (taps <= 3)
    run.template walk<true, 3>();
  else if (taps <= 4)
    run.template walk<true, 4>();
  else
    taps <= 6 ? run.template walk<true, 6>() : run.template walk<true, 0>();
}

template <class Kind, class Out, bool Sums, int Taps>
class Walker {
 public:
  MULTIGRID_INLINE explicit Walker(const Stager<Kind>& stager);
  MULTIGRID_INLINE void walk(const Stager<Kind>& stager, int batch);

 private:
  static constexpr int channels = Kind::channels, values = 2 * channels, kept_taps = Taps > 0 ? Taps : 4;

  template <int Turn>
  MULTIGRID_INLINE bool sum_row(const Stager<Kind>& stager, int end);
  template <int Turn>
  MULTIGRID_INLINE void mix_slot(const Stager<Kind>& stager);
  MULTIGRID_INLINE void filter_staged(const Stager<Kind>& stager, float* sum);
  MULTIGRID_INLINE void filter(const std::uint32_t* row, float* sum) const;
  MULTIGRID_INLINE void filter_any(const Stager<Kind>& stager, const std::uint32_t* row, float* sum) const;
  MULTIGRID_INLINE void finish_row(const Stager<Kind>& stager, const float* sum);
  MULTIGRID_INLINE void store(const Launch& launch, const float* value);

  // The thread's plane in the tile, or -1, and its columns.
  int plane_, column_, first_[2];
  bool alone_;  // the second column is past the last
  float weight_[2][kept_taps];

  // The state carried down the rows: the last two filtered rows, or the sums of this cell and the next. The two
  // alternate so that nothing is copied: by slots in mixes, by rows in sums.
  float kept_[2][values] = {};
  bool second_turn_ = false;

  // The next slot and its staged row; where the tile's row is in shared memory, and the slot that completes it; for
  // sums, also where its weights and those of the next row are.
  int slot_ = 0, row_, last_, here_ = 0, after_ = 0;
  const std::uint32_t* staged_;

  // Where the row is written, and its scale if the plane is one channel.
  char* out_;
  std::int64_t to_next_row_;
  float times_, plus_;
};

template <class Kind, class Out, bool Sums, int Taps>
MULTIGRID_INLINE Walker<Kind, Out, Sums, Taps>::Walker(const Stager<Kind>& stager) {
  const Launch& launch = stager.launch;
  const Tile& tile = stager.tile();
  plane_ = stager.thread / launch.tiling.pairs, column_ = stager.thread % launch.tiling.pairs * 2;
  if (plane_ >= tile.planes || column_ >= tile.columns) plane_ = -1;
  if (plane_ < 0) return;
  alone_ = column_ + 1 == tile.columns;
  MULTIGRID_UNROLL
  for (int p = 0; p < 2; ++p) {
    const int column = p == 1 && !alone_ ? column_ + 1 : column_;
    first_[p] = (static_cast<int>(stager.columns(0)[column]) - tile.left) * Kind::step;
    MULTIGRID_UNROLL
    for (int t = 0; t < kept_taps; ++t) weight_[p][t] = from_bits(stager.columns(1 + t)[column]);
  }
  const int plane = tile.plane + plane_, frame = plane % launch.t, channel = plane / launch.t;
  const bool upwards = stager.source.span[1] < 0;
  times_ = launch.times[stager.source.dtype == static_cast<int>(DType::u8)][channel % most_channels];
  plus_ = launch.plus[channel % most_channels];
  row_ = launch.tiling.rows_at, last_ = stager.last_slot(row_);
  if (Sums) here_ = stager.weights_at(row_), after_ = stager.weights_at(row_ + row_words<Sums>(stager.source));
  out_ = static_cast<char*>(launch.out) + (&stager.source - launch.sources) * launch.clip_step +
         frame * (launch.h * launch.row_step) + channel * launch.channel_step +
         (upwards ? launch.h - 1 - tile.row : tile.row) * launch.row_step + (tile.column + column_) * launch.pixel_step;
  to_next_row_ = upwards ? -launch.row_step : launch.row_step;
}

template <class Kind, class Out, bool Sums, int Taps>
MULTIGRID_INLINE void Walker<Kind, Out, Sums, Taps>::filter(const std::uint32_t* row, float* sum) const {
  MULTIGRID_UNROLL
  for (int v = 0; v < values; ++v) sum[v] = 0;
  MULTIGRID_UNROLL
  for (int p = 0; p < 2; ++p)
    Kind::template add<kept_taps>(sum + p * channels, row, static_cast<int>(*row) + first_[p], weight_[p]);
}

// Filters one staged row, or two blended ones, with any number of taps.
template <class Kind, class Out, bool Sums, int Taps>
MULTIGRID_INLINE void Walker<Kind, Out, Sums, Taps>::filter_any(const Stager<Kind>& stager, const std::uint32_t* row,
                                                                float* sum) const {
  const Tiling& tiling = stager.launch.tiling;
  MULTIGRID_UNROLL
  for (int v = 0; v < values; ++v) sum[v] = 0;
  MULTIGRID_ROLLED
  for (int frame = 0; frame < (stager.launch.blend ? 2 : 1); ++frame, row += tiling.staged_words << tiling.log_slots) {
    const float share = stager.plane_rows(plane_).share[frame];
    if (share == 0) continue;
    float one[values];
    filter(row, one);
    MULTIGRID_ROLLED
    for (int tap = kept_taps; tap < stager.source.column_taps; tap += 4) {
      const std::uint32_t* weights = stager.columns(1 + tap) + column_;
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
MULTIGRID_INLINE void Walker<Kind, Out, Sums, Taps>::walk(const Stager<Kind>& stager, int batch) {
  if (plane_ < 0) return;
  const int whole = (batch + 1) << stager.launch.tiling.log_slots, slots = stager.tile().slots;
  const int end = whole < slots ? whole : slots;
  staged_ = stager.staged_row(batch, plane_, 0, 0);
  if constexpr (Sums) {
    MULTIGRID_ROLLED
    while (true) {
      if (!second_turn_ && !sum_row<0>(stager, end)) return;
      second_turn_ = true;
      if (!sum_row<1>(stager, end)) return;
      second_turn_ = false;
    }
  } else {
    if (slot_ % 2 && slot_ < end) mix_slot<1>(stager);
    MULTIGRID_ROLLED
    while (slot_ + 1 < end) mix_slot<0>(stager), mix_slot<1>(stager);
    if (slot_ < end) mix_slot<0>(stager);
  }
}

// Adds the slots of a row that is a sum, and stores the row. False at the end of the staged rows.
template <class Kind, class Out, bool Sums, int Taps>
template <int Turn>
MULTIGRID_INLINE bool Walker<Kind, Out, Sums, Taps>::sum_row(const Stager<Kind>& stager, int end) {
  float *mine = kept_[Turn], *other = kept_[1 - Turn];
  MULTIGRID_ROLLED
  for (const int stop = last_ < end ? last_ + 1 : end; slot_ < stop; ++slot_) {
    float next[values];
    filter_staged(stager, next);
    const float here = from_bits(stager.shared[here_ + slot_]), after = from_bits(stager.shared[after_ + slot_]);
    MULTIGRID_UNROLL
    for (int v = 0; v < values; ++v) {
      mine[v] = Kind::with(mine[v], next[v], here);
      other[v] = Kind::with(other[v], next[v], after);
    }
  }
  if (slot_ <= last_) return false;
  finish_row(stager, mine);
  // After the last row this reads the word past the rows; no slot is left that would use it.
  here_ = after_, after_ = stager.weights_at(row_ + row_words<Sums>(stager.source));
  MULTIGRID_UNROLL
  for (int v = 0; v < values; ++v) mine[v] = 0;
  return true;
}

// Filters a slot and stores the rows that are mixes of it and the slot before.
template <class Kind, class Out, bool Sums, int Taps>
template <int Turn>
MULTIGRID_INLINE void Walker<Kind, Out, Sums, Taps>::mix_slot(const Stager<Kind>& stager) {
  filter_staged(stager, kept_[Turn]);
  MULTIGRID_ROLLED
  for (; last_ <= slot_;) {
    const float above = from_bits(stager.shared[row_ + 2]), here = from_bits(stager.shared[row_ + 3]);
    float sum[values];
    MULTIGRID_UNROLL
    for (int v = 0; v < values; ++v)
      sum[v] = Kind::with(Kind::with(0, kept_[1 - Turn][v], above), kept_[Turn][v], here);
    finish_row(stager, sum);
  }
  ++slot_;
}

template <class Kind, class Out, bool Sums, int Taps>
MULTIGRID_INLINE void Walker<Kind, Out, Sums, Taps>::filter_staged(const Stager<Kind>& stager, float* sum) {
  if constexpr (Taps > 0)
    filter(staged_, sum);
  else
    filter_any(stager, staged_, sum);
  staged_ += stager.launch.tiling.staged_words;
}

template <class Kind, class Out, bool Sums, int Taps>
MULTIGRID_INLINE void Walker<Kind, Out, Sums, Taps>::finish_row(const Stager<Kind>& stager, const float* sum) {
  const Launch& launch = stager.launch;
  float value[values];
  MULTIGRID_UNROLL
  for (int v = 0; v < values; ++v) {
    const int c = v % channels;
    value[v] =
        channels == 1 ? scaled<Out>(sum[v], times_, plus_) : scaled<Out>(sum[v], launch.times[1][c], launch.plus[c]);
  }
  store(launch, value);
  row_ += row_words<Sums>(stager.source);
  last_ = stager.last_slot(row_);
}

// Stores two pixels and advances to the next row. Only constant indices keep the values in registers.
template <class Kind, class Out, bool Sums, int Taps>
MULTIGRID_INLINE void Walker<Kind, Out, Sums, Taps>::store(const Launch& launch, const float* value) {
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
