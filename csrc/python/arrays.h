// Array: what the core needs to know about a Python array of any library.
#pragma once

#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "resample/clip.h"

namespace multigrid {

constexpr int in_host_memory = -1;

struct Array {
  void* data;
  DType dtype;
  std::vector<std::int64_t> shape, pitch;  // pitch in bytes
  bool writable;                           // as far as its library says
  int device;                              // the number of a CUDA device, or in_host_memory
  pybind11::object owner;                  // keeps `data` alive
};

// A CUDA stream as DLPack numbers it: 1 is the legacy default stream, 2 the thread's, otherwise the handle.
using Stream = std::int64_t;

// How arrays are accessed. `vouched`: the library that made them guarantees that they are ready for work on the stream
// and may be written, so that no synchronisation or check is needed.
struct Access {
  Stream stream;
  bool vouched;
};

// NumPy arrays as they are; anything else by DLPack or the buffer protocol, without a copy. An array on a GPU is ready
// for work on the stream. `name` is the argument, for the errors: TypeError for anything but an array of a supported
// dtype in host or CUDA memory, ValueError for one without memory behind it.
Array array_from(pybind11::handle object, const std::string& name, const Access& access);

std::string text_of(const std::vector<std::int64_t>& shape);

}  // namespace multigrid
