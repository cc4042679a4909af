#include "resample_launch.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "refuse.h"

namespace multigrid {
namespace {

constexpr std::int32_t most_threads = 256, most_words = 48 * 1024 / 4, most_log_slots = 3;
constexpr std::int32_t most_warps = 32;      // of a multiprocessor, by their registers
constexpr std::int32_t rows_of_tables = 16;  // filling a tile's tables takes about as long as so many of its rows

// What the cut depends on: of all clips of a launch, the most that any needs.
class Cut {
 public:
  Cut(const Launch& launch, const Gpu& gpu) : launch_(launch) {
    Tiling& cut = tiling_;
    const std::int32_t pairs = (launch.w + 1) / 2, planes = launch.planes();
    for (int i = 0; i < launch.clips; ++i) {
      row_words_ = std::max<std::int64_t>(row_words_, row_words(launch.sources[i]));
      column_lines_ = std::max<std::int64_t>(column_lines_, 1 + up_to_4(launch.sources[i].column_taps));
    }
    across(std::max(1, (pairs + most_threads - 1) / most_threads));
    cut.planes = std::max(1, std::min({planes, most_threads / cut.pairs, std::int32_t{32}}));
    cut.rows = 1;
    while (!fits() && cut.planes > 1) cut.planes = (cut.planes + 1) / 2;
    while (!fits() && cut.pairs > 1) across(2 * cut.across);
    cut.in_depth = (planes + cut.planes - 1) / cut.planes;
    cut.planes = (planes + cut.in_depth - 1) / cut.in_depth;
    cut.threads = (cut.pairs * cut.planes + 31) / 32 * 32;
    const std::int64_t by_shared = gpu.shared / (4 * words(0) + 1024);
    const std::int64_t blocks = std::clamp<std::int64_t>(by_shared, 1, most_warps * 32 / cut.threads);
    cut.rows = best_rows(std::int64_t{launch.clips} * cut.in_depth * cut.across, blocks * gpu.processors);
    while (cut.rows > 1 && !fits()) cut.rows = (cut.rows + 1) / 2;
    cut.down = (launch.h + cut.rows - 1) / cut.rows;
    const std::int64_t share = std::min<std::int64_t>(gpu.shared / blocks - 1024, 4 * most_words) / 4;
    while (cut.log_slots < most_log_slots && words(cut.log_slots + 1) <= share) ++cut.log_slots;
    cut.rows_at = static_cast<std::int32_t>(rows_at());
    cut.columns_at = static_cast<std::int32_t>(columns_at());
    cut.staged_at = static_cast<std::int32_t>(staged_at());
    cut.words = static_cast<std::int32_t>(words(cut.log_slots));
    const std::int32_t rows = cut.planes * (launch.blend ? 2 : 1) << cut.log_slots;
    cut.log_lanes = 3;
    while (cut.log_lanes < 7 && rows << (cut.log_lanes + 1) <= cut.threads) ++cut.log_lanes;
  }

  bool fits() const { return words(0) <= most_words; }
  const Tiling& tiling() const { return tiling_; }

 private:
  void across(std::int32_t tiles) {
    const std::int32_t pairs = (launch_.w + 1) / 2;
    tiling_.pairs = (pairs + tiles - 1) / tiles;
    tiling_.across = (pairs + tiling_.pairs - 1) / tiling_.pairs;
    tiling_.staged_words = 0;
    for (int i = 0; i < launch_.clips; ++i)
      tiling_.staged_words =
          std::max(tiling_.staged_words, static_cast<std::int32_t>(staged_words(launch_.sources[i])));
  }

