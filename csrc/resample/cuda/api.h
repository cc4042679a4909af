// What pymultigrid._cuda provides to pymultigrid._core: plain functions that return nullptr or an error message.
#pragma once

namespace multigrid {

struct Launch;

// What the cut of a batch into tiles depends on: the number of multiprocessors, and the shared memory of one in bytes.
struct Gpu {
  int processors, shared;
};

struct CudaApi {
  const char* (*count)(int* devices);
  const char* (*size)(int device, Gpu* gpu);
  // Enqueues the launch on a stream of the device and returns immediately; the launch is copied.
  const char* (*run)(const Launch* launch, int device, void* stream);
};

constexpr const char* cuda_api = "pymultigrid.cuda_api";

}  // namespace multigrid

extern "C" {
const char* multigrid_cuda_count(int* devices);
const char* multigrid_cuda_size(int device, multigrid::Gpu* gpu);
const char* multigrid_cuda_run(const multigrid::Launch* launch, int device, void* stream);
}
