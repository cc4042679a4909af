// The CUDA kernel's code on the host.

#include <vector>

#include "resample_launch.h"
#include "resample_walker.h"

namespace multigrid {
namespace {

// A tile: its threads one after the other in each phase, in odd tiles the last first.
template <class Kind>
class HostTile {
 public:
  HostTile(const Launch& launch, std::uint32_t tile) : shared_(launch.tiling.words, poison), backwards_(tile % 2) {
    for (int i = 0; i < launch.tiling.threads; ++i) workers_.emplace_back(launch, tile, i, shared_.data());
  }

  template <class Out>
  void run() {
    each([&](int i) { workers_[i].fill_tables(); });
    each([&](int i) { workers_[i].bound(); });
    const Path path = path_of(workers_[0].launch, workers_[0].source);
    if (!path.sums)
      path.taps ? walk<Out, false, 2>() : walk<Out, false, 0>();
    else if (path.taps == 3)
      walk<Out, true, 3>();
    else if (path.taps == 4)
      walk<Out, true, 4>();
    else
      path.taps ? walk<Out, true, 6>() : walk<Out, true, 0>();
  }

 private:
  static constexpr std::uint32_t poison = 0x7fc0ffee;  // a NaN, and bytes that are no black

  template <class Phase>
  void each(Phase phase) const {
    const int threads = static_cast<int>(workers_.size());
    for (int i = 0; i < threads; ++i) phase(backwards_ ? threads - 1 - i : i);
  }

  template <class Out, bool Sums, int Taps>
  void walk() {
    std::vector<Walker<Kind, Out, Sums, Taps>> walkers(workers_.begin(), workers_.end());
    each([&](int i) { workers_[i].stage(0); });
    const int batches = workers_[0].batches();
    for (int batch = 0; batch < batches; ++batch)
      each([&](int i) {
        if (batch + 1 < batches) workers_[i].stage(batch + 1);
        walkers[i].walk(workers_[i], batch);
      });
  }

  std::vector<std::uint32_t> shared_;
  std::vector<Worker<Kind>> workers_;
  bool backwards_;
};

template <class Kind>
void run_kind(const Launch& launch) {
  for (std::uint32_t tile = 0; tile < launch.tiles(); ++tile) {
    switch (launch.dtype) {
      case DType::u8:
        HostTile<Kind>(launch, tile).template run<std::uint8_t>();
        break;
      case DType::f16:
        HostTile<Kind>(launch, tile).template run<Half>();
        break;
      case DType::bf16:
        HostTile<Kind>(launch, tile).template run<Bfloat16>();
        break;
      case DType::f32:
        HostTile<Kind>(launch, tile).template run<float>();
    }
  }
}

}  // namespace

void run_on_host(const Launch& launch) { launch.rgb ? run_kind<Rgb>(launch) : run_kind<Single>(launch); }

}  // namespace multigrid
