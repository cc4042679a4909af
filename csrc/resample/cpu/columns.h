// LineTable, ColumnTables: the taps of a clip's columns and rows, computed once per clip.
#pragma once

#include <cstdint>
#include <memory>
#include <new>
#include <vector>

#include "resample/cpu/rows.h"
#include "resample/resample.h"
#include "resample/taps.h"

namespace multigrid {

// Memory that only grows, aligned to a cache line.
template <class T>
class Scratch {
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
// `wanted` are the pixels that any cell reads, in order, and position[i] is the index of first[i] among them.
struct LineTable {
  int count = 0;
  std::vector<std::int64_t> first, wanted, position;
  std::vector<int> own;
  std::vector<float> weight;

  void fill(const Cells& cells, Filter filter, Pulse& pulse);
};

// Sums of more products than this are split into shorter ones, which are added in double, because a float32 sum of
// thousands of products loses accuracy.
constexpr int most_summed = 64, summed_together = 32;

// Columns with its memory. `bytes`: rows are contiguous uint8, and the code has the byte shuffle.
class ColumnTable {
 public:
  void fill(const LineTable& line, std::int64_t lo, std::int64_t hi, const Scale& scale, int lanes, bool planar,
            bool bytes, Pulse& pulse);
  const Columns& columns() const { return columns_; }
  std::int64_t row_floats() const { return std::int64_t{columns_.vectors} * 4 * lanes_; }

 private:
  void order_values(std::int64_t values);
  bool choose_group(bool bytes);
  void fill_weights(const LineTable& line, const Scale& scale, Pulse& pulse);
  void fill_floats(const LineTable& line, Pulse& pulse);
  void end_inside(std::int64_t pixels);
  void fill_bytes(std::int64_t width, Pulse& pulse);

  Columns columns_{};
  int lanes_ = 1;
  std::vector<std::int32_t> value_, pixel_;  // of each slot
  std::vector<std::int32_t> start_;          // of each slot's first tap in the row
  std::vector<int> early_;                   // by how many taps it precedes the cell's own first
  Scratch<std::int32_t> offset_;
  Scratch<std::uint8_t> mask_;
  Scratch<float> weight_, shift_;
};

// The columns of a clip: one table or, for wide cells, several tables of a few taps each.
class ColumnTables {
 public:
  void fill(const LineTable& line, std::int64_t lo, std::int64_t hi, const Scale& scale, const RowCode& code,
            bool planar, bool bytes, Pulse& pulse);
  const Columns& columns() const { return tables_[0].columns(); }
  std::int64_t row_floats() const { return tables_[0].row_floats(); }
  bool of_bytes() const { return columns().group > 0; }
  std::int64_t reach() const { return reach_; }  // as in Columns, over all tables

  // Filter source rows, like RowCode.
  void across_bytes(const RowCode& code, const std::uint8_t* const* rows, int count, float* const* out);
  void across_floats(const RowCode& code, const float* row, float* out);

 private:
  template <class Across>
  void add_tables(int count, float* const* out, Across across);

  std::vector<ColumnTable> tables_;
  std::size_t used_ = 0;
  std::int64_t reach_ = 0;
  LineTable part_;
  Scratch<float> floats_;
  std::vector<double> sums_;
};

}  // namespace multigrid
