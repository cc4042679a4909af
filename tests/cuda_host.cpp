// pymultigrid._cuda_host: the CUDA kernel's code on the host, for tests. Built where pymultigrid is developed.

#include <pybind11/pybind11.h>

#include <vector>

#include "python/call.h"
#include "resample/cuda/launch.h"
#include "resample/cuda/walker.h"

namespace py = pybind11;

namespace multigrid {
namespace {

// A tile: its threads one after the other in each phase, in odd tiles the last first.
template <class Kind, class Out>
class HostTile {
 public:
  HostTile(const Launch& launch, std::uint32_t tile) : shared_(launch.tiling.words, poison), backwards_(tile % 2) {
    for (int i = 0; i < launch.tiling.threads; ++i) stagers_.emplace_back(launch, tile, i, shared_.data());
  }

  void run() {
    each([&](int i) { stagers_[i].fill_tables(); });
    each([&](int i) { stagers_[i].bound(); });
    with_walker(stagers_[0].launch, stagers_[0].source, Walk{this});
  }

 private:
  static constexpr std::uint32_t poison = 0x7fc0ffee;  // a NaN, and bytes that are no black

  struct Walk {
    HostTile* tile;

    template <bool Sums, int Taps>
    void walk() const {
      const std::vector<Stager<Kind>>& stagers = tile->stagers_;
      std::vector<Walker<Kind, Out, Sums, Taps>> walkers(stagers.begin(), stagers.end());
      tile->each([&](int i) { stagers[i].stage(0); });
      const int batches = stagers[0].batches();
      for (int batch = 0; batch < batches; ++batch)
        tile->each([&](int i) {
          if (batch + 1 < batches) stagers[i].stage(batch + 1);
          walkers[i].walk(stagers[i], batch);
        });
    }
  };

  template <class Phase>
  void each(Phase phase) const {
    const int threads = static_cast<int>(stagers_.size());
    for (int i = 0; i < threads; ++i) phase(backwards_ ? threads - 1 - i : i);
  }

  std::vector<std::uint32_t> shared_;
  std::vector<Stager<Kind>> stagers_;
  bool backwards_;
};

template <class Kind>
void run_kind(const Launch& launch) {
  for (std::uint32_t tile = 0; tile < launch.tiles(); ++tile)
    visit(launch.dtype, [&](auto zero) { HostTile<Kind, decltype(zero)>(launch, tile).run(); });
}

void run_on_host(const Launch& launch) { launch.rgb ? run_kind<Rgb>(launch) : run_kind<Single>(launch); }

// `resample` into `out`, on a GPU of so many multiprocessors: more make smaller tiles.
void resample_tiles(const py::object& video, const py::object& grid, const py::object& to, const py::object& mode,
                    const py::object& temporal, const py::object& antialias, const py::object& mean,
                    const py::object& std, const py::object& layout, int processors) {
  const Options options = options_from(mode, temporal, antialias, mean, std, 1);
  const Access access{1, true};
  const Videos videos = videos_from(video, access);
  const std::vector<Grid> grids = grids_from(grid, videos.views);
  check_grids(videos.views, grids);
  const Array array = array_from(to, "out", access);
  const BatchView out = batch_from(array, videos, grids, layout_from(layout));
  check_options(videos.views, options, out);
  launch_each(videos.views, grids, options, out, {processors, 160 * 1024}, run_on_host);
}

}  // namespace
}  // namespace multigrid

PYBIND11_MODULE(_cuda_host, m, py::mod_gil_not_used()) {
  py::module_::import("pymultigrid._core");  // whose Grid it takes
  m.def("resample_tiles", multigrid::resample_tiles, py::arg("video"), py::arg("grid"), py::arg("out"), py::arg("mode"),
        py::arg("temporal"), py::arg("antialias"), py::arg("mean"), py::arg("std"), py::arg("layout"),
        py::arg("processors"));
}
