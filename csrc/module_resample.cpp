// Python's side of resample: arrays to views, the GIL, errors about kinds. The rules about values are in
// resample_check.cpp.

#include <pybind11/gil_safe_call_once.h>
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>

#include "arrays.h"
#include "buffers.h"
#include "resample.h"
#include "resample_cuda.h"
#include "resample_launch.h"

namespace py = pybind11;

namespace multigrid {
namespace {

struct Videos {
  std::vector<Array> arrays;
  std::vector<ClipView> views;
  bool single;
};

bool is_list(py::handle object) { return py::isinstance<py::list>(object) || py::isinstance<py::tuple>(object); }

ClipView view_of(const Array& array, std::size_t axis) {
  const std::int64_t* size = array.shape.data() + axis;
  const std::int64_t* pitch = array.pitch.data() + axis;
  return {array.data, array.dtype, size[0], size[1], size[2], size[3], pitch[0], pitch[1], pitch[2], pitch[3]};
}

Videos videos_from(py::handle object, Stream stream = no_wait) {
  Videos videos{{}, {}, false};
  if (is_list(object)) {
    for (const py::handle one : py::reinterpret_borrow<py::sequence>(object)) {
      const std::string name = "videos[" + std::to_string(videos.arrays.size()) + "]";
      videos.arrays.push_back(array_from(one, name, stream));
      const Array& array = videos.arrays.back();
      if (array.shape.size() != 4)
        throw py::value_error(name + " is " + text_of(array.shape) + "; in a list every video must be T x H x W x C");
      videos.views.push_back(view_of(array, 0));
    }
    return videos;
  }
  videos.arrays.push_back(array_from(object, "video", stream));
  const Array& array = videos.arrays.back();
  if (array.shape.size() != 4 && array.shape.size() != 5)
    throw py::value_error("video is " + text_of(array.shape) + "; it must be T x H x W x C, or B x T x H x W x C");
  videos.single = array.shape.size() == 4;
  if (videos.single) {
    videos.views.push_back(view_of(array, 0));
    return videos;
  }
  for (std::int64_t i = 0; i < array.shape[0]; ++i) {
    ClipView view = view_of(array, 1);
    view.data = static_cast<const char*>(view.data) + i * array.pitch[0];
    videos.views.push_back(view);
  }
  return videos;
}

bool is_size(py::handle object) {
  return is_list(object) && py::len(object) == 3 &&
         PyIndex_Check(py::reinterpret_borrow<py::object>(object)[py::int_(0)].ptr());
}

std::int64_t whole(const py::object& object) {
  if (!PyIndex_Check(object.ptr())) throw py::type_error("size must be three whole numbers (t, h, w)");
  const std::int64_t value = PyNumber_AsSsize_t(object.ptr(), PyExc_OverflowError);
  if (value == -1 && PyErr_Occurred()) throw py::error_already_set();
  return value;
}

std::vector<Grid> grids_from(const py::object& object, const std::vector<ClipView>& videos) {
  std::vector<Grid> grids;
  if (py::isinstance<Grid>(object)) {
    grids.push_back(object.cast<Grid>());
  } else if (is_size(object)) {
    const std::int64_t t = whole(object[py::int_(0)]), h = whole(object[py::int_(1)]), w = whole(object[py::int_(2)]);
    for (const ClipView& video : videos)
      grids.push_back({{0, static_cast<double>(video.t), t},
                       {0, static_cast<double>(video.h), h},
                       {0, static_cast<double>(video.w), w},
                       Beyond::error});
  } else if (is_list(object) && py::len(object) > 0) {
    for (const py::handle one : object) {
      if (!py::isinstance<Grid>(one))
        throw py::type_error("grids[" + std::to_string(grids.size()) + "] must be a Grid");
      grids.push_back(one.cast<Grid>());
    }
  } else {
    throw py::type_error("grid must be a Grid, one Grid per video, or a size (t, h, w)");
  }
  return grids;
}

template <class Value>
Value one_of(const char* name, const std::string& value, std::initializer_list<std::pair<const char*, Value>> choices) {
  std::string list;
  for (const auto& choice : choices) {
    if (value == choice.first) return choice.second;
    list += (list.empty() ? "'" : ", '") + std::string(choice.first) + "'";
  }
  throw py::value_error(std::string(name) + " ('" + value + "') must be one of " + list);
}

Filter filter_from(const std::string& mode, bool antialias) {
  const Filter linear = antialias ? Filter::smooth : Filter::linear;
  return one_of<Filter>("mode", mode, {{"nearest", Filter::nearest}, {"linear", linear}, {"area", Filter::area}});
}

Layout layout_from(const std::string& layout) {
  return one_of<Layout>("layout", layout, {{"CTHW", Layout::cthw}, {"THWC", Layout::thwc}});
}

std::vector<double> numbers_from(const char* name, const py::object& object) {
  if (object.is_none()) return {};
  try {
    if (PyNumber_Check(object.ptr()) && !py::hasattr(object, "__len__")) return {py::float_(object)};
    std::vector<double> numbers;
    for (const py::handle one : object) numbers.push_back(py::float_(py::reinterpret_borrow<py::object>(one)));
    if (!numbers.empty()) return numbers;
  } catch (py::error_already_set& error) {
    if (!error.matches(PyExc_TypeError) && !error.matches(PyExc_ValueError)) throw;
  }
  throw py::type_error(std::string(name) + " must be a number or one number per channel");
}

std::vector<std::int64_t> shape_of(const Videos& videos, const std::vector<Grid>& grids, Layout layout) {
  const Grid& grid = grids[0];
  std::vector<std::int64_t> shape = {grid.t.size, grid.h.size, grid.w.size};
  shape.insert(layout == Layout::cthw ? shape.begin() : shape.end(), videos.views[0].c);
  if (!videos.single) shape.insert(shape.begin(), static_cast<std::int64_t>(videos.views.size()));
  return shape;
}

BatchView batch_from(const Array& out, const Videos& videos, const std::vector<Grid>& grids, Layout layout) {
  const std::vector<std::int64_t> shape = shape_of(videos, grids, layout);
  if (!out.writable) throw py::value_error("out is read-only; give an array that can be written");
  if (out.shape != shape)
    throw py::value_error("out is " + text_of(out.shape) + "; the clips are " + text_of(shape) + ": allocate that");
  std::int64_t dense = bytes_of(out.dtype);
  for (std::size_t i = shape.size(); i-- > 0; dense *= shape[i])
    if (shape[i] != 1 && out.pitch[i] != dense)
      throw py::value_error("out must be C-contiguous; give a dense array and copy from it");
  if (reinterpret_cast<std::uintptr_t>(out.data) % bytes_of(out.dtype) != 0)
    throw py::value_error("out must be aligned to its dtype; give a freshly allocated array");
  const Grid& grid = grids[0];
  return {out.data,          out.dtype,   layout,      static_cast<std::int64_t>(videos.views.size()),
          videos.views[0].c, grid.t.size, grid.h.size, grid.w.size};
}

py::tuple resample_shape(const py::object& video, const py::object& grid, const std::string& layout) {
  const Videos videos = videos_from(video);
  const std::vector<Grid> grids = grids_from(grid, videos.views);
  check_grids(videos.views, grids);
  return py::cast<py::tuple>(py::cast(shape_of(videos, grids, layout_from(layout))));
}

// A NumPy array whose memory goes back to the ring when the last view of it is gone. What is smaller than a huge page
// is left to NumPy.
py::array empty(const std::vector<std::int64_t>& shape, const py::dtype& dtype) {
  std::size_t bytes = dtype.itemsize();
  for (const std::int64_t size : shape) bytes *= size;
  if (bytes < std::size_t{1} << 21) return py::array(dtype, shape);
  auto buffer = std::make_unique<Buffer>(take_buffer(bytes));
  void* data = buffer->data;
  const py::capsule owner(buffer.release(), [](void* held) {
    const std::unique_ptr<Buffer> last(static_cast<Buffer*>(held));
    give_buffer(*last);
  });
  return py::array(dtype, shape, {}, data, owner);
}

Options options_from(const std::string& mode, const std::string& temporal, bool antialias, const py::object& mean,
                     const py::object& std, int threads) {
  const bool blend = one_of<bool>("temporal", temporal, {{"nearest", false}, {"linear", true}});
  return {filter_from(mode, antialias), blend, numbers_from("mean", mean), numbers_from("std", std), threads};
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

// pymultigrid._cuda, or why there is none.
struct CudaModule {
  const CudaDoors* doors;
  std::string missing;
};

// Loaded when it is first asked for.
const CudaModule& cuda_module() {
  // The import may let go of the GIL: a plain static would have a second thread wait for the first and hold the GIL.
  PYBIND11_CONSTINIT static py::gil_safe_call_once_and_store<CudaModule> module;
  const auto load = []() -> CudaModule {
    try {
      const py::capsule capsule = py::module_::import("pymultigrid._cuda").attr("doors");
      return {static_cast<const CudaDoors*>(capsule.get_pointer()), ""};
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

// Nothing, or what CUDA lacks here.
std::optional<std::string> cuda_missing() {
  const CudaDoors* doors = cuda_module().doors;
  if (!doors) return cuda_module().missing;
  int devices;
  const char* problem = doors->count(&devices);
  return problem ? std::optional<std::string>(problem) : std::nullopt;
}

std::string cuda_build() { return PYMULTIGRID_CUDA_BUILD; }

void check_cuda(const char* problem) {
  if (problem) throw std::runtime_error(std::string("CUDA: ") + problem);
}

// Enqueued on the stream, which orders it after what made the videos and before what reads `out`: nobody waits.
void resample_cuda(const std::vector<ClipView>& videos, const std::vector<Grid>& grids, const Options& options,
                   const BatchView& out, int device, std::int64_t stream) {
  const CudaDoors* doors = cuda_module().doors;
  if (!doors) throw std::runtime_error("video is on a GPU, and " + *cuda_missing() + "; pass it in host memory");
  Gpu gpu;
  check_cuda(doors->size(device, &gpu));
  const py::gil_scoped_release unlocked;
  launch_each(videos, grids, options, out, gpu,
              [&](const Launch& launch) { check_cuda(doors->run(&launch, device, reinterpret_cast<void*>(stream))); });
}

// None, and CUDA's own handle 0, are the legacy default stream.
Stream stream_from(std::optional<std::int64_t> stream) {
  const std::int64_t given = stream.value_or(0);
  if (given < 0) throw py::value_error("stream (" + std::to_string(given) + ") must be a CUDA stream, 1, 2 or None");
  return given == 0 ? 1 : given;
}

void resample(const py::object& video, const py::object& grid, const py::object& to, const std::string& mode,
              const std::string& temporal, bool antialias, const py::object& mean, const py::object& std,
              const std::string& layout, int threads, std::optional<std::int64_t> stream, bool ready) {
  const Options options = options_from(mode, temporal, antialias, mean, std, threads);
  const Stream on = stream_from(stream), handed = ready ? no_wait : on;
  const Videos videos = videos_from(video, handed);
  const std::vector<Grid> grids = grids_from(grid, videos.views);
  check_grids(videos.views, grids);
  const Array array = array_from(to, "out", handed);
  const BatchView out = batch_from(array, videos, grids, layout_from(layout));
  check_options(videos.views, options, out);
  const int device = device_of(videos, array);
  if (device != in_host_memory) return resample_cuda(videos.views, grids, options, out, device, on);
  const py::gil_scoped_release unlocked;
  resample_cpu(videos.views, grids, options, out);
}

void resample_tiles(const py::object& video, const py::object& grid, const py::object& to, const std::string& mode,
                    const std::string& temporal, bool antialias, const py::object& mean, const py::object& std,
                    const std::string& layout, int processors) {
  const Options options = options_from(mode, temporal, antialias, mean, std, 1);
  const Videos videos = videos_from(video);
  const std::vector<Grid> grids = grids_from(grid, videos.views);
  check_grids(videos.views, grids);
  const Array array = array_from(to, "out");
  const BatchView out = batch_from(array, videos, grids, layout_from(layout));
  check_options(videos.views, options, out);
  launch_each(videos.views, grids, options, out, {processors, 160 * 1024}, run_on_host);
}

}  // namespace

void bind_resample(py::module_& m) {
  m.def("resample_shape", resample_shape, py::arg("video"), py::arg("grid"), py::arg("layout"),
        "The shape that `resample` writes; checks videos and grids.");
  m.def("resample", resample, py::arg("video"), py::arg("grid"), py::arg("out"), py::arg("mode"), py::arg("temporal"),
        py::arg("antialias"), py::arg("mean"), py::arg("std"), py::arg("layout"), py::arg("threads"),
        py::arg("stream") = py::none(), py::arg("ready") = false,
        "Write the clips into `out`. Arrays are NumPy arrays or anything with __dlpack__ in host or CUDA memory; there "
        "on `stream`, for which `ready` ones need not be synchronised.");
  m.def("cuda_missing", cuda_missing, "None, or what CUDA lacks here.");
  m.def("cuda_build", cuda_build, "How the CUDA kernel was built, or why not.");
  m.def("_resample_tiles", resample_tiles, py::arg("video"), py::arg("grid"), py::arg("out"), py::arg("mode"),
        py::arg("temporal"), py::arg("antialias"), py::arg("mean"), py::arg("std"), py::arg("layout"),
        py::arg("processors"), "`resample` by the CUDA kernel's code, on the host; for tests.");
  m.def("empty", empty, py::arg("shape"), py::arg("dtype"), "A new array; large ones are from the ring of buffers.");
  m.def("set_buffer_limit", set_buffer_limit, py::arg("limit"), "Bound the unused bytes in the ring; 0 turns it off.");
  m.def("unused_buffer_bytes", unused_buffer_bytes, "The bytes that wait in the ring.");
  m.def("_vector_path", vector_path, "The vector instructions in use.");
  m.def("_vector_paths", vector_paths, "Those that this machine runs.");
  m.def("_choose_vector_path", choose_vector_path, py::arg("name"), "Use one of them; for tests and benchmarks.");
}

}  // namespace multigrid
