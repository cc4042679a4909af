// Stager: one thread's part of the work for its block's tile: fill the tables and stage source rows in shared memory
// for the walkers (walker.h). Host and device: tests run the phases on the host, one thread after the other, and
// compare with the CPU path.
//
//   fill_tables | bound | stage(0) | stage(1), walk(0) | stage(2), walk(1) | ...      each | a barrier
//
// Rows are staged a few at a time, in asynchronous copies of sixteen bytes, so that every byte is requested once,
// however it is aligned. Between two barriers one half is staged while the other is walked.
#pragma once

#include "resample/cuda/tile.h"

namespace multigrid {

// The head of a tile's shared memory.
struct Tile {
  Memory memory;                                           // of the video
  std::int32_t bottom, right;                              // the last row of the box, and past its last column
  std::int32_t row, rows, plane, planes, column, columns;  // of the clip
  std::int32_t top, slots, left, width;                    // of the video: see `bound`
};
static_assert(sizeof(Tile) <= 4 * planes_at);

// A plane of the tile: its frame, or the two that are blended.
struct PlaneRows {
  const char* frame[2];
  float share[2];
};
static_assert(sizeof(PlaneRows) == 4 * plane_words);

// A lane issues all its reads before it waits for the first.
template <class Read, class Write>
MULTIGRID_INLINE void stage_values(int count, int lane, int lanes, Read read_one, Write write_one) {
  constexpr int together = 4;
  MULTIGRID_ROLLED
  for (int first = lane; first < count; first += together * lanes) {
    decltype(read_one(0)) values[together] = {};
    MULTIGRID_UNROLL
    for (int k = 0; k < together; ++k)
      if (first + k * lanes < count) values[k] = read_one(first + k * lanes);
    MULTIGRID_UNROLL
    for (int k = 0; k < together; ++k)
      if (first + k * lanes < count) write_one(first + k * lanes, values[k]);
  }
}

template <class Kind>
class Stager {
 public:
  MULTIGRID_INLINE Stager(const Launch& launch, std::uint32_t tile, int thread, std::uint32_t* shared);
  MULTIGRID_INLINE void fill_tables() const;
  MULTIGRID_INLINE void bound() const;
  MULTIGRID_INLINE void stage(int batch) const;
  MULTIGRID_INLINE int batches() const {
    return (tile().slots + (1 << launch.tiling.log_slots) - 1) >> launch.tiling.log_slots;
  }

  MULTIGRID_INLINE Tile& tile() const { return *reinterpret_cast<Tile*>(shared); }
  MULTIGRID_INLINE PlaneRows& plane_rows(int plane) const {
    return reinterpret_cast<PlaneRows*>(shared + planes_at)[plane];
  }

  // Where a row of the tile is in shared memory. A slot is a source row, in the order in which the cells need it.
  //   in mixes: first source row, slot that completes it, weight of the slot before that, weight of that
  //   in sums: where the weight of slot 0 would be, slot that completes it, as many zeros as taps, weights of the taps
  MULTIGRID_INLINE int row_at(int row) const { return launch.tiling.rows_at + row * row_words(source); }
  MULTIGRID_INLINE int first_row(int row_at) const { return static_cast<int>(shared[row_at]); }
  MULTIGRID_INLINE int weights_at(int row_at) const { return static_cast<int>(shared[row_at]); }
  MULTIGRID_INLINE int last_slot(int row_at) const { return static_cast<int>(shared[row_at + 1]); }

  // The columns: the source columns of their first taps, then their first weights, their second ones, ...
  MULTIGRID_INLINE std::uint32_t* columns(int line) const {
    return shared + launch.tiling.columns_at + line * 2 * launch.tiling.pairs;
  }

  // The first word is the position of the first pixel: in bytes for three bytes a pixel, in words for floats.
  MULTIGRID_INLINE std::uint32_t* staged_row(int batch, int plane, int frame, int slot) const {
    const int frames = launch.blend ? 2 : 1, group = ((batch & 1) * launch.tiling.planes + plane) * frames + frame;
    return shared + launch.tiling.staged_at + ((group << launch.tiling.log_slots) + slot) * launch.tiling.staged_words;
  }

  const Launch& launch;
  const Source& source;
  std::uint32_t* const shared;
  const int thread;

 private:
  MULTIGRID_INLINE Tile tile_of(std::uint32_t index, const Cells& h, const Cells& w) const;
  MULTIGRID_INLINE void fill_row(const Tile& tile, const Cells& h, int row) const;
  MULTIGRID_INLINE void fill_column(const Tile& tile, const Cells& w, int column) const;
  MULTIGRID_INLINE void fill_plane(const Tile& tile, int plane) const;
  MULTIGRID_INLINE int source_row(int slot) const;
  MULTIGRID_INLINE void stage_row(const char* from, std::uint32_t* to) const;
  MULTIGRID_INLINE float read_float(const char* from) const;

