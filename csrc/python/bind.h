// Binds functions and types so that every wrong call is refused by an error of ours, not by pybind11's.
#pragma once

#include <pybind11/pybind11.h>

#include <string>
#include <utility>

namespace multigrid {

// The last overload, which takes any arguments and raises `usage`, the right call, in place of pybind11's "incompatible
// function arguments".
inline auto refuse_call(const char* usage) {
  return [usage](const pybind11::args&, const pybind11::kwargs&) -> void {
    throw pybind11::type_error("the call must be " + std::string(usage));
  };
}

// A function of a module, or a method.
template <class Scope, class Function, class... Extra>
Scope& define(Scope& scope, const char* name, Function&& function, const char* usage, const char* doc,
              const Extra&... extra) {
  scope.def(name, std::forward<Function>(function), doc, extra...);
  scope.def(name, refuse_call(usage));
  return scope;
}

// A constructor.
template <class T, class Make, class... Extra>
pybind11::class_<T>& define_init(pybind11::class_<T>& cls, Make make, const char* usage, const Extra&... extra) {
  cls.def(pybind11::init(std::move(make)), extra...);
  cls.def(pybind11::init([refuse = refuse_call(usage)](const pybind11::args& a, const pybind11::kwargs& k) -> T {
    refuse(a, k);
    throw pybind11::type_error("unreachable");
  }));
  return cls;
}

// A type whose objects always have a value: T.__new__(T) constructs one or fails, as T() does. By default pybind11
// makes an object without a value there, and its first use reads uninitialised memory.
template <class T>
pybind11::class_<T> bind_type(pybind11::module_& m, const char* name, const char* doc) {
  const auto whole_objects = [](PyHeapTypeObject* heap_type) {
    heap_type->ht_type.tp_new = [](PyTypeObject* type, PyObject* args, PyObject* kwargs) -> PyObject* {
      PyObject* self = pybind11::detail::make_new_instance(type);
      if (self && type->tp_init(self, args, kwargs) != 0) Py_CLEAR(self);
      return self;
    };
  };
  return pybind11::class_<T>(m, name, doc, pybind11::custom_type_setup(whole_objects), pybind11::is_final());
}

// For long loops that hold the GIL: Ctrl-C ends them.
inline void heed(std::int64_t i) {
  if (i % (1 << 16) == 0 && PyErr_CheckSignals() != 0) throw pybind11::error_already_set();
}

}  // namespace multigrid
