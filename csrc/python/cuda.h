// Where arrays on a GPU go: pymultigrid._cuda, which is loaded when it is first asked for.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "resample/resample.h"

namespace multigrid {

// How the kernel was built, or why not.
std::string cuda_build();
// Nothing, or what CUDA lacks here.
std::optional<std::string> cuda_missing();

// Enqueued on the stream, which orders it after what made the videos and before what reads `out`: nobody waits.
void resample_cuda(const std::vector<ClipView>& videos, const std::vector<Grid>& grids, const Options& options,
                   const BatchView& out, int device, std::int64_t stream);

}  // namespace multigrid
