// ColumnTable, LineTable: the taps of a clip's columns and rows, worked out once per clip.
#pragma once

#include <cstdint>
#include <memory>
#include <new>
#include <vector>

#include "resample.h"
#include "resample_rows.h"
#include "taps.h"

namespace multigrid {

// Memory that only grows, on a cache line.
template <class T>
class Room {
 public:
  T* at_least(std::size_t count) {
    if (count > count_) {
      data_.reset(static_cast<T*>(::operator new(count * sizeof(T), std::align_val_t(64))));
      count_ = count;
    }
    return data_.get();
  }

 private:
  struct Free {
    void operator()(T* data) const { ::operator delete(data, std::align_val_t(64)); }
  };
  std::unique_ptr<T, Free> data_;
  std::size_t count_ = 0;
};

// The taps of each output cell in the order of the output: `count` weights (zero past a cell's own) from pixel first.
// `wanted` are the pixels that any cell looks at, in order, and position[i] is the place of first[i] among them.
struct LineTable {
  int count = 0;
  std::vector<std::int64_t> first, wanted, position;
  std::vector<int> own;
  std::vector<float> weight;

  void fill(const Cells& cells, Filter filter);
};

// Columns with the memory behind it. `bytes`: rows are uint8, side by side, and the code has the byte shuffle.
class ColumnTable {
 public:
  void fill(const LineTable& line, std::int64_t lo, const Scale& scale, int lanes, bool planar, bool bytes);
  const Columns& columns() const { return columns_; }
  std::int64_t row_floats() const { return std::int64_t{columns_.vectors} * 4 * lanes_; }

 private:
  void order_values(std::int64_t values);
  bool choose_group(bool bytes);
  void fill_weights(const LineTable& line, const Scale& scale);
  void fill_floats(const LineTable& line);
  void fill_bytes();

  Columns columns_{};
  int lanes_ = 1;
  std::vector<std::int32_t> value_, pixel_;  // of each slot
  std::vector<std::int32_t> start_;          // of each slot's first tap in the row
  Room<std::int32_t> offset_;
  Room<std::uint8_t> mask_;
  Room<float> weight_, shift_;
};

}  // namespace multigrid
