#include "resample/cuda/launch.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "plan/refuse.h"

namespace multigrid {
namespace {

constexpr std::int32_t most_threads = 256, most_words = 48 * 1024 / 4, most_log_slots = 3;
constexpr std::int32_t most_warps = 32;      // per multiprocessor, limited by registers
constexpr std::int32_t rows_of_tables = 16;  // filling a tile's tables takes about as long as this many rows

// Columns of a tile, the number of tiles that gives, and the words of a staged row.
struct Columns {
  std::int32_t pairs, tiles, staged_words;
};

// Planes of a tile, and the number of tiles that gives.
struct Planes {
  std::int32_t planes, tiles;
};

// Cuts the clips of a launch into tiles, in this order: columns, planes, rows, and the layout of shared memory.
class Cut {
 public:
  Cut(const Launch& launch, const Gpu& gpu) : launch_(launch), gpu_(gpu) {
    for (int i = 0; i < launch.clips; ++i) {
      row_words_ = std::max<std::int64_t>(row_words_, row_words(launch.sources[i]));
      column_lines_ = std::max<std::int64_t>(column_lines_, 1 + up_to_4(launch.sources[i].column_taps));
    }
  }

  // Empty if not even the smallest tile fits into shared memory.
  std::optional<Tiling> tiling() const {
    const std::int32_t pairs = (launch_.w + 1) / 2, planes = launch_.planes();
    Columns columns = in_tiles(std::max(1, (pairs + most_threads - 1) / most_threads));
    std::int32_t deep = std::max(1, std::min({planes, most_threads / columns.pairs, std::int32_t{32}}));
    while (!fits(columns, deep, 1) && deep > 1) deep = (deep + 1) / 2;
    while (!fits(columns, deep, 1) && columns.pairs > 1) columns = in_tiles(2 * columns.tiles);
    if (!fits(columns, deep, 1)) return std::nullopt;
    const std::int32_t stacks = (planes + deep - 1) / deep;
    return tiling(columns, {(planes + stacks - 1) / stacks, stacks});
  }

 private:
  Tiling tiling(const Columns& columns, const Planes& planes) const {
    const std::int32_t threads = (columns.pairs * planes.planes + 31) / 32 * 32;
    const std::int64_t by_shared = gpu_.shared / (4 * layout(columns, planes.planes, 1, 0).words + 1024);
    const std::int64_t blocks = std::clamp<std::int64_t>(by_shared, 1, most_warps * 32 / threads);
    std::int32_t rows = best_rows(std::int64_t{launch_.clips} * planes.tiles * columns.tiles, blocks * gpu_.processors);
    while (rows > 1 && !fits(columns, planes.planes, rows)) rows = (rows + 1) / 2;
    const std::int64_t share = std::min<std::int64_t>(gpu_.shared / blocks - 1024, 4 * most_words) / 4;
    std::int32_t log_slots = 0;
    while (log_slots < most_log_slots && layout(columns, planes.planes, rows, log_slots + 1).words <= share)
      ++log_slots;
    const std::int32_t staged = planes.planes * (launch_.blend ? 2 : 1) << log_slots;
    std::int32_t log_lanes = 3;
    while (log_lanes < 7 && staged << (log_lanes + 1) <= threads) ++log_lanes;
    const Places at = layout(columns, planes.planes, rows, log_slots);
    Tiling cut{};
    cut.pairs = columns.pairs, cut.rows = rows, cut.planes = planes.planes;
    cut.across = columns.tiles, cut.down = (launch_.h + rows - 1) / rows, cut.in_depth = planes.tiles;
    cut.threads = threads, cut.log_slots = log_slots, cut.log_lanes = log_lanes;
    cut.rows_at = static_cast<std::int32_t>(at.rows_at);
    cut.columns_at = static_cast<std::int32_t>(at.columns_at);
    cut.staged_at = static_cast<std::int32_t>(at.staged_at);
    cut.staged_words = columns.staged_words;
    cut.words = static_cast<std::int32_t>(at.words);
    return cut;
  }

  Columns in_tiles(std::int32_t tiles) const {
    const std::int32_t all = (launch_.w + 1) / 2, pairs = (all + tiles - 1) / tiles;
    std::int64_t staged = 0;
    for (int i = 0; i < launch_.clips; ++i) staged = std::max(staged, staged_words(launch_.sources[i], pairs));
    return {pairs, (all + pairs - 1) / pairs, static_cast<std::int32_t>(staged)};
  }