  // Rows of a tile, so that the blocks that run at once are done soonest: they take turns, and the last turn is as long
  // as the others, however few tiles are left for it. Half a turn on top stands for the beginning and the end, when the
  // memory is idle: all blocks fill their tables, and few are left. (Half, and 16 rows, were the best of those tried on
  // an H100 over the rows of benchmarks/resample_cuda.py.)
  std::int32_t best_rows(std::int64_t tiles, std::int64_t at_once) const {
    std::int32_t best = launch_.h;
    std::int64_t least = std::numeric_limits<std::int64_t>::max();
    for (std::int32_t down = 1; down <= (launch_.h + 15) / 16; ++down) {
      const std::int32_t rows = (launch_.h + down - 1) / down;
      const std::int64_t turns = (tiles * ((launch_.h + rows - 1) / rows) + at_once - 1) / at_once;
      const std::int64_t time = (2 * turns + 1) * (rows + rows_of_tables);
      if (time < least) least = time, best = rows;
    }
    return best;
  }

  // The shared memory's layout, in words, and how much it is.
  std::int64_t rows_at() const { return planes_at + plane_words * std::int64_t{tiling_.planes}; }
  std::int64_t columns_at() const { return rows_at() + (tiling_.rows + 1) * row_words_; }
  std::int64_t staged_at() const { return (columns_at() + column_lines_ * 2 * tiling_.pairs + 3) / 4 * 4; }
  std::int64_t words(std::int32_t log_slots) const {
    const std::int64_t staged = std::int64_t{tiling_.planes} * (launch_.blend ? 2 : 1) * tiling_.staged_words;
    return staged_at() + 2 * (staged << log_slots);
  }

  // An upper bound on a staged row: four words before it, its pixels, and those that a column's taps of weight 0 reach.
  std::int64_t staged_words(const Source& source) const {
    const Cells w = cells_of(source, 2, launch_.w);
    const double stride = w.span / static_cast<double>(w.size);
    const std::int64_t taps = up_to_4(source.column_taps);
    const std::int64_t reach = static_cast<std::int64_t>(2 * tiling_.pairs * stride) + taps + 2;
    const std::int64_t pixels = std::min(reach, w.hi - w.lo) + taps;
    return 4 + (launch_.rgb ? (15 + 3 * pixels + 8 + 15) / 16 * 4 : (pixels + 3) / 4 * 4);
  }

