#include "python/arrays.h"

#include <pybind11/numpy.h>

#include <cmath>
#include <optional>

#include "python/dlpack.h"

namespace py = pybind11;

namespace multigrid {
namespace {

constexpr const char* dtypes = "uint8, float16, float32 and bfloat16";

[[noreturn]] void refuse_dtype(const std::string& name, const std::string& dtype) {
  throw py::type_error(name + " has dtype " + dtype + "; " + dtypes + " can be resampled: convert it first");
}

std::string type_name(py::handle object) { return py::str(py::type::handle_of(object).attr("__name__")); }

DType dtype_of(const py::dtype& dtype, const std::string& name) {
  if (dtype.byteorder() != '>') {
    if (dtype.kind() == 'u' && dtype.itemsize() == 1) return DType::u8;
    if (dtype.kind() == 'f' && dtype.itemsize() == 2) return DType::f16;
    if (dtype.kind() == 'f' && dtype.itemsize() == 4) return DType::f32;
    // ml_dtypes registers its own dtype, which no protocol exports
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

// Everything that can be checked is checked, because a tensor may come from any library.
void check_tensor(const dlpack::Tensor& tensor, const std::string& name) {
  constexpr std::int32_t most_axes = 64;
  if (tensor.ndim < 0 || tensor.ndim > most_axes || (tensor.ndim > 0 && !tensor.shape))
    throw py::value_error(name + " exports a DLPack tensor of " + std::to_string(tensor.ndim) +
                          " axes, which is impossible; it is damaged: make the array again");
  double reach = 0, values = 1;
  for (std::int32_t i = tensor.ndim; i-- > 0;) {
    const auto size = static_cast<double>(tensor.shape[i]);
    if (size < 0)
      throw py::value_error(name + " exports a DLPack tensor with an axis of " + std::to_string(tensor.shape[i]) +
                            ", which is impossible; it is damaged: make the array again");
    reach += (tensor.strides ? std::fabs(static_cast<double>(tensor.strides[i])) : values) * std::max(size - 1, 0.0);
    values *= size;
  }
  if (!(reach < 0x1p58) || !(values < 0x1p62))
    throw py::value_error(name + " spans more memory than any machine has; make the array again");
  if (!tensor.data && values > 0)
    throw py::value_error(name + " has no memory behind it: its storage was freed, or it has only a shape; pass an " +
                          "array with data");
}

Array array_of(const dlpack::Tensor& tensor, const std::string& name, bool writable, const py::object& owner) {
  check_tensor(tensor, name);
  void* data = tensor.data ? static_cast<char*>(tensor.data) + tensor.byte_offset : nullptr;
  Array out{data, dtype_of(tensor.dtype, name), {}, {}, writable, device_of(tensor.device, name), owner};
  out.shape.assign(tensor.shape, tensor.shape + tensor.ndim);
  out.pitch.resize(out.shape.size());
  std::int64_t dense = bytes_of(out.dtype);
  for (std::size_t i = out.shape.size(); i-- > 0; dense *= out.shape[i])
    out.pitch[i] = tensor.strides ? tensor.strides[i] * bytes_of(out.dtype) : dense;
  return out;
}

// Whether an array may be written, if its capsule is too old to say. (JAX and TensorFlow export such capsules for
// arrays that must never change.) Its other protocols decide; without one it may not be written.
bool says_writable(py::handle object) {
  Py_buffer buffer;
  if (PyObject_CheckBuffer(object.ptr())) {
    if (PyObject_GetBuffer(object.ptr(), &buffer, PyBUF_FULL) == 0) {
      PyBuffer_Release(&buffer);
      return true;
    }
    PyErr_Clear();
    return false;
  }
  const py::object cuda = py::getattr(object, "__cuda_array_interface__", py::none());
  if (!py::isinstance<py::dict>(cuda) || !cuda.contains("data")) return false;
  const py::object data = cuda["data"];
  return py::isinstance<py::tuple>(data) && py::len(data) == 2 && py::object(data[py::int_(1)]).equal(py::bool_(false));
}

// The capsule is not consumed; it frees the tensor when `owner` is released.
Array array_from_capsule(py::handle object, const py::object& capsule, const std::string& name, bool vouched) {
  if (PyCapsule_IsValid(capsule.ptr(), "dltensor_versioned")) {
    auto* managed = static_cast<dlpack::ManagedVersioned*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor_versioned"));
    if (managed->version.major != 1)
      throw py::type_error(name + " exports DLPack " + std::to_string(managed->version.major) + "; 1 is understood");
    return array_of(managed->tensor, name, !(managed->flags & dlpack::read_only), capsule);
  }
  if (!PyCapsule_IsValid(capsule.ptr(), "dltensor"))
    throw py::type_error(name + ".__dlpack__() did not return a DLPack capsule");
  const auto* managed = static_cast<dlpack::Managed*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor"));
  return array_of(managed->tensor, name, vouched || says_writable(object), capsule);
}

// Uses a C call, which torch offers: nothing is synchronised, and a tensor subclass is not asked and so can't refuse.
std::optional<Array> borrowed(py::handle object, const std::string& name) {
  const py::object api = py::getattr(py::type::handle_of(object), "__dlpack_c_exchange_api__", py::none());
  if (!PyCapsule_IsValid(api.ptr(), dlpack::exchange_api)) return std::nullopt;
  auto* exchange = static_cast<dlpack::Exchange*>(PyCapsule_GetPointer(api.ptr(), dlpack::exchange_api));
  if (exchange->version.major != 1 || !exchange->borrow) return std::nullopt;
  dlpack::Tensor tensor;
  if (exchange->borrow(object.ptr(), &tensor) != 0) throw py::error_already_set();
  return array_of(tensor, name, true, py::reinterpret_borrow<py::object>(object));
}

bool on_cuda(py::handle object, const std::string& name) {
  if (!py::hasattr(object, "__dlpack_device__")) return false;
  const py::object device = object.attr("__dlpack_device__")();
  if (!py::isinstance<py::tuple>(device) || py::len(device) != 2)
    throw py::type_error(name + ".__dlpack_device__() did not return the pair (type, number)");
  const py::object type = device[py::int_(0)];
  return type.equal(py::int_(dlpack::cuda)) || type.equal(py::int_(dlpack::cuda_managed));
}

// The stream is for arrays on a GPU only; others refuse it. Always pass `stream`: torch does not synchronise without
// it.
py::object capsule_from(py::handle object, const std::string& name, const Access& access) {
  constexpr Stream no_wait = -1;  // asks the exporter for no synchronisation
  py::dict options;
  if (on_cuda(object, name)) options["stream"] = access.vouched ? no_wait : access.stream;
  const py::object exported = object.attr("__dlpack__");
  try {
    return exported(py::arg("max_version") = py::make_tuple(1, 0), **options);
  } catch (py::error_already_set& error) {
    if (!error.matches(PyExc_TypeError)) throw;  // exporters older than DLPack 1.0 do not have the argument
  }
  return exported(**options);
}

// A tensor may keep its sign in a flag beside its memory, which DLPack does not export.
void check_sign(py::handle object, const std::string& name) {
  for (const char* flag : {"is_neg", "is_conj"}) {
    const py::object asked = py::getattr(object, flag, py::none());
    if (PyCallable_Check(asked.ptr()) && asked().equal(py::bool_(true)))
      throw py::value_error(name + " is a view that negates its memory when it is read (" + flag +
                            "); resolve it first: resolve_" + std::string(flag + 3) + "()");
  }
}

}  // namespace

Array array_from(py::handle object, const std::string& name, const Access& access) {
  if (py::isinstance<py::array>(object)) return array_from_numpy(py::reinterpret_borrow<py::array>(object), name);
  if (access.vouched)
    if (std::optional<Array> array = borrowed(object, name)) return *std::move(array);
  if (py::hasattr(object, "__dlpack__")) {
    check_sign(object, name);
    return array_from_capsule(object, capsule_from(object, name, access), name, access.vouched);
  }
  if (PyObject_CheckBuffer(object.ptr()))
    return array_from_numpy(py::module_::import("numpy").attr("asarray")(object).cast<py::array>(), name);
  throw py::type_error(name + " is a " + type_name(object) + "; pass an array: NumPy, or anything with __dlpack__");
}

std::string text_of(const std::vector<std::int64_t>& shape) {
  std::string text;
  for (const std::int64_t size : shape) text += (text.empty() ? "" : "x") + std::to_string(size);
  return text.empty() ? "a scalar" : text;
}

}  // namespace multigrid
