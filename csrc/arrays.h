// Array: what the core needs to know of a Python array, whoever made it.
#pragma once

#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "clip.h"

namespace multigrid {

struct Array {
  void* data;
  DType dtype;
  std::vector<std::int64_t> shape, pitch;  // pitch in bytes
  bool writable;
  pybind11::object owner;  // keeps `data` alive
};

// NumPy arrays as they are; anything else by DLPack or the buffer protocol, without a copy. `name` is the argument, for
// the errors: TypeError for something that is no array in host memory or has another dtype.
Array array_from(pybind11::handle object, const std::string& name);

const char* name_of(DType dtype);
std::string text_of(const std::vector<std::int64_t>& shape);

}  // namespace multigrid
