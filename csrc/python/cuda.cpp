#include "python/cuda.h"

#include <pybind11/gil_safe_call_once.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "python/bind.h"
#include "python/module.h"
#include "python/unlocked.h"
#include "resample/cuda/api.h"
#include "resample/cuda/launch.h"

namespace py = pybind11;

namespace multigrid {
namespace {

// pymultigrid._cuda, or why it is missing.
struct CudaModule {
  const CudaApi* api;
  std::string missing;
};

const CudaModule& cuda_module() {
  // The import may release the GIL. With a plain static, a second thread would wait for the first while it holds the
  // GIL.
  PYBIND11_CONSTINIT static py::gil_safe_call_once_and_store<CudaModule> module;
  const auto load = []() -> CudaModule {
    try {
      const py::capsule capsule = py::module_::import("pymultigrid._cuda").attr("api");
      return {static_cast<const CudaApi*>(capsule.get_pointer()), ""};
    } catch (py::error_already_set& error) {
      if (error.matches(PyExc_ModuleNotFoundError))
        return {nullptr, "this build of pymultigrid has no CUDA kernel (" PYMULTIGRID_CUDA_BUILD ")"};
      if (!error.matches(PyExc_ImportError)) throw;
      return {nullptr, "pymultigrid's CUDA kernel (" PYMULTIGRID_CUDA_BUILD ") does not load: " +
                           py::str(error.value()).cast<std::string>()};
    }
  };
  return module.call_once_and_store_result(load).get_stored();
}

void check_cuda(const char* problem) {
  if (problem) throw std::runtime_error(std::string("CUDA: ") + problem);
}

}  // namespace

std::string cuda_build() { return PYMULTIGRID_CUDA_BUILD; }

std::optional<std::string> cuda_missing() {
  const CudaApi* api = cuda_module().api;
  if (!api) return cuda_module().missing;
  int devices;
  const char* problem = api->count(&devices);
  return problem ? std::optional<std::string>(problem) : std::nullopt;
}

void resample_cuda(const std::vector<ClipView>& videos, const std::vector<Grid>& grids, const Options& options,
                   const BatchView& out, int device, std::int64_t stream) {
  const CudaApi* api = cuda_module().api;
  if (!api) throw std::runtime_error("video is on a GPU, and " + *cuda_missing() + "; pass it in host memory");
  Gpu gpu;
  check_cuda(api->size(device, &gpu));
  const Unlocked unlocked;
  void* const handle = reinterpret_cast<void*>(stream);  // NOLINT(performance-no-int-to-ptr): Python's form of it
  launch_each(videos, grids, options, out, gpu,
              [&](const Launch& launch) { check_cuda(api->run(&launch, device, handle)); });
}

void bind_cuda(py::module_& m) {
  define(m, "cuda_missing", cuda_missing, "cuda_missing()", "None, or what is missing to use CUDA.");
  define(m, "cuda_build", cuda_build, "cuda_build()", "How the CUDA kernel was built, or why not.");
}

}  // namespace multigrid
