// Many threads resample, share the ring of buffers and bound it, at once; built with ThreadSanitizer by
// test_resample_races.py. There is no interpreter and so no GIL that could hide a race.

#include <cstdio>
#include <thread>
#include <vector>

#include "resample/buffers.h"
#include "resample/resample.h"

using namespace multigrid;

int main() {
  const std::vector<unsigned char> pixels(4 * 64 * 96 * 3, 100);
  const ClipView video{pixels.data(), DType::u8, 4, 64, 96, 3, 64 * 96 * 3, 96 * 3, 3, 1};
  const Grid grid{{0, 4, 4}, {4.5, 50, 160}, {80, -70, 240}, Beyond::error};
  std::vector<std::thread> threads;
  std::vector<int> wrong(8);
  for (int k = 0; k < 8; ++k)
    threads.emplace_back([&, k] {
      for (int n = 0; n < 4; ++n) {
        const std::size_t values = std::size_t{3} * 3 * 4 * 160 * 240;
        const Buffer buffer = take_buffer(values * sizeof(float));
        const Options options{n % 2 ? Filter::smooth : Filter::linear, k % 2 == 1, {}, {}, 1 + n % 3};
        resample_cpu(std::vector(3, video), std::vector(3, grid), options,
                     {buffer.data, DType::f32, Layout::cthw, 3, 3, 4, 160, 240}, [] { return false; });
        for (std::size_t i = 0; i < values; ++i) {
          const float level = 255 * static_cast<float*>(buffer.data)[i];
          wrong[k] += level < 99.999f || level > 100.001f;
        }
        give_buffer(buffer);
        if (unused_buffer_bytes() > std::size_t{256} << 20) ++wrong[k];
        if (k == 0) set_buffer_limit(static_cast<std::size_t>(n % 3) << 24);
      }
    });
  for (std::thread& thread : threads) thread.join();
  int all = 0;
  for (const int one : wrong) all += one;
  std::printf("%d wrong values\n", all);
  return all != 0;
}
