#include "arrays.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include "dlpack_abi.h"

namespace py = pybind11;

namespace multigrid {
namespace {

const std::string dtypes = "uint8, float16, float32 and bfloat16";

[[noreturn]] void refuse_dtype(const std::string& name, const std::string& dtype) {
  throw py::type_error(name + " has dtype " + dtype + "; " + dtypes + " can be resampled: convert it first");
}

std::string type_name(py::handle object) { return py::str(py::type::of(object).attr("__name__")); }

DType dtype_of(const py::dtype& dtype, const std::string& name) {
  if (dtype.byteorder() != '>') {
    if (dtype.kind() == 'u' && dtype.itemsize() == 1) return DType::u8;
    if (dtype.kind() == 'f' && dtype.itemsize() == 2) return DType::f16;
    if (dtype.kind() == 'f' && dtype.itemsize() == 4) return DType::f32;
    // ml_dtypes registers its own dtype, which no protocol can export
    if (dtype.kind() == 'V' && dtype.itemsize() == 2 && py::str(dtype.attr("name")).equal(py::str("bfloat16")))
      return DType::bf16;
  }
  refuse_dtype(name, py::str(static_cast<py::handle>(dtype)));
}

Array array_from_numpy(const py::array& array, const std::string& name) {
  Array out{
      const_cast<void*>(array.data()), dtype_of(array.dtype(), name), {}, {}, array.writeable(), in_host_memory, array};
  out.shape.assign(array.shape(), array.shape() + array.ndim());
  out.pitch.assign(array.strides(), array.strides() + array.ndim());
  return out;
}

DType dtype_of(const dlpack::DataType& dtype, const std::string& name) {
  if (dtype.lanes == 1) {
    if (dtype.code == dlpack::unsigned_integer && dtype.bits == 8) return DType::u8;
    if (dtype.code == dlpack::floating && dtype.bits == 16) return DType::f16;
    if (dtype.code == dlpack::floating && dtype.bits == 32) return DType::f32;
    if (dtype.code == dlpack::brain_float && dtype.bits == 16) return DType::bf16;
  }
  refuse_dtype(name, "(DLPack code " + std::to_string(dtype.code) + ", " + std::to_string(dtype.bits) + " bits)");
}

int device_of(const dlpack::Device& device, const std::string& name) {
  if (device.type == dlpack::host || device.type == dlpack::pinned_host) return in_host_memory;
  if (device.type == dlpack::cuda || device.type == dlpack::cuda_managed) return device.id;
  throw py::type_error(name + " is in the memory of another device (DLPack type " + std::to_string(device.type) +
                       "); move it to the CPU or a CUDA GPU first");
}

Array array_of(const dlpack::Tensor& tensor, const std::string& name, bool writable, const py::object& owner) {
  void* data = static_cast<char*>(tensor.data) + tensor.byte_offset;
  Array out{data, dtype_of(tensor.dtype, name), {}, {}, writable, device_of(tensor.device, name), owner};
  out.shape.assign(tensor.shape, tensor.shape + tensor.ndim);
  out.pitch.resize(tensor.ndim);
  std::int64_t dense = bytes_of(out.dtype);
  for (int i = tensor.ndim - 1; i >= 0; dense *= tensor.shape[i--])
    out.pitch[i] = tensor.strides ? tensor.strides[i] * bytes_of(out.dtype) : dense;
  return out;
}

// The capsule is not consumed: it frees the tensor when `owner` lets go of it.
Array array_from_capsule(const py::object& capsule, const std::string& name) {
  const dlpack::Tensor* tensor;
  bool writable = true;
  if (PyCapsule_IsValid(capsule.ptr(), "dltensor_versioned")) {
    auto* managed = static_cast<dlpack::ManagedVersioned*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor_versioned"));
    if (managed->version.major != 1)
      throw py::type_error(name + " exports DLPack " + std::to_string(managed->version.major) + "; 1 is understood");
    tensor = &managed->tensor;
    writable = !(managed->flags & dlpack::read_only);
  } else if (PyCapsule_IsValid(capsule.ptr(), "dltensor")) {
    tensor = &static_cast<dlpack::Managed*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor"))->tensor;
  } else {
    throw py::type_error(name + ".__dlpack__() did not return a DLPack capsule");
  }
  return array_of(*tensor, name, writable, capsule);
}

// By a call without Python, as of torch: nothing is synchronised, and nobody asks what a tensor's class would refuse.
std::optional<Array> borrowed(py::handle object, const std::string& name) {
  const py::object api = py::getattr(py::type::handle_of(object), "__dlpack_c_exchange_api__", py::none());
  if (!PyCapsule_IsValid(api.ptr(), dlpack::exchange_api)) return std::nullopt;
  auto* exchange = static_cast<dlpack::Exchange*>(PyCapsule_GetPointer(api.ptr(), dlpack::exchange_api));
  if (exchange->version.major != 1 || !exchange->borrow) return std::nullopt;
  dlpack::Tensor tensor;
  if (exchange->borrow(object.ptr(), &tensor) != 0) throw py::error_already_set();
  return array_of(tensor, name, true, py::reinterpret_borrow<py::object>(object));
}

// The stream is for arrays on a GPU only; others refuse it. It is always said: torch does not wait when it is not.
py::object capsule_from(py::handle object, Stream stream) {
  py::dict options;
  if (py::hasattr(object, "__dlpack_device__")) {
    const auto device = object.attr("__dlpack_device__")().cast<std::pair<int, int>>();
    if (device.first == dlpack::cuda || device.first == dlpack::cuda_managed) options["stream"] = stream;
  }
  const py::object exported = object.attr("__dlpack__");
  try {
    return exported(py::arg("max_version") = py::make_tuple(1, 0), **options);
  } catch (py::error_already_set& error) {
    if (!error.matches(PyExc_TypeError)) throw;  // exporters from before DLPack 1.0 do not know the argument
  }
  return exported(**options);
}

}  // namespace

Array array_from(py::handle object, const std::string& name, Stream stream) {
  if (py::isinstance<py::array>(object)) return array_from_numpy(py::reinterpret_borrow<py::array>(object), name);
  if (stream == no_wait)
    if (std::optional<Array> array = borrowed(object, name)) return *std::move(array);
  if (py::hasattr(object, "__dlpack__")) return array_from_capsule(capsule_from(object, stream), name);
  if (PyObject_CheckBuffer(object.ptr()))
    return array_from_numpy(py::module_::import("numpy").attr("asarray")(object).cast<py::array>(), name);
  throw py::type_error(name + " is a " + type_name(object) + "; give an array: NumPy, or anything with __dlpack__");
}

const char* name_of(DType dtype) {
  switch (dtype) {
    case DType::u8:
      return "uint8";
    case DType::f16:
      return "float16";
    case DType::bf16:
      return "bfloat16";
    case DType::f32:
      break;
  }
  return "float32";
}

std::string text_of(const std::vector<std::int64_t>& shape) {
  std::string text;
  for (const std::int64_t size : shape) text += (text.empty() ? "" : "x") + std::to_string(size);
  return text.empty() ? "a scalar" : text;
}

}  // namespace multigrid
