// Binds resample: one call from Python enters the core once.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>

#include "plan/limits.h"
#include "python/arguments.h"
#include "python/bind.h"
#include "python/call.h"
#include "python/cuda.h"
#include "python/module.h"
#include "python/unlocked.h"
#include "resample/buffers.h"

namespace py = pybind11;
using namespace py::literals;

namespace multigrid {
namespace {

// A NumPy array whose memory returns to the ring when the last view of it is gone. NumPy allocates arrays smaller than
// a huge page.
py::array new_array(const std::vector<std::int64_t>& shape, const py::dtype& dtype) {
  constexpr double most_bytes = 0x1p56;
  auto bytes = static_cast<double>(dtype.itemsize());
  for (const std::int64_t size : shape) bytes *= static_cast<double>(size);
  if (bytes > most_bytes) throw std::bad_alloc();
  if (bytes < static_cast<double>(std::size_t{1} << 21)) return py::array(dtype, shape);
  auto buffer = std::make_unique<Buffer>(take_buffer(static_cast<std::size_t>(bytes)));
  void* data = buffer->data;
  const py::capsule owner(buffer.release(), [](void* held) {
    const std::unique_ptr<Buffer> last(static_cast<Buffer*>(held));
    give_buffer(*last);
  });
  return py::array(dtype, shape, {}, data, owner);
}

py::array empty(const py::object& shape, const py::object& dtype) {
  if (!py::isinstance<py::tuple>(shape)) throw py::type_error(said("shape", shape) + " must be a tuple of sizes");
  std::vector<std::int64_t> sizes;
  for (const py::handle size : shape) sizes.push_back(whole<std::int64_t>("shape", size, 0));
  const py::dtype kind = py::dtype::from_args(dtype);
  if (kind.attr("hasobject").cast<bool>()) throw py::type_error(said("dtype", dtype) + " must be a kind of number");
  return new_array(sizes, kind);
}

// `make`: how to make the output if none is given: the name of a NumPy dtype, or a function of the shape.
py::object made(const py::object& make, const std::vector<std::int64_t>& shape) {
  if (py::isinstance<py::str>(make)) return new_array(shape, py::dtype::from_args(make));
  return make(py::tuple(py::cast(shape)));
}

std::string place(int device) {
  return device == in_host_memory ? "in host memory" : "on CUDA device " + std::to_string(device);
}

// Where all the arrays are.
int device_of(const Videos& videos, const Array& out) {
  for (std::size_t i = 0; i < videos.arrays.size(); ++i)
    if (videos.arrays[i].device != out.device)
      throw py::value_error((videos.arrays.size() == 1 ? "video" : "videos[" + std::to_string(i) + "]") + " is " +
                            place(videos.arrays[i].device) + " and out " + place(out.device) +
                            "; all must be in one place: give out= there, or move them");
  return out.device;
}

// None, and CUDA's own handle 0, are the legacy default stream.
Stream stream_from(const py::object& stream) {
  const Stream given = stream.is_none() ? 0 : whole("stream", stream, std::numeric_limits<Stream>::min());
  if (given < 0) throw py::value_error("stream (" + std::to_string(given) + ") must be a CUDA stream, 1, 2 or None");
  return given == 0 ? 1 : given;
}

py::object resample(const py::object& video, const py::object& grid, const py::object& out, const py::object& make,
                    const py::object& mode, const py::object& temporal, const py::object& antialias,
                    const py::object& mean, const py::object& std, const py::object& layout, const py::object& threads,
                    const py::object& stream, const py::object& vouched) {
  const Options options =
      options_from(mode, temporal, antialias, mean, std, whole("threads", threads, 1, most_threads));
  const Layout order = layout_from(layout);
  const Access access{stream_from(stream), flag("vouched", vouched)};
  const Videos videos = videos_from(video, access);
  const std::vector<Grid> grids = grids_from(grid, videos.views);
  check_grids(videos.views, grids);
  py::object result = out.is_none() ? made(make, shape_of(videos, grids, order)) : out;
  const Array array = array_from(result, "out", access);
  const BatchView batch = batch_from(array, videos, grids, order);
  check_options(videos.views, options, batch);
  const int device = device_of(videos, array);
  if (device != in_host_memory) {
    resample_cuda(videos.views, grids, options, batch, device, access.stream);
    return result;
  }
  bool whole_batch;
  {
    Unlocked unlocked;
    whole_batch = resample_cpu(videos.views, grids, options, batch, [&] { return unlocked.interrupted(); });
  }
  if (!whole_batch) throw py::error_already_set();
  return result;
}

}  // namespace

void bind_resample(py::module_& m) {
  define(m, "resample", resample,
         "resample(video, grid, out, make, mode, temporal, antialias, mean, std, layout, threads, stream, vouched)",
         "Write the clips into `out` and return it. If it is None, `make` makes it: the name of a NumPy dtype, or a "
         "function of the shape. `vouched`: the arrays are ready on the stream and may be written.",
         "video"_a, "grid"_a, "out"_a, "make"_a, "mode"_a, "temporal"_a, "antialias"_a, "mean"_a, "std"_a, "layout"_a,
         "threads"_a, "stream"_a = py::none(), "vouched"_a = false);
  define(m, "empty", empty, "empty(shape, dtype)", "A new array; large ones come from the ring of buffers.", "shape"_a,
         "dtype"_a);
  define(
      m, "set_buffer_limit", [](const py::object& limit) { set_buffer_limit(whole<std::size_t>("limit", limit, 0)); },
      "set_buffer_limit(limit)", "Bound the unused bytes in the ring; 0 turns it off.", "limit"_a);
  define(m, "unused_buffer_bytes", unused_buffer_bytes, "unused_buffer_bytes()", "The unused bytes in the ring.");
  // For benchmarks, which compare the paths of an installed wheel, and for bug reports, which should name the path.
  define(m, "_vector_path", vector_path, "_vector_path()", "The vector instructions in use.");
  define(m, "_vector_paths", vector_paths, "_vector_paths()", "The vector instructions that this machine supports.");
  define(
      m, "_choose_vector_path", [](const py::object& name) { return choose_vector_path(text("name", name).c_str()); },
      "_choose_vector_path(name)", "Use one of them in this process.", "name"_a);
}

}  // namespace multigrid
