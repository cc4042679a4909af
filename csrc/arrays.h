// Array: what the core needs to know of a Python array, whoever made it.
#pragma once

#include <pybind11/pybind11.h>

#include <optional>
#include <string>
#include <vector>

#include "clip.h"

namespace multigrid {

constexpr int in_host_memory = -1;

struct Array {
  void* data;
  DType dtype;
  std::vector<std::int64_t> shape, pitch;  // pitch in bytes
  bool writable;
  int device;              // the number of a CUDA device, or in_host_memory
  pybind11::object owner;  // keeps `data` alive
};

// A CUDA stream as DLPack counts it: 1 is the legacy default stream, 2 the thread's, otherwise the handle. no_wait asks
// the exporter for no synchronisation: the array is ready, or not looked into.
using Stream = std::int64_t;
constexpr Stream no_wait = -1;

// NumPy arrays as they are; anything else by DLPack or the buffer protocol, without a copy. An array on a GPU is ready
// for work on `stream`. `name` is the argument, for the errors: TypeError for something that is no array in host or
// CUDA memory or has another dtype.
Array array_from(pybind11::handle object, const std::string& name, Stream stream = no_wait);

const char* name_of(DType dtype);
std::string text_of(const std::vector<std::int64_t>& shape);

}  // namespace multigrid
