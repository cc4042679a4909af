// The CUDA kernel's code on the host.

#include <vector>

#include "resample_launch.h"
#include "resample_worker.h"

namespace multigrid {
namespace {

template <class Kind, class Out>
void run_tile(const Launch& launch, std::uint32_t tile) {
  using One = Worker<Kind, Out>;
  constexpr std::uint32_t poison = 0x7fc0ffee;  // a NaN, and bytes that are no black
  std::vector<std::uint32_t> shared(launch.tiling.words, poison);
  std::vector<One> workers;
  const int threads = launch.tiling.threads;
  for (int i = 0; i < threads; ++i) workers.emplace_back(launch, tile, i, shared.data());
  const auto each = [&](auto phase) {
    for (int i = 0; i < threads; ++i) phase(workers[tile % 2 ? threads - 1 - i : i]);
  };
  each([](One& worker) { worker.fill_tables(); });
  for (int batch = 0; batch <= workers[0].batches(); ++batch)
    each([&](One& worker) {
      if (batch < worker.batches()) worker.stage(batch);
      if (batch > 0) worker.walk(batch - 1);
    });
}

template <class Kind>
void run_kind(const Launch& launch) {
  for (std::uint32_t tile = 0; tile < launch.tiles(); ++tile) {
    switch (launch.dtype) {
      case DType::u8:
        run_tile<Kind, std::uint8_t>(launch, tile);
        break;
      case DType::f16:
        run_tile<Kind, Half>(launch, tile);
        break;
      case DType::bf16:
        run_tile<Kind, Bfloat16>(launch, tile);
        break;
      case DType::f32:
        run_tile<Kind, float>(launch, tile);
    }
  }
}

}  // namespace

void run_on_host(const Launch& launch) { launch.rgb ? run_kind<Rgb>(launch) : run_kind<Single>(launch); }

}  // namespace multigrid
