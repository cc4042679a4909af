#include "resample_launch.h"

#include <algorithm>
#include <limits>

#include "refuse.h"

namespace multigrid {
namespace {

constexpr std::int32_t most_threads = 256, most_words = 48 * 1024 / 4, usual_words = 32 * 1024 / 4, most_slots = 8;
constexpr int tiles_a_processor = 16;

// What the cut depends on: of all clips of a launch, the most that any needs.
class Cut {
 public:
  Cut(const Launch& launch, int processors) : launch_(launch) {
    Tiling& cut = tiling_;
    const std::int32_t pairs = (launch.w + 1) / 2, planes = launch.planes();
    across(std::max(1, (pairs + most_threads - 1) / most_threads));
    cut.planes = std::max(1, std::min({planes, most_threads / cut.pairs, std::int32_t{32}}));
    cut.rows = 1;
    while (!fits() && cut.planes > 1) cut.planes = (cut.planes + 1) / 2;
    while (!fits() && cut.pairs > 1) across(2 * cut.across);
    cut.in_depth = (planes + cut.planes - 1) / cut.planes;
    const std::int64_t wanted = std::int64_t{tiles_a_processor} * processors;
    const std::int64_t tiles = std::int64_t{launch.clips} * cut.in_depth * cut.across;
    const std::int64_t down = std::clamp<std::int64_t>((wanted + tiles - 1) / tiles, 1, (launch.h + 15) / 16);
    cut.rows = static_cast<std::int32_t>((launch.h + down - 1) / down);
    while (cut.rows > 1 && !fits()) cut.rows = (cut.rows + 1) / 2;
    cut.down = (launch.h + cut.rows - 1) / cut.rows;
    cut.threads = (cut.pairs * cut.planes + 31) / 32 * 32;
    cut.words = static_cast<std::int32_t>(std::max(words(1), std::min<std::int64_t>(words(most_slots), usual_words)));
  }

  bool fits() const { return words(1) <= most_words; }
  const Tiling& tiling() const { return tiling_; }

 private:
  void across(std::int32_t tiles) {
    const std::int32_t pairs = (launch_.w + 1) / 2;
    tiling_.pairs = (pairs + tiles - 1) / tiles;
    tiling_.across = (pairs + tiling_.pairs - 1) / tiling_.pairs;
  }

  std::int64_t words(int slots) const {
    std::int64_t most = 0;
    for (int i = 0; i < launch_.clips; ++i) most = std::max(most, words(launch_.sources[i], slots));
    return most;
  }

  // An upper bound on a tile's shared memory, with that many slots in each half of the staged rows.
  std::int64_t words(const Source& source, int slots) const {
    const Cells h = cells_of(source, 1, launch_.h), w = cells_of(source, 2, launch_.w);
    const std::int64_t h_taps = most_taps(h, launch_.filter), w_taps = most_taps(w, launch_.filter);
    const double stride = w.span / static_cast<double>(w.size);
    const std::int64_t reach = static_cast<std::int64_t>(2 * tiling_.pairs * stride) + w_taps + 2;
    const std::int64_t row = std::min(reach, w.hi - w.lo) + 4 + w_taps + 3;
    const std::int64_t planes = std::int64_t{tiling_.planes} * (launch_.blend ? 2 : 1);
    const std::int64_t late = std::max<std::int64_t>(0, w_taps - kept_taps) * 2 * tiling_.pairs;
    return planes_at + tiling_.planes * static_cast<std::int64_t>(sizeof(PlaneRows) / 4) + tiling_.rows * (2 + h_taps) +
           late + 4 + 2 * planes * slots * row;
  }

  const Launch& launch_;
  Tiling tiling_{};
};

bool one_dtype(const std::vector<ClipView>& videos, DType dtype) {
  return std::all_of(videos.begin(), videos.end(), [&](const ClipView& video) { return video.dtype == dtype; });
}

Source source_of(const ClipView& video, const Grid& grid) {
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
          static_cast<std::uint8_t>(video.dtype),
          static_cast<std::uint8_t>(grid.beyond),
          static_cast<std::uint16_t>(video.c)};
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
  launch.pixel_step = planar ? 1 : out.c;
  launch.row_step = out.w * launch.pixel_step;
  launch.channel_step = planar ? out.t * out.h * out.w : 1;
  launch.clip_step = out.c * out.t * out.h * out.w;
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
                 const BatchView& out, int processors, const std::function<void(const Launch&)>& run) {
  check_launch(videos, grids[0], options, out);
  Launch launch = launch_of(videos, grids[0], options, out);
  const std::int64_t all = static_cast<std::int64_t>(videos.size());
  for (std::int64_t done = 0; done < all; done += launch.clips) {
    launch.out = static_cast<char*>(out.data) + done * out.clip_bytes();
    launch.clips = static_cast<std::int32_t>(std::min<std::int64_t>(all - done, most_sources));
    for (std::int32_t i = 0; i < launch.clips; ++i)
      launch.sources[i] = source_of(videos[done + i], grids[grids.size() == 1 ? 0 : done + i]);
    const Cut cut(launch, processors);
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
