// The CUDA kernel's code on the host.

#include <vector>

#include "resample_launch.h"
#include "resample_walker.h"

namespace multigrid {
namespace {

// A tile: its threads one after the other in each phase, in odd tiles the last first.
template <class Kind, class Out>
class HostTile {
 public:
  HostTile(const Launch& launch, std::uint32_t tile) : shared_(launch.tiling.words, poison), backwards_(tile % 2) {
    for (int i = 0; i < launch.tiling.threads; ++i) workers_.emplace_back(launch, tile, i, shared_.data());
  }

  void run() {
    each([&](int i) { workers_[i].fill_tables(); });
    each([&](int i) { workers_[i].bound(); });
    with_walker(workers_[0].launch, workers_[0].source, Walk{this});
  }

 private:
  static constexpr std::uint32_t poison = 0x7fc0ffee;  // a NaN, and bytes that are no black

  struct Walk {
    HostTile* tile;

    template <bool Sums, int Taps>
    void walk() const {
      const std::vector<Worker<Kind>>& workers = tile->workers_;
      std::vector<Walker<Kind, Out, Sums, Taps>> walkers(workers.begin(), workers.end());
      tile->each([&](int i) { workers[i].stage(0); });
      const int batches = workers[0].batches();
      for (int batch = 0; batch < batches; ++batch)
        tile->each([&](int i) {
          if (batch + 1 < batches) workers[i].stage(batch + 1);
          walkers[i].walk(workers[i], batch);
        });
    }
  };

  template <class Phase>
  void each(Phase phase) const {
    const int threads = static_cast<int>(workers_.size());
    for (int i = 0; i < threads; ++i) phase(backwards_ ? threads - 1 - i : i);
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
        HostTile<Kind, std::uint8_t>(launch, tile).run();
        break;
      case DType::f16:
        HostTile<Kind, Half>(launch, tile).run();
        break;
      case DType::bf16:
        HostTile<Kind, Bfloat16>(launch, tile).run();
        break;
      case DType::f32:
        HostTile<Kind, float>(launch, tile).run();
    }
  }
}

}  // namespace

void run_on_host(const Launch& launch) { launch.rgb ? run_kind<Rgb>(launch) : run_kind<Single>(launch); }

}  // namespace multigrid
