// The walk over clips and frames. A source row is filtered once, into a ring of float rows that stays in the first
// cache; an output row is the weighted sum of rows of the ring, stored at once.

#include <algorithm>
#include <atomic>
#include <cstring>
#include <exception>
#include <mutex>
#include <thread>

#include "resample.h"
#include "resample_columns.h"
#include "resample_rows.h"

namespace multigrid {
namespace {

std::vector<const RowCode*> runnable() {
  std::vector<const RowCode*> codes = {plain_code()};
#if defined(__x86_64__) && defined(__GNUC__)
  if (avx2_code() && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"))
    codes.push_back(avx2_code());
  if (avx512_code() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
    codes.push_back(avx512_code());
#endif
  if (neon_code()) codes.push_back(neon_code());
  return codes;
}

std::atomic<const RowCode*> chosen{nullptr};

const RowCode& row_code() {
  const RowCode* code = chosen.load(std::memory_order_relaxed);
  if (!code) chosen.store(code = runnable().back(), std::memory_order_relaxed);
  return *code;
}

// One past the highest byte of the video.
const char* end_of(const ClipView& video) {
  const auto up = [](std::int64_t pitch, std::int64_t size) { return pitch > 0 ? pitch * (size - 1) : 0; };
  return static_cast<const char*>(video.data) + up(video.pitch_t, video.t) + up(video.pitch_h, video.h) +
         up(video.pitch_w, video.w) + up(video.pitch_c, video.c) + bytes_of(video.dtype);
}

// An output larger than this is gone from the caches before anyone reads it, and is written past them.
constexpr std::int64_t cache_bytes = 32 << 20;

// One thread's tables and rows, for the clip it works on.
class Reader {
 public:
  Reader(const RowCode& code, const Options& options, const BatchView& out)
      : code_(code), options_(options), out_(out), past_caches_(out.b * out.clip_bytes() > cache_bytes) {}
  ~Reader() { code_.settle(); }

  void open(const ClipView& video, const Grid& grid, char* clip);
  void write_frame(std::int64_t i);

 private:
  // The filtered rows of one frame: wanted row p is at slot_[p], for the last few of the `filled`.
  struct Ring {
    Room<float> floats;
    std::int64_t frame, filled, fetched;
  };

  float* slot(Ring& ring, std::int64_t position) { return ring.floats.at_least(0) + slot_[position]; }
  void fetch(Ring& ring, std::int64_t most);
  void fill(Ring& ring, std::int64_t until);
  const std::uint8_t* bytes_of_row(const char* from, int copy);
  const float* floats_of_row(const char* from);
  void write_row(std::int64_t y, int frames, const float* frame_weight, char* frame);

  const RowCode& code_;
  const Options& options_;
  const BatchView& out_;
  const bool past_caches_;
  ClipView video_{};
  Cells t_{}, h_{}, w_{};
  char* clip_ = nullptr;
  const char* end_ = nullptr;
  Beyond beyond_{};
  bool packed_ = false;
  Ring rings_[2];
  std::vector<std::int64_t> slot_;
  std::int64_t fetch_rows_ = 0;
  LineTable frames_, lines_, across_;
  ColumnTable columns_;
  Room<std::uint8_t> bytes_[together];
  Room<float> floats_;
  Room<char> staged_;
  std::vector<const float*> rows_;
  std::vector<float> weights_;
};

void Reader::open(const ClipView& video, const Grid& grid, char* clip) {
  video_ = video;
  clip_ = clip;
  end_ = end_of(video);
  beyond_ = grid.beyond;
  t_ = cells_of(grid.t);
  h_ = cells_of(grid.h);
  w_ = cells_of(grid.w);
  packed_ = video.pitch_c == bytes_of(video.dtype) && video.pitch_w == video.c * video.pitch_c;
  if (options_.blend_frames) frames_.fill(t_, Filter::linear);
  lines_.fill(h_, options_.filter);
  across_.fill(w_, options_.filter);
  const bool planar = out_.layout == Layout::cthw && video.c == 3;
  columns_.fill(across_, w_.lo, scale_of(options_, video.dtype, out_.dtype, video.c), code_.lanes, planar,
                code_.bytes && video.dtype == DType::u8);
  rows_.resize(2 * lines_.count);
  weights_.resize(2 * lines_.count);
  const std::int64_t ring_floats = (lines_.count + together - 1) * columns_.row_floats();
  slot_.resize(lines_.wanted.size());
  std::int64_t place = 0;
  for (std::int64_t& slot : slot_) {
    slot = place;
    place = place + columns_.row_floats() < ring_floats ? place + columns_.row_floats() : 0;
  }
  for (Ring& ring : rings_) ring.floats.at_least(ring_floats);
  fetch_rows_ = 1 + (static_cast<std::int64_t>(lines_.wanted.size()) + out_.h - 1) / out_.h;
}

// The box's part of a row as bytes side by side, `reach` of them within the video's memory or a copy.
const std::uint8_t* Reader::bytes_of_row(const char* from, int copy) {
  const std::int64_t reach = columns_.columns().reach, width = w_.hi - w_.lo;
  if (packed_ && end_ - from >= reach) return reinterpret_cast<const std::uint8_t*>(from);
  std::uint8_t* bytes = bytes_[copy].at_least(std::max(reach, width * video_.c));
  if (packed_)
    std::memcpy(bytes, from, width * video_.c);
  else
    for (std::int64_t x = 0; x < width; ++x)
      for (std::int64_t c = 0; c < video_.c; ++c)
        std::memcpy(bytes + x * video_.c + c, from + x * video_.pitch_w + c * video_.pitch_c, 1);
  return bytes;
}

const float* Reader::floats_of_row(const char* from) {
  if (packed_ && video_.dtype == DType::f32 && reinterpret_cast<std::uintptr_t>(from) % alignof(float) == 0)
    return reinterpret_cast<const float*>(from);
  const std::int64_t width = w_.hi - w_.lo;
  float* floats = floats_.at_least(width * video_.c);
  code_.to_floats({from, video_.dtype, width, video_.c, video_.pitch_w, video_.pitch_c}, floats);
  return floats;
}

// Asks for a few rows that will be wanted soon: the caches take only so many requests at a time.
void Reader::fetch(Ring& ring, std::int64_t most) {
  const std::int64_t all = static_cast<std::int64_t>(lines_.wanted.size());
  const char* frame = static_cast<const char*>(video_.data) + ring.frame * video_.pitch_t + w_.lo * video_.pitch_w;
  ring.fetched = std::max(ring.fetched, ring.filled);
  const std::int64_t until = std::min({all, ring.filled + 2 * together, ring.fetched + most});
  for (; ring.fetched < until; ++ring.fetched)
    for (std::int64_t line = 0; line < columns_.columns().reach; line += 64)
      __builtin_prefetch(frame + lines_.wanted[ring.fetched] * video_.pitch_h + line);
}

// Filters the next rows that are wanted, `together` at a time, until `until` of them are there.
void Reader::fill(Ring& ring, std::int64_t until) {
  const std::int64_t all = static_cast<std::int64_t>(lines_.wanted.size());
  const char* frame = static_cast<const char*>(video_.data) + ring.frame * video_.pitch_t + w_.lo * video_.pitch_w;
  while (ring.filled < until) {
    const int count = static_cast<int>(std::min<std::int64_t>(together, all - ring.filled));
    const std::uint8_t* rows[together];
    float* out[together];
    for (int r = 0; r < count; ++r) {
      const char* from = frame + lines_.wanted[ring.filled + r] * video_.pitch_h;
      out[r] = slot(ring, ring.filled + r);
      if (columns_.columns().group)
        rows[r] = bytes_of_row(from, r);
      else
        code_.across_floats(floats_of_row(from), columns_.columns(), out[r]);
    }
    if (columns_.columns().group) code_.across_bytes(rows, count, columns_.columns(), out);
    ring.filled += count;
  }
}

void Reader::write_row(std::int64_t y, int frames, const float* frame_weight, char* frame) {
  int count = 0;
  for (int f = 0; f < frames; ++f) {
    const std::int64_t position = lines_.position[y];
    fill(rings_[f], position + lines_.own[y]);
    fetch(rings_[f], fetch_rows_);
    for (int t = 0; t < lines_.own[y]; ++t, ++count) {
      rows_[count] = slot(rings_[f], position + t);
      weights_[count] = lines_.weight[y * lines_.count + t] * frame_weight[f];
    }
  }
  const bool planar = out_.layout == Layout::cthw;
  const std::int64_t planes = planar ? out_.c : 1, bytes = out_.w * (planar ? 1 : out_.c) * bytes_of(out_.dtype);
  const std::int64_t plane = out_.t * out_.h * out_.w;
  const std::int64_t spare = h_.reversed || y + 1 == out_.h ? 0 : bytes / bytes_of(out_.dtype);
  char* to = frame + y * bytes;
  char* staged = past_caches_ ? staged_.at_least(planes * bytes) : nullptr;
  code_.down(rows_.data(), weights_.data(), count, columns_.columns(), out_.dtype, out_.layout,
             staged ? Place{staged, out_.w, out_.w, 0} : Place{to, out_.w, plane, spare});
  for (std::int64_t p = 0; staged && p < planes; ++p)
    code_.stream(to + p * plane * bytes_of(out_.dtype), staged + p * bytes, bytes);
}

void Reader::write_frame(std::int64_t i) {
  std::int64_t frames[2] = {0, -1};
  float weight[2] = {1, 0};
  int count = 1;
  if (options_.blend_frames) {
    count = frames_.own[i];
    for (int f = 0; f < count; ++f) {
      frames[f] = wrapped(frames_.first[i] + f, video_.t, beyond_);
      weight[f] = frames_.weight[i * frames_.count + f];
    }
    if (count == 2 && (weight[1] == 0 || frames[0] == frames[1])) weight[0] += weight[1], count = 1;
  } else {
    frames[0] = wrapped(frame_of(t_, t_.placed(i)), video_.t, beyond_);
  }
  for (int f = 0; f < count; ++f) rings_[f].frame = frames[f], rings_[f].filled = rings_[f].fetched = 0;
  const std::int64_t frame_values = out_.h * out_.w * (out_.layout == Layout::cthw ? 1 : out_.c);
  char* frame = clip_ + i * frame_values * bytes_of(out_.dtype);
  for (std::int64_t j = 0; j < out_.h; ++j) write_row(h_.placed(j), count, weight, frame);
}

// What is worth starting a thread for, in output values.
constexpr std::int64_t thread_values = 1 << 16;

// A stretch of the output frames of one clip.
struct Task {
  std::int64_t clip, begin, end;
};

std::vector<Task> tasks_for(const BatchView& out, int threads) {
  const std::int64_t wanted = threads == 1 ? 1 : (4 * threads + out.b - 1) / out.b;
  const std::int64_t parts = std::min({out.t, wanted, 1 + out.c * out.t * out.h * out.w / thread_values});
  std::vector<Task> tasks;
  for (std::int64_t clip = 0; clip < out.b; ++clip)
    for (std::int64_t part = 0; part < parts; ++part)
      tasks.push_back({clip, out.t * part / parts, out.t * (part + 1) / parts});
  return tasks;
}

}  // namespace

Scale scale_of(const Options& options, DType from, DType to, std::int64_t channels) {
  Scale scale;
  const double top = from == DType::u8 && to != DType::u8 ? 255 : 1;
  const auto of_channel = [](const std::vector<double>& values, std::int64_t c, double otherwise) {
    return values.empty() ? otherwise : values[values.size() == 1 ? 0 : c];
  };
  for (std::int64_t c = 0; c < channels; ++c) {
    const double mean = of_channel(options.mean, c, 0), std = of_channel(options.std, c, 1);
    scale.times.push_back(static_cast<float>(1 / (top * std)));
    scale.plus.push_back(static_cast<float>(-mean / std));
  }
  return scale;
}

void resample_cpu(const std::vector<ClipView>& videos, const std::vector<Grid>& grids, const Options& options,
                  const BatchView& out) {
  const RowCode& code = row_code();
  const std::vector<Task> tasks = tasks_for(out, options.threads);
  std::atomic<std::size_t> next{0};
  std::exception_ptr failure;
  std::mutex failing;
  const auto work = [&] {
    try {
      Reader reader(code, options, out);
      std::int64_t open = -1;
      for (std::size_t i = next++; i < tasks.size(); i = next++) {
        const std::int64_t clip = tasks[i].clip;
        char* to = static_cast<char*>(out.data) + clip * out.clip_bytes();
        if (clip != open) reader.open(videos[clip], grids[grids.size() == 1 ? 0 : clip], to);
        open = clip;
        for (std::int64_t t = tasks[i].begin; t < tasks[i].end; ++t) reader.write_frame(t);
      }
    } catch (...) {
      const std::lock_guard<std::mutex> lock(failing);
      failure = std::current_exception();
    }
  };
  std::vector<std::thread> threads;
  const std::int64_t worth = 1 + out.b * out.c * out.t * out.h * out.w / thread_values;
  const std::size_t helpers = std::min<std::size_t>(std::min<std::int64_t>(options.threads, worth), tasks.size()) - 1;
  try {
    threads.reserve(helpers);
    while (threads.size() < helpers) threads.emplace_back(work);
  } catch (...) {
    // No thread to be had: those there are, and this one, do the work.
  }
  work();
  for (std::thread& thread : threads) thread.join();
  if (failure) std::rethrow_exception(failure);
}

const char* vector_path() { return row_code().name; }

std::vector<const char*> vector_paths() {
  std::vector<const char*> names;
  for (const RowCode* code : runnable()) names.push_back(code->name);
  return names;
}

bool choose_vector_path(const char* name) {
  for (const RowCode* code : runnable())
    if (std::strcmp(code->name, name) == 0) {
      chosen.store(code);
      return true;
    }
  return false;
}

}  // namespace multigrid
