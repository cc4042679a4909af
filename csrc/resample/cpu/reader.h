// Reader: one thread's pass over the frames of clips. A source row is filtered once, into a ring of float rows that
// stays in the L1 cache; an output row is the weighted sum of rows of the ring and is stored immediately.
#pragma once

#include <cstdint>
#include <vector>

#include "resample/cpu/columns.h"
#include "resample/cpu/rows.h"
#include "resample/resample.h"

namespace multigrid {

// An output larger than this leaves the caches before anyone reads it, so it is written with non-temporal stores.
constexpr std::int64_t cache_bytes = 32 << 20;

class Reader {
 public:
  Reader(const RowCode& code, const Options& options, const BatchView& out, Pulse& pulse)
      : code_(code),
        options_(options),
        out_(out),
        pulse_(pulse),
        past_caches_(out.b * out.clip_bytes() > cache_bytes) {}
  ~Reader() { code_.settle(); }

  void open(const ClipView& video, const Grid& grid, char* clip);
  void write_frame(std::int64_t i);

 private:
  // The filtered rows of one frame: wanted row p is at slot_[p], for the last few of the `filled`.
  struct Ring {
    Scratch<float> floats;
    std::int64_t frame, filled, fetched;
  };

  float* slot(Ring& ring, std::int64_t position) { return ring.floats.at_least(0) + slot_[position]; }
  const char* box_of(std::int64_t frame) const {
    return static_cast<const char*>(video_.data) + frame * video_.pitch_t + w_.lo * video_.pitch_w;
  }
  void fetch(Ring& ring, std::int64_t most);
  void fill(Ring& ring, std::int64_t until);
  const std::uint8_t* bytes_of_row(const char* from, const char* end, int copy);
  const float* floats_of_row(const char* from);
  void sum_rows(int count);
  void write_row(std::int64_t y, int frames, const float* frame_weight, char* frame);

  const RowCode& code_;
  const Options& options_;
  const BatchView& out_;
  Pulse& pulse_;
  const bool past_caches_;
  ClipView video_{};
  Cells t_{}, h_{}, w_{};
  char* clip_ = nullptr;
  // The end of the gapless part of the video around frame 0, row 0, and the distance to that of other frames and rows.
  const char* block_end_ = nullptr;
  std::int64_t block_pitch_t_ = 0, block_pitch_h_ = 0;
  Beyond beyond_{};
  bool packed_ = false;
  Ring rings_[2];
  std::vector<std::int64_t> slot_;
  std::int64_t fetch_rows_ = 0;
  LineTable frames_, lines_, across_;
  ColumnTables columns_;
  Scratch<std::uint8_t> bytes_[together];
  Scratch<float> floats_;
  Scratch<char> staged_;
  std::vector<const float*> rows_;
  std::vector<float> weights_;
  Scratch<float> sums_;
  std::vector<double> totals_;
};

}  // namespace multigrid
