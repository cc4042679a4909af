// A frozen C++ value as a Python one: named fields, equality, hash, repr and pickle from one list of members.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "plan/grid.h"
#include "plan/refuse.h"

namespace pybind11::detail {

// Beyond crosses the boundary as its name.
template <>
struct type_caster<multigrid::Beyond> {
  PYBIND11_TYPE_CASTER(multigrid::Beyond, const_name("str"));

  bool load(handle source, bool) {
    if (!isinstance<str>(source)) return false;
    const auto name = source.cast<std::string>();
    if (name == "error") {
      value = multigrid::Beyond::error;
    } else if (name == "clamp") {
      value = multigrid::Beyond::clamp;
    } else if (name == "loop") {
      value = multigrid::Beyond::loop;
    } else {
      multigrid::refuse("beyond (\"", name,
                        "\") must be \"error\", \"clamp\" (repeat the last frame) or \"loop\" (start again)");
    }
    return true;
  }

  static handle cast(multigrid::Beyond beyond, return_value_policy, handle) {
    const char* names[] = {"error", "clamp", "loop"};
    return str(names[int(beyond)]).release();
  }
};

}  // namespace pybind11::detail

namespace multigrid {

template <class T, class M>
struct Field {
  const char* name;
  M T::* member;
};

template <class T, class M>
Field<T, M> field(const char* name, M T::* member) {
  return {name, member};
}

template <class M>
pybind11::object as_python(const M& member) {
  return pybind11::cast(member);
}

template <class M>
pybind11::object as_python(const std::vector<M>& member) {  // frozen: a tuple, not a list
  return pybind11::tuple(pybind11::cast(member));
}

template <class T, class... M>
pybind11::class_<T> bind_value(pybind11::module_& m, const char* name, const char* doc, Field<T, M>... fields) {
  namespace py = pybind11;
  py::class_<T> cls(m, name, doc);
  const auto as_tuple = [fields...](const T& self) { return py::make_tuple(as_python(self.*fields.member)...); };
  (cls.def_property_readonly(fields.name, [fields](const T& self) { return as_python(self.*fields.member); }), ...);
  cls.def("__eq__", [as_tuple](const T& self, const py::object& other) -> py::object {
    if (!py::isinstance<T>(other)) return py::reinterpret_borrow<py::object>(Py_NotImplemented);
    return py::bool_(as_tuple(self).equal(as_tuple(other.cast<const T&>())));
  });
  cls.def("__hash__", [as_tuple](const T& self) { return py::hash(as_tuple(self)); });
  cls.def("__repr__", [name, fields...](const T& self) {
    std::string out;
    ((out += (out.empty() ? std::string(name) + "(" : std::string(", ")) + fields.name + "=" +
             std::string(py::repr(as_python(self.*fields.member)))),
     ...);
    return out + ")";
  });
  cls.def(py::pickle(as_tuple, [fields...](const py::tuple& state) {
    T self{};
    std::size_t i = 0;
    ((self.*fields.member = state[i++].template cast<M>()), ...);
    return self;
  }));
  return cls;
}

}  // namespace multigrid