  const Launch& launch_;
  std::int64_t row_words_ = 0, column_lines_ = 5;
  Tiling tiling_{};
};

bool one_dtype(const std::vector<ClipView>& videos, DType dtype) {
  return std::all_of(videos.begin(), videos.end(), [&](const ClipView& video) { return video.dtype == dtype; });
}

Source source_of(const ClipView& video, const Grid& grid, Filter filter) {
  const std::int64_t row_taps = most_taps(cells_of(grid.h), filter);
  return {static_cast<const char*>(video.data),
          video.pitch_t,
          video.pitch_h,
          video.pitch_w,
          video.pitch_c,
          {grid.t.start, grid.h.start, grid.w.start},
          {grid.t.span, grid.h.span, grid.w.span},
          static_cast<std::int32_t>(video.t),
          static_cast<std::int32_t>(video.h),
          static_cast<std::int32_t>(video.w),
          static_cast<std::int32_t>(row_taps),
          static_cast<std::int32_t>(most_taps(cells_of(grid.w), filter)),
          static_cast<std::uint16_t>(video.c),
          static_cast<std::uint8_t>(video.dtype),
          static_cast<std::uint8_t>(grid.beyond),
          row_taps <= 2 && std::fabs(grid.h.stride()) > static_cast<double>(row_taps)};
}

// All but the sources and how they are cut.
Launch launch_of(const std::vector<ClipView>& videos, const Grid& grid, const Options& options, const BatchView& out) {
  Launch launch{};
  launch.c = static_cast<std::int32_t>(out.c);
  launch.t = static_cast<std::int32_t>(grid.t.size);
  launch.h = static_cast<std::int32_t>(grid.h.size);
  launch.w = static_cast<std::int32_t>(grid.w.size);
  launch.dtype = out.dtype;
  launch.layout = out.layout;
  launch.filter = options.filter;
  launch.rgb = out.c == 3 && one_dtype(videos, DType::u8);
  launch.blend = options.blend_frames;
  const bool side_by_side = out.layout == Layout::cthw || out.c == (launch.rgb ? 3 : 1);
  launch.paired =
      side_by_side && out.w % 2 == 0 && reinterpret_cast<std::uintptr_t>(out.data) % (2 * bytes_of(out.dtype)) == 0;
  const bool planar = out.layout == Layout::cthw;
  launch.pixel_step = (planar ? 1 : out.c) * bytes_of(out.dtype);
  launch.row_step = out.w * launch.pixel_step;
  launch.channel_step = (planar ? out.t * out.h * out.w : 1) * bytes_of(out.dtype);
  launch.clip_step = out.clip_bytes();
  const std::int64_t channels = std::min<std::int64_t>(out.c, most_channels);
  const Scale of_floats = scale_of(options, DType::f32, out.dtype, channels);
  const Scale of_bytes = scale_of(options, DType::u8, out.dtype, channels);
  for (int c = 0; c < most_channels; ++c) {
    launch.times[0][c] = of_floats.times[c % channels];
    launch.times[1][c] = of_bytes.times[c % channels];
    launch.plus[c] = of_bytes.plus[c % channels];
  }
  return launch;
}

std::int64_t tiles_of_a_clip(const Tiling& tiling) {
  return std::int64_t{tiling.in_depth} * tiling.down * tiling.across;
}

// What the kernel's 32-bit sizes do not hold.
void check_launch(const std::vector<ClipView>& videos, const Grid& grid, const Options& options, const BatchView& out) {
  constexpr std::int64_t most = std::numeric_limits<std::int32_t>::max() / 2;
  for (const ClipView& video : videos) {
    if (std::max({video.t, video.h, video.w, video.c * 32768}) > most)
      refuse("video is ", video.t, "x", video.h, "x", video.w, "x", video.c,
             " (T x H x W x C); on CUDA an axis has at most ", most, " frames or pixels and ", most / 32768,
             " channels: cut it first");
    if (reinterpret_cast<std::uintptr_t>(video.data) % bytes_of(video.dtype) != 0)
      refuse("video is not aligned to its dtype; copy it first");
  }
  if (grid.t.size * out.c > most) refuse("grid.t.size (", grid.t.size, ") is too large for one launch; split the clip");
  if (out.c > most_channels && std::max(options.mean.size(), options.std.size()) > 1)
    refuse("mean and std are for ", out.c, " channels; on CUDA they are for at most ", most_channels,
           ": give one number for all, or normalise the result");
}

}  // namespace

void launch_each(const std::vector<ClipView>& videos, const std::vector<Grid>& grids, const Options& options,
                 const BatchView& out, const Gpu& gpu, const std::function<void(const Launch&)>& run) {
  check_launch(videos, grids[0], options, out);
  Launch launch = launch_of(videos, grids[0], options, out);
  const std::int64_t all = static_cast<std::int64_t>(videos.size());
  for (std::int64_t done = 0; done < all; done += launch.clips) {
    launch.out = static_cast<char*>(out.data) + done * out.clip_bytes();
    launch.clips = static_cast<std::int32_t>(std::min<std::int64_t>(all - done, most_sources));
    for (std::int32_t i = 0; i < launch.clips; ++i)
      launch.sources[i] = source_of(videos[done + i], grids[grids.size() == 1 ? 0 : done + i], options.filter);
    const Cut cut(launch, gpu);
    if (!cut.fits())
      refuse("grid.h or grid.w has cells of thousands of pixels, which do not fit in the GPU's shared memory; ",
             "use a smaller stride, or the CPU");
    launch.tiling = cut.tiling();
    const std::int64_t most = std::numeric_limits<std::int32_t>::max() / tiles_of_a_clip(launch.tiling);
    launch.clips = static_cast<std::int32_t>(std::clamp<std::int64_t>(most, 1, launch.clips));
    run(launch);
  }
}

}  // namespace multigrid
