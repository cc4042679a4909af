// pymultigrid._cuda: hands the kernel's functions to pymultigrid._core.

#include <pybind11/pybind11.h>

#include "resample/cuda/api.h"

namespace py = pybind11;

PYBIND11_MODULE(_cuda, m, py::mod_gil_not_used()) {
  using namespace multigrid;
  static const CudaApi api{multigrid_cuda_count, multigrid_cuda_size, multigrid_cuda_run};
  m.attr("api") = py::capsule(&api, cuda_api);
}
