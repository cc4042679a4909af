#include "resample/cpu/reader.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace multigrid {

void Reader::open(const ClipView& video, const Grid& grid, char* clip) {
  video_ = video;
  clip_ = clip;
  beyond_ = grid.beyond;
  t_ = cells_of(grid.t);
  h_ = cells_of(grid.h);
  w_ = cells_of(grid.w);
  packed_ = video.pitch_c == bytes_of(video.dtype) && video.pitch_w == video.c * video.pitch_c;
  ClipView block = video;
  const bool dense_rows = std::abs(video.pitch_h) == video.w * video.c * bytes_of(video.dtype);
  if (!packed_ || !dense_rows) block.h = 1;
  if (block.h < video.h || std::abs(video.pitch_t) != video.h * std::abs(video.pitch_h)) block.t = 1;
  block_end_ = memory_of(block).end;
  block_pitch_t_ = block.t < video.t ? video.pitch_t : 0;
  block_pitch_h_ = block.h < video.h ? video.pitch_h : 0;
  if (options_.blend_frames) frames_.fill(t_, Filter::linear, pulse_);
  lines_.fill(h_, options_.filter, pulse_);
  across_.fill(w_, options_.filter, pulse_);
  const bool planar = out_.layout == Layout::cthw && video.c == 3;
  columns_.fill(across_, w_.lo, w_.hi, scale_of(options_, video.dtype, out_.dtype, video.c), code_, planar,
                code_.bytes && video.dtype == DType::u8, pulse_);
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

// The box's part of a row as `reach` contiguous bytes: in place if all are before the end of the video's memory, else a
// copy.
const std::uint8_t* Reader::bytes_of_row(const char* from, const char* end, int copy) {
  const std::int64_t reach = columns_.reach(), width = w_.hi - w_.lo;
  if (packed_ && end - from >= reach) return reinterpret_cast<const std::uint8_t*>(from);
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

// Prefetches a few rows that are needed soon; the caches accept only a limited number of requests at a time.
void Reader::fetch(Ring& ring, std::int64_t most) {
  const std::int64_t all = static_cast<std::int64_t>(lines_.wanted.size()), reach = columns_.reach();
  const char* frame = box_of(ring.frame);
  ring.fetched = std::max(ring.fetched, ring.filled);
  const std::int64_t until = std::min({all, ring.filled + 2 * together, ring.fetched + most});
  for (; ring.fetched < until; ++ring.fetched) {
    const char* from = frame + lines_.wanted[ring.fetched] * video_.pitch_h;
    for (std::int64_t line = 0; line < reach; line += 64) __builtin_prefetch(from + line);
  }
}

// Filters the next wanted rows, `together` at a time, until `until` of them are filled.
void Reader::fill(Ring& ring, std::int64_t until) {
  const std::int64_t all = static_cast<std::int64_t>(lines_.wanted.size());
  const char *frame = box_of(ring.frame), *end = block_end_ + ring.frame * block_pitch_t_;
  while (ring.filled < until) {
    const int count = static_cast<int>(std::min<std::int64_t>(together, all - ring.filled));
    const std::uint8_t* rows[together];
    float* out[together];
    for (int r = 0; r < count; ++r) {
      const std::int64_t row = lines_.wanted[ring.filled + r];
      out[r] = slot(ring, ring.filled + r);
      if (columns_.of_bytes())
        rows[r] = bytes_of_row(frame + row * video_.pitch_h, end + row * block_pitch_h_, r);
      else
        columns_.across_floats(code_, floats_of_row(frame + row * video_.pitch_h), out[r]);
    }
    if (columns_.of_bytes()) columns_.across_bytes(code_, rows, count, out);
    pulse_.beat(count * (columns_.row_floats() * across_.count + (w_.hi - w_.lo) * video_.c));
    ring.filled += count;
  }
}

// Reduces many rows to one: sums a few at a time, and adds those sums in double; see most_summed.
void Reader::sum_rows(int count) {
  const std::int64_t width = columns_.row_floats();
  float *zeros = sums_.at_least(2 * width), *sum = zeros + width;
  totals_.assign(width, 0.0);
  Columns unscaled{};
  unscaled.channels = 1;
  unscaled.shift = zeros;
  std::fill_n(zeros, width, 0.0f);
  for (int from = 0; from < count; from += summed_together) {
    const int own = std::min(summed_together, count - from);
    code_.down(rows_.data() + from, weights_.data() + from, own, unscaled, DType::f32, Layout::thwc,
               {sum, width, width, 0});
    for (std::int64_t i = 0; i < width; ++i) totals_[i] += sum[i];
    pulse_.beat(own * width);
  }
  for (std::int64_t i = 0; i < width; ++i) sum[i] = static_cast<float>(totals_[i]);
  rows_[0] = sum;
  weights_[0] = 1;
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
  if (count > most_summed) sum_rows(count), count = 1;
  pulse_.beat(count * columns_.row_floats());
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

}  // namespace multigrid
