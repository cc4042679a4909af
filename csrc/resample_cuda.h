// What pymultigrid._cuda gives to pymultigrid._core: plain functions that return nullptr, or what went wrong.
#pragma once

namespace multigrid {

struct Launch;

struct CudaDoors {
  const char* (*count)(int* devices);
  const char* (*processors)(int device, int* processors);
  // Puts the launch on a stream of the device and returns at once; the launch is copied.
  const char* (*run)(const Launch* launch, int device, void* stream);
};

constexpr const char* cuda_doors = "pymultigrid.cuda_doors";

}  // namespace multigrid

extern "C" {
const char* multigrid_cuda_count(int* devices);
const char* multigrid_cuda_processors(int device, int* processors);
const char* multigrid_cuda_run(const multigrid::Launch* launch, int device, void* stream);
}
