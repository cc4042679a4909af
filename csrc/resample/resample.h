// Resampling: reads a video on a grid and writes the clip once, in the model's layout and dtype.
//
// Per axis, output cell i covers [start + i stride, start + (i + 1) stride), stride = span / size, and pixel k covers
// [k, k + 1). Only the pixels that the box [start, start + span) touches are looked at, as if the box had been cut out
// first. In space, with c the centre of the cell,
//
//   nearest    w_k = 1 for the pixel that holds c ("nearest-exact")
//   linear     w_k = max(0, 1 - |k + 1/2 - c|)
//   smooth     w_k = max(0, 1 - |k + 1/2 - c| / max(1, stride)): linear with antialias, as Pillow and torch
//   area       w_k = length of [k, k + 1) inside the cell
//
// and the weights of a cell are divided by their sum. In time, nearest takes frame floor(start + i stride) and linear
// blends as above; antialias acts in space only. With Grid::beyond clamp or loop a frame past the video's end is its
// last frame or frame k mod T. A negative span writes the same cells in reverse.
//
//   clip[c, i, j, l] = scale_c sum_k sum_m sum_n wt_ik wh_jm ww_ln video[k, m, n, c] + shift_c
//
// uint8 to float: scale = 1 / (255 std), shift = -mean / std. Float input: scale = 1 / std. uint8 to uint8: 1 and 0,
// rounded to nearest, ties to even. All sums are float32 of exact pixels, horizontal first.
#pragma once

#include <vector>

#include "plan/grid.h"
#include "resample/clip.h"
#include "resample/pulse.h"
#include "resample/taps.h"

namespace multigrid {

struct Options {
  Filter filter;
  bool blend_frames;
  std::vector<double> mean, std;  // empty, one value, or one per channel
  int threads;
};

// A value x of channel c becomes x * times[c] + plus[c].
struct Scale {
  std::vector<float> times, plus;
};
Scale scale_of(const Options& options, DType from, DType to, std::int64_t channels);

// The frames, of a video of `frames`, that temporal nearest takes: what a decoder has to read.
std::vector<std::int64_t> picked_frames(const Grid& grid, std::int64_t frames);

// The rows and columns of a video of h x w pixels that a grid reads; the rest may be cut off.
struct Box {
  std::int64_t top, bottom, left, right;
};
Box touched_box(const Grid& grid, std::int64_t h, std::int64_t w);

// Throw std::invalid_argument with the argument, its value, the rule and the next move. They read no pixels; the first
// does not need the output yet.
void check_grids(const std::vector<ClipView>& videos, const std::vector<Grid>& grids);
void check_options(const std::vector<ClipView>& videos, const Options& options, const BatchView& out);

// Writes clip i = videos[i] on grids[i], or on grids[0] if there is one grid for all. Expects checked arguments.
// Returns false if `interrupted` ended it; some of the clips are then not written.
bool resample_cpu(const std::vector<ClipView>& videos, const std::vector<Grid>& grids, const Options& options,
                  const BatchView& out, const Interrupted& interrupted);

// The vector code in use ("plain", "avx2", "avx512", "neon"), the ones that this machine can run, and a way to choose.
// All give the same values to the last few bits.
const char* vector_path();
std::vector<const char*> vector_paths();
bool choose_vector_path(const char* name);

}  // namespace multigrid
