// Cutting a batch into launches of the CUDA kernel, on the host.
#pragma once

#include <functional>

#include "resample/cuda/api.h"
#include "resample/cuda/tile.h"
#include "resample/resample.h"

namespace multigrid {

// Calls `run` for the batch: once for up to most_sources clips. Expects what check_grids and
// check_options passed; throws std::invalid_argument for what the kernel's 32-bit sizes and the shared memory do not
// hold.
void launch_each(const std::vector<ClipView>& videos, const std::vector<Grid>& grids, const Options& options,
                 const BatchView& out, const Gpu& gpu, const std::function<void(const Launch&)>& run);

}  // namespace multigrid