  const std::uint32_t index_;
};

template <class Kind>
MULTIGRID_INLINE Stager<Kind>::Stager(const Launch& launch, std::uint32_t index, int thread, std::uint32_t* shared)
    : launch(launch),
      source(launch.sources[index / (launch.tiling.across * launch.tiling.down * launch.tiling.in_depth)]),
      shared(shared),
      thread(thread),
      index_(index) {}

template <class Kind>
MULTIGRID_INLINE Tile Stager<Kind>::tile_of(std::uint32_t index, const Cells& h, const Cells& w) const {
  const Tiling& tiling = launch.tiling;
  const auto cut = [](int size, int from, int most) { return size - from < most ? size - from : most; };
  const std::uint32_t sheet = index / tiling.across, stack = sheet / tiling.down;
  const int column = static_cast<int>(index % tiling.across) * 2 * tiling.pairs;
  const int row = static_cast<int>(sheet % tiling.down) * tiling.rows;
  const int plane = static_cast<int>(stack % tiling.in_depth) * tiling.planes;
  Tile tile{};
  tile.memory = memory_of(source);
  tile.bottom = static_cast<int>(h.hi) - 1, tile.right = static_cast<int>(w.hi);
  tile.row = row, tile.rows = cut(launch.h, row, tiling.rows);
  tile.top = static_cast<int>(taps_of(h, launch.filter, row).first);
  tile.plane = plane, tile.planes = cut(launch.planes(), plane, tiling.planes);
  tile.column = column, tile.columns = cut(launch.w, column, 2 * tiling.pairs);
  return tile;
}

template <class Kind>
MULTIGRID_INLINE void Stager<Kind>::fill_tables() const {
  const Cells h = cells_of(source, 1, launch.h), w = cells_of(source, 2, launch.w);
  const Tile tile = tile_of(index_, h, w);
  const int threads = launch.tiling.threads;
  if (thread == 0) this->tile() = tile;
  MULTIGRID_ROLLED
  for (int plane = thread; plane < tile.planes; plane += threads) fill_plane(tile, plane);
  MULTIGRID_ROLLED
  for (int column = thread; column < tile.columns; column += threads) fill_column(tile, w, column);
  MULTIGRID_ROLLED
  for (int row = thread; row < tile.rows; row += threads) fill_row(tile, h, row);
}

template <class Kind>
MULTIGRID_INLINE void Stager<Kind>::fill_row(const Tile& tile, const Cells& h, int row) const {
  const Taps taps = taps_of(h, launch.filter, tile.row + row);
  const double share = share_of(taps, launch.filter);
  const bool sums = many_rows(source);
  const int most = source.row_taps, count = taps.count < most ? static_cast<int>(taps.count) : most;
  const int at = row_at(row), first = static_cast<int>(taps.first), first_slot = first - tile.top;
  const int weights = at + 2 + (sums ? most : 2 - most);
  const int end = source.skips ? (row + 1) * most : first_slot + (sums ? count : most);
  shared[at] = static_cast<std::uint32_t>(sums ? weights - first_slot : first);
  shared[at + 1] = static_cast<std::uint32_t>(end - 1);
  for (int i = at + 2; i < weights; ++i) shared[i] = 0;
  MULTIGRID_ROLLED
  for (int t = 0; t < most; ++t)
    shared[weights + t] = t < count ? bits_of(part_of(taps, launch.filter, share, t) * Kind::times_row) : 0;
  if (row + 1 < tile.rows) return;
  const int none = row_at(row + 1);  // no slot completes it, and it has no weights
  shared[none] = static_cast<std::uint32_t>(none + 2 - first_slot);
  shared[none + 1] = 0x7fffffff;
  for (int i = none + 2; i < row_at(row + 2); ++i) shared[i] = 0;
}

template <class Kind>
MULTIGRID_INLINE void Stager<Kind>::fill_column(const Tile& tile, const Cells& w, int column) const {
  const Taps taps = taps_of(w, launch.filter, w.placed(tile.column + column));
  const double share = share_of(taps, launch.filter);
  const int count = taps.count < source.column_taps ? static_cast<int>(taps.count) : source.column_taps;
  columns(0)[column] = static_cast<std::uint32_t>(taps.first);
  MULTIGRID_ROLLED
  for (int t = 0; t < up_to_4(source.column_taps); ++t)
    columns(1 + t)[column] = t < count ? bits_of(part_of(taps, launch.filter, share, t) * Kind::times_column) : 0;
}

template <class Kind>
MULTIGRID_INLINE void Stager<Kind>::fill_plane(const Tile& tile, int plane) const {
  const int index = tile.plane + plane, frame = index % launch.t, channel = index / launch.t;
  const Cells t = cells_of(source, 0, launch.t);
  const Beyond beyond = static_cast<Beyond>(source.beyond);
  std::int64_t frames[2] = {0, 0};
  float share[2] = {1, 0};
  if (launch.blend) {
    const Taps taps = taps_of(t, Filter::linear, t.placed(frame));
    const double whole = share_of(taps, Filter::linear);
    MULTIGRID_UNROLL
    for (int f = 0; f < 2; ++f) {
      if (f >= taps.count) break;
      frames[f] = wrapped(taps.first + f, source.t, beyond);
      share[f] = part_of(taps, Filter::linear, whole, f);
    }
    if (frames[0] == frames[1]) share[0] += share[1], share[1] = 0;
  } else {
    frames[0] = wrapped(frame_of(t, t.placed(frame)), source.t, beyond);
  }
  const char* data = source.data + channel * source.pitch_c;
  plane_rows(plane) = {{data + frames[0] * source.pitch_t, data + frames[1] * source.pitch_t}, {share[0], share[1]}};
}

// Reads from the tables the tile's slots, its first source column and the number of columns.
template <class Kind>
MULTIGRID_INLINE void Stager<Kind>::bound() const {
  if (thread != 0) return;
  Tile& tile = this->tile();
  const int first = static_cast<int>(columns(0)[0]), last = static_cast<int>(columns(0)[tile.columns - 1]);
  const int reach = (first < last ? last : first) + source.column_taps;
  tile.slots = last_slot(row_at(tile.rows - 1)) + 1;
  tile.left = first < last ? first : last;
  tile.width = (reach < tile.right ? reach : tile.right) - tile.left;
}

template <class Kind>
MULTIGRID_INLINE int Stager<Kind>::source_row(int slot) const {
  const int taps = source.row_taps;  // 1 or 2, where rows are skipped
  const int row = source.skips ? first_row(row_at(slot >> (taps - 1))) + (slot & (taps - 1)) : tile().top + slot;
  return row < tile().bottom ? row : tile().bottom;
}

// Each row gets as many lanes as keep all threads busy.
template <class Kind>
MULTIGRID_INLINE void Stager<Kind>::stage(int batch) const {
  const int log_slots = launch.tiling.log_slots, log_lanes = launch.tiling.log_lanes, frames = launch.blend ? 2 : 1;
  const int all = tile().planes * frames << log_slots, groups = launch.tiling.threads >> log_lanes;
  if (thread >> log_lanes >= groups) return;
  MULTIGRID_ROLLED
  for (int i = thread >> log_lanes; i < all; i += groups) {
    const int local = i & ((1 << log_slots) - 1), slot = (batch << log_slots) + local, group = i >> log_slots;
    const int frame = group & (frames - 1), plane = group >> (frames - 1);
    const PlaneRows& rows = plane_rows(plane);
    if (slot >= tile().slots || (frame == 1 && rows.share[1] == 0)) continue;
    stage_row(rows.frame[frame] + source_row(slot) * source.pitch_h + tile().left * source.pitch_w,
              staged_row(batch, plane, frame, local));
  }
}

template <class Kind>
MULTIGRID_INLINE void Stager<Kind>::stage_row(const char* from, std::uint32_t* to) const {
  const int width = tile().width, lanes = 1 << launch.tiling.log_lanes, lane = thread & (lanes - 1);
  if constexpr (Kind::channels == 3) {
    const int ahead = static_cast<int>(reinterpret_cast<std::uintptr_t>(from) & 15);
    const int chunks = (ahead + 3 * width + 15) / 16;
    const char *aligned = from - ahead, *end = aligned + 16 * chunks;
    if (lane == 0) *to = static_cast<std::uint32_t>(16 + ahead);
    // Near the ends of the video's memory a whole chunk would read bytes outside it.
    const bool inside = aligned >= tile().memory.begin && end <= tile().memory.end;
    if (inside && source.pitch_w == 3 && source.pitch_c == 1) {
      MULTIGRID_ROLLED
      for (int i = lane; i < chunks; i += lanes) copy<16>(to + 4 + 4 * i, aligned + 16 * i);
      return;
    }
    std::uint8_t* bytes = reinterpret_cast<std::uint8_t*>(to + 4) + ahead;
    const auto read_byte = [&](int i) {
      return read<std::uint8_t>(from + i / 3 * source.pitch_w + i % 3 * source.pitch_c);
    };
    stage_values(3 * width, lane, lanes, read_byte, [&](int i, std::uint8_t byte) { bytes[i] = byte; });
  } else {
    if (lane == 0) *to = 4;
    if (static_cast<DType>(source.dtype) == DType::f32) {
      MULTIGRID_ROLLED
      for (int x = lane; x < width; x += lanes) copy<4>(to + 4 + x, from + x * source.pitch_w);
      return;
    }
    const auto read_one = [&](int x) { return read_float(from + x * source.pitch_w); };
    stage_values(width, lane, lanes, read_one, [&](int x, float value) { to[4 + x] = bits_of(value); });
  }
}

template <class Kind>
MULTIGRID_INLINE float Stager<Kind>::read_float(const char* from) const {
  switch (static_cast<DType>(source.dtype)) {
    case DType::u8:
      return to_float(read<std::uint8_t>(from));
    case DType::f16:
      return to_float(Half{read<std::uint16_t>(from)});
    default:
      return to_float(Bfloat16{read<std::uint16_t>(from)});
  }
}

}  // namespace multigrid
