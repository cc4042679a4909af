// The part of the DLPack 1.x binary interface that reading a tensor needs, as published at
// dmlc.github.io/dlpack. A layout, not a library: it cannot change within a major version.
#pragma once

#include <cstdint>

namespace multigrid::dlpack {

struct Device {
  std::int32_t type, id;
};
constexpr std::int32_t host = 1, cuda = 2, pinned_host = 3, cuda_managed = 13;  // kDLCPU, kDLCUDA, ...

struct DataType {
  std::uint8_t code, bits;
  std::uint16_t lanes;
};
constexpr std::uint8_t unsigned_integer = 1, floating = 2, brain_float = 4;

struct Tensor {
  void* data;
  Device device;
  std::int32_t ndim;
  DataType dtype;
  std::int64_t* shape;
  std::int64_t* strides;  // in values; nullptr for a dense tensor before version 1.2
  std::uint64_t byte_offset;
};

struct Managed {  // the capsule "dltensor"
  Tensor tensor;
  void* context;
  void (*deleter)(Managed*);
};

struct Version {
  std::uint32_t major, minor;
};
constexpr std::uint64_t read_only = 1;

struct ManagedVersioned {  // the capsule "dltensor_versioned"
  Version version;
  void* context;
  void (*deleter)(ManagedVersioned*);
  std::uint64_t flags;
  Tensor tensor;
};

// What the capsule `type.__dlpack_c_exchange_api__` points to, since DLPack 1.3. It gives a tensor without its own
// capsule.
struct Exchange {
  Version version;
  Exchange* before;
  void* others[3];
  int (*borrow)(void* object, Tensor* tensor);  // nullptr, or 0 for success, else with a Python error
  void* stream;
};
constexpr const char* exchange_api = "dlpack_exchange_api";

}  // namespace multigrid::dlpack
