// Cutting a batch into launches of the CUDA kernel, on the host.
#pragma once

#include <functional>

#include "resample/cuda/api.h"
#include "resample/cuda/tile.h"
#include "resample/resample.h"

namespace multigrid {

// Calls `run` for the batch, once per most_sources clips. Expects arguments that check_grids and check_options accept.
// Throws std::invalid_argument for what does not fit the kernel's 32-bit sizes or shared memory.
void launch_each(const std::vector<ClipView>& videos, const std::vector<Grid>& grids, const Options& options,
                 const BatchView& out, const Gpu& gpu, const std::function<void(const Launch&)>& run);

}  // namespace multigrid