  // Chooses the rows of a tile that minimise the predicted time. Blocks run in waves, and the last wave takes as long
  // as the others, however few tiles are left for it. Half a wave is added for the start, when all blocks fill their
  // tables, and the end, when few blocks are left; memory is idle in both. (Half a wave and 16 rows were the best of
  // the values tried on an H100 over the rows of benchmarks/resample_cuda.py.)
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

  // The layout of a tile's shared memory and its size, in words.
  struct Places {
    std::int64_t rows_at, columns_at, staged_at, words;
  };

  Places layout(const Columns& columns, std::int64_t planes, std::int64_t rows, std::int32_t log_slots) const {
    const std::int64_t staged = planes * (launch_.blend ? 2 : 1) * columns.staged_words;
    Places at{};
    at.rows_at = planes_at + plane_words * planes;
    at.columns_at = at.rows_at + (rows + 1) * row_words_;
    at.staged_at = (at.columns_at + column_lines_ * 2 * columns.pairs + 3) / 4 * 4;
    at.words = at.staged_at + 2 * (staged << log_slots);
    return at;
  }

  bool fits(const Columns& columns, std::int64_t planes, std::int64_t rows) const {
    return layout(columns, planes, rows, 0).words <= most_words;
  }

  // Upper bound on a staged row: four words before it, its pixels, and the pixels under taps of weight 0.
  std::int64_t staged_words(const Source& source, std::int32_t pairs) const {
    const Cells w = cells_of(source, 2, launch_.w);
    const double stride = w.span / static_cast<double>(w.size);
    const std::int64_t taps = up_to_4(source.column_taps);
    const std::int64_t reach = static_cast<std::int64_t>(2 * pairs * stride) + taps + 2;
    const std::int64_t pixels = std::min(reach, w.hi - w.lo) + taps;
    return 4 + (launch_.rgb ? (15 + 3 * pixels + 8 + 15) / 16 * 4 : (pixels + 3) / 4 * 4);
  }

  const Launch& launch_;
  const Gpu& gpu_;
  std::int64_t row_words_ = 0, column_lines_ = 5;  // the most that any clip needs
};

bool one_dtype(const std::vector<ClipView>& videos, DType dtype) {
  return std::all_of(videos.begin(), videos.end(), [&](const ClipView& video) { return video.dtype == dtype; });
}

Source source_of(const ClipView& video, const Grid& grid, Filter filter) {
  const std::int64_t row_taps = most_taps(cells_of(grid.h), filter);
  Source source{};
  source.data = static_cast<const char*>(video.data);
  source.pitch_t = video.pitch_t, source.pitch_h = video.pitch_h;
  source.pitch_w = video.pitch_w, source.pitch_c = video.pitch_c;
  const Axis* axes[] = {&grid.t, &grid.h, &grid.w};
  for (int i = 0; i < 3; ++i) source.start[i] = axes[i]->start, source.span[i] = axes[i]->span;
  source.t = static_cast<std::int32_t>(video.t);
  source.h = static_cast<std::int32_t>(video.h);
  source.w = static_cast<std::int32_t>(video.w);
  source.c = static_cast<std::uint16_t>(video.c);
  source.row_taps = static_cast<std::int32_t>(row_taps);
  source.column_taps = static_cast<std::int32_t>(most_taps(cells_of(grid.w), filter));
  source.dtype = static_cast<std::uint8_t>(video.dtype);
  source.beyond = static_cast<std::uint8_t>(grid.beyond);
  source.skips = row_taps <= 2 && std::fabs(grid.h.stride()) > static_cast<double>(row_taps);
  return source;
}

// All fields except the sources and their tiling.
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

// Refuses what the kernel's 32-bit sizes cannot hold.
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
           ": pass one number for all, or normalise the result");
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
    const std::optional<Tiling> tiling = Cut(launch, gpu).tiling();
    if (!tiling)
      refuse("grid.h or grid.w has cells of thousands of pixels, which do not fit in the GPU's shared memory; ",
             "use a smaller stride, or the CPU");
    launch.tiling = *tiling;
    const std::int64_t most = std::numeric_limits<std::int32_t>::max() / tiles_of_a_clip(launch.tiling);
    launch.clips = static_cast<std::int32_t>(std::clamp<std::int64_t>(most, 1, launch.clips));
    run(launch);
  }
}

}  // namespace multigrid
