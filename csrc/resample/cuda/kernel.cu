// The kernel and its launch. The work of a thread is in stager.h and walker.h.

#include <cuda_runtime.h>

#include "resample/cuda/api.h"
#include "resample/cuda/walker.h"

namespace multigrid {
namespace {

template <class Kind, class Out>
struct Tiles {
  const Stager<Kind>& stager;

  template <bool Sums, int Taps>
  __device__ __forceinline__ void walk() const {
    Walker<Kind, Out, Sums, Taps> walker(stager);
    const int batches = stager.batches();
    stager.stage(0);
    for (int batch = 0; batch < batches; ++batch) {
      __pipeline_commit();
      __pipeline_wait_prior(0);
      __syncthreads();
      if (batch + 1 < batches) stager.stage(batch + 1);
      walker.walk(stager, batch);
    }
  }
};

// 64 registers a thread leave room for four blocks of 256 threads on a multiprocessor.
template <class Kind, class Out>
__global__ void __launch_bounds__(256, 4) resample_tiles(const __grid_constant__ Launch launch) {
  extern __shared__ uint4 shared[];
  const Stager<Kind> stager(launch, blockIdx.x, threadIdx.x, reinterpret_cast<std::uint32_t*>(shared));
  stager.fill_tables();
  __syncthreads();
  stager.bound();
  __syncthreads();
  with_walker(launch, stager.source, Tiles<Kind, Out>{stager});
}

template <class Kind>
const void* kernel_for(DType dtype) {
  return visit(dtype, [](auto zero) { return reinterpret_cast<const void*>(resample_tiles<Kind, decltype(zero)>); });
}

// Restores the caller's device.
class OnDevice {
 public:
  explicit OnDevice(int device) {
    error_ = cudaGetDevice(&before_);
    changed_ = error_ == cudaSuccess && before_ != device;
    if (changed_) error_ = cudaSetDevice(device);
  }
  ~OnDevice() {
    if (changed_) cudaSetDevice(before_);
  }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;
  cudaError_t error() const { return error_; }

 private:
  int before_ = 0;
  bool changed_ = false;
  cudaError_t error_;
};

const char* text(cudaError_t error) {
  if (error == cudaErrorNoKernelImageForDevice)
    return "this build of pymultigrid has no code for this GPU; build it again with CUDAARCHS=native, or for all GPUs";
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace
}  // namespace multigrid

using namespace multigrid;

extern "C" const char* multigrid_cuda_count(int* devices) {
  *devices = 0;
  const cudaError_t error = cudaGetDeviceCount(devices);
  if (error == cudaSuccess && *devices > 0) return nullptr;
  *devices = 0;
  cudaGetLastError();  // clears the error, which the next call would report otherwise
  if (error == cudaErrorInsufficientDriver) {
    int version = 0;
    cudaDriverGetVersion(&version);
    return version == 0 ? "no NVIDIA driver is installed" : "the NVIDIA driver is too old: CUDA 13 needs 580 or newer";
  }
  if (error == cudaSuccess || error == cudaErrorNoDevice)
    return "the NVIDIA driver sees no GPU: is there one, and is CUDA_VISIBLE_DEVICES right?";
  return cudaGetErrorString(error);
}

extern "C" const char* multigrid_cuda_size(int device, Gpu* gpu) {
  const cudaError_t error = cudaDeviceGetAttribute(&gpu->processors, cudaDevAttrMultiProcessorCount, device);
  if (error != cudaSuccess) return text(error);
  return text(cudaDeviceGetAttribute(&gpu->shared, cudaDevAttrMaxSharedMemoryPerMultiprocessor, device));
}

extern "C" const char* multigrid_cuda_run(const Launch* launch, int device, void* stream) {
  const OnDevice guard(device);
  if (guard.error() != cudaSuccess) return text(guard.error());
  const void* kernel = launch->rgb ? kernel_for<Rgb>(launch->dtype) : kernel_for<Single>(launch->dtype);
  void* arguments[] = {const_cast<Launch*>(launch)};
  // The L1 cache is not needed: all of it can be shared memory.
  cudaError_t error =
      cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared);
  if (error == cudaSuccess)
    error = cudaLaunchKernel(kernel, dim3(launch->tiles()), dim3(launch->tiling.threads), arguments,
                             launch->tiling.words * sizeof(std::uint32_t), static_cast<cudaStream_t>(stream));
  if (error != cudaSuccess) cudaGetLastError();
  return text(error);
}
