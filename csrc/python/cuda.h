// Calls pymultigrid._cuda for arrays on a GPU. It is loaded on first use.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "resample/resample.h"

namespace multigrid {

// How the kernel was built, or why not.
std::string cuda_build();
// Nothing, or what is missing to use CUDA.
std::optional<std::string> cuda_missing();

// Enqueued on the stream, which orders it after the work that made the videos and before the work that reads `out`,
// without synchronisation.
void resample_cuda(const std::vector<ClipView>& videos, const std::vector<Grid>& grids, const Options& options,
                   const BatchView& out, int device, std::int64_t stream);

}  // namespace multigrid
