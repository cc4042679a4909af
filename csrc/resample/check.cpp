// The checks of resample, made before memory is touched. Errors state the argument, its value, the rule and the next
// move.

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "plan/limits.h"
#include "plan/refuse.h"
#include "resample/resample.h"

namespace multigrid {
namespace {

std::string item(const char* name, std::size_t i, std::size_t count) {
  return count == 1 ? name : std::string(name) + "s[" + std::to_string(i) + "]";
}

// Above this, 2^-24 of a pixel is below the last place of a double.
bool placed_exactly(const Axis& axis) {
  constexpr double most = 1 << 28;
  return std::fabs(axis.start) < most && std::fabs(axis.span) < most;
}

void check_axis(const Axis& axis, std::int64_t extent, bool may_pass, const std::string& name, const char* unit) {
  const auto axis_text = [&] {
    return joined("Axis(start=", axis.start, ", span=", axis.span, ", size=", axis.size, ")");
  };
  if (axis.size < 1) refuse(name, ".size (", axis.size, ") must be at least 1");
  if (!std::isfinite(axis.start) || !std::isfinite(axis.span)) refuse(name, " = ", axis_text(), " must be finite");
  if (axis.span == 0) refuse(name, ".span (0) must not be 0: an axis covers part of the video");
  const Cells cells = placed_exactly(axis) ? cells_of(axis) : Cells{0, 0, 1, -1, 0, false};
  if (cells.lo < 0 || (cells.hi > extent && !may_pass))
    refuse(name, " = ", axis_text(), " must lie inside the video's ", extent, " ", unit,
           may_pass ? " or pass only their end" : "", "; move or shrink it",
           unit[0] == 'f' && !may_pass ? ", or read short videos with Grid(..., beyond='clamp' or 'loop')" : "");
}

void check_sizes(const ClipView& video, const std::string& name) {
  if (video.t < 1 || video.h < 1 || video.w < 1 || video.c < 1)
    refuse(name, " is ", video.t, "x", video.h, "x", video.w, "x", video.c, " (T x H x W x C); no axis may be empty");
}

void check_moment(const std::vector<double>& values, const char* name, std::int64_t channels, DType dtype) {
  if (values.empty()) return;
  if (dtype == DType::u8)
    refuse(name, " needs a float dtype: uint8 output is not normalised. Leave ", name, " out or set dtype='float32'");
  if (values.size() != 1 && values.size() != static_cast<std::size_t>(channels))
    refuse(name, " has ", values.size(), " values and the video ", channels,
           " channels; pass one number or one per channel");
  for (const double value : values) {
    if (!std::isfinite(value)) refuse(name, " (", value, ") must be finite");
    if (value == 0 && std::string(name) == "std") refuse("std (0) must not be 0");
  }
}

void check_scale(const Options& options, DType to, std::int64_t channels) {
  const auto moments = static_cast<std::int64_t>(std::max(options.mean.size(), options.std.size()));
  const Scale scale = scale_of(options, DType::f32, to, std::min(channels, moments));
  for (std::size_t c = 0; c < scale.times.size(); ++c) {
    const auto of_channel = [c](const std::vector<double>& values) { return values[values.size() == 1 ? 0 : c]; };
    if (!std::isfinite(scale.times[c]))
      refuse("std (", of_channel(options.std), ") is too small: 1 / std must be a float32");
    if (!std::isfinite(scale.plus[c]))
      refuse("mean (", of_channel(options.mean), ") / std must be a float32; is one of them on another scale?");
  }
}

bool overlap(const ClipView& video, const BatchView& out) {
  const Memory memory = memory_of(video);
  const char* from = static_cast<const char*>(out.data);
  return memory.begin < from + out.b * out.clip_bytes() && from < memory.end;
}

}  // namespace

std::vector<std::int64_t> picked_frames(const Grid& grid, std::int64_t frames) {
  if (grid.t.size > most_size) refuse("grid.t.size (", grid.t.size, ") must be at most ", most_size);
  if (!placed_exactly(grid.t))
    refuse("the grid reads ", grid.t.span, " frames from ", grid.t.start, ", which no video has; draw the grid again");
  const Cells cells = cells_of(grid.t);
  if (cells.lo < 0 || (grid.beyond == Beyond::error && cells.hi > frames))
    refuse("the grid reads frames ", cells.lo, " to ", cells.hi - 1, " of a video of ", frames,
           "; draw it for that length, or with beyond=\"clamp\" or \"loop\"");
  std::vector<std::int64_t> picked;
  for (std::int64_t i = 0; i < grid.t.size; ++i)
    picked.push_back(wrapped(frame_of(cells, cells.placed(i)), frames, grid.beyond));
  return picked;
}

Box touched_box(const Grid& grid, std::int64_t h, std::int64_t w) {
  check_axis(grid.h, h, false, "grid.h", "rows");
  check_axis(grid.w, w, false, "grid.w", "columns");
  const Cells rows = cells_of(grid.h), columns = cells_of(grid.w);
  return {rows.lo, rows.hi, columns.lo, columns.hi};
}

void check_grids(const std::vector<ClipView>& videos, const std::vector<Grid>& grids) {
  if (videos.empty()) refuse("videos is empty; pass at least one video");
  if (grids.size() != 1 && grids.size() != videos.size())
    refuse("grids has ", grids.size(), " grids for ", videos.size(), " videos; pass one for all or one for each");
  const Grid& first = grids[0];
  constexpr double widest = (1 << 27) - 1;
  for (std::size_t i = 0; i < videos.size(); ++i) {
    const ClipView& video = videos[i];
    const std::string name = item("video", i, videos.size());
    check_sizes(video, name);
    if (video.c != videos[0].c)
      refuse(name, " has ", video.c, " channels and videos[0] ", videos[0].c, "; a batch needs the same in all");
    if (static_cast<double>(video.w) * static_cast<double>(video.c) > widest)
      refuse(name, " has rows of ", video.w, "x", video.c, " values; at most ", static_cast<std::int64_t>(widest),
             " fit: cut it first");
    const std::size_t g = grids.size() == 1 ? 0 : i;
    const Grid& grid = grids[g];
    const std::string of_grid = item("grid", g, grids.size());
    check_axis(grid.t, video.t, grid.beyond != Beyond::error, of_grid + ".t", "frames");
    check_axis(grid.h, video.h, false, of_grid + ".h", "rows");
    check_axis(grid.w, video.w, false, of_grid + ".w", "columns");
    if (grid.t.size != first.t.size || grid.h.size != first.h.size || grid.w.size != first.w.size)
      refuse(of_grid, " has size ", grid.t.size, "x", grid.h.size, "x", grid.w.size, " and grids[0] ", first.t.size,
             "x", first.h.size, "x", first.w.size, "; a batch needs the same in all");
  }
  const double row = static_cast<double>(first.w.size) * static_cast<double>(videos[0].c);
  const double values =
      row * static_cast<double>(first.h.size) * static_cast<double>(first.t.size) * static_cast<double>(videos.size());
  if (row > widest || static_cast<double>(first.h.size) > widest || values > 0x1p56)
    refuse("grid of size ", first.t.size, "x", first.h.size, "x", first.w.size, " for ", videos.size(), " videos of ",
           videos[0].c, " channels does not fit in memory: use smaller sizes");
}

void check_options(const std::vector<ClipView>& videos, const Options& options, const BatchView& out) {
  check_moment(options.mean, "mean", out.c, out.dtype);
  check_moment(options.std, "std", out.c, out.dtype);
  check_scale(options, out.dtype, out.c);
  if (videos[0].dtype == DType::u8)
    for (const double mean : options.mean)
      if (std::fabs(mean) > 1)
        refuse("mean (", mean,
               ") is on the 0..1 scale: pixels are divided by 255 first; divide mean and std by 255, too");
  for (std::size_t i = 0; i < videos.size(); ++i) {
    const std::string name = item("video", i, videos.size());
    if (out.dtype == DType::u8 && videos[i].dtype != DType::u8)
      refuse(name, " is float and dtype uint8; a float video has no 0..255 scale: use a float dtype");
    if (overlap(videos[i], out)) refuse("out overlaps ", name, " in memory; give out its own memory");
  }
}

}  // namespace multigrid
