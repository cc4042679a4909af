// Binds a frozen C++ value: named fields, a constructor that checks each of them, equality, hash, repr and pickle, all
// from one list of members.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cmath>
#include <string>
#include <type_traits>
#include <vector>

#include "plan/grid.h"
#include "plan/limits.h"
#include "python/arguments.h"
#include "python/bind.h"

namespace multigrid {

// A member; whole numbers must lie in [low, high].
template <class T, class M>
struct Field {
  const char* name;
  M T::* member;
  std::int64_t low, high;
};

template <class T, class M>
Field<T, M> field(const char* name, M T::* member, std::int64_t low = 0, std::int64_t high = most_clips) {
  return {name, member, low, high};
}

template <class M>
struct ListOf : std::false_type {};
template <class M>
struct ListOf<std::vector<M>> : std::true_type {
  using Element = M;
};

Beyond beyond_from(const std::string& name, pybind11::handle value);

// Converts a Python value to M, or raises TypeError or ValueError with the argument's name.
template <class M>
M read(const std::string& name, pybind11::handle value, std::int64_t low = 0, std::int64_t high = most_clips) {
  namespace py = pybind11;
  if constexpr (std::is_integral_v<M>) {
    return whole<M>(name, value, static_cast<M>(low),
                    static_cast<M>(std::min<std::int64_t>(high, std::numeric_limits<M>::max())));
  } else if constexpr (std::is_floating_point_v<M>) {
    return number(name, value);
  } else if constexpr (std::is_same_v<M, Beyond>) {
    return beyond_from(name, value);
  } else if constexpr (ListOf<M>::value) {
    if (!py::isinstance<py::sequence>(value) || py::isinstance<py::str>(value))
      throw py::type_error(said(name, value) + " must be a sequence");
    const py::tuple list(py::reinterpret_borrow<py::object>(value));
    if (list.size() > static_cast<std::size_t>(most_stages))
      throw py::value_error(name + " has " + std::to_string(list.size()) + " items; at most " +
                            std::to_string(most_stages) + " are taken");
    M out;
    for (const py::handle item : list) {
      heed(static_cast<std::int64_t>(out.size()));
      out.push_back(read<typename ListOf<M>::Element>("an item of " + name, item));
    }
    return out;
  } else {
    if (!py::isinstance<M>(value))
      throw py::type_error(said(name, value) + " must be a " +
                           std::string(py::str(py::type::of<M>().attr("__name__"))));
    return value.cast<const M&>();
  }
}

template <class M>
pybind11::object as_python(const M& member) {
  return pybind11::cast(member);
}

template <class M>
pybind11::object as_python(const std::vector<M>& member) {  // frozen: a tuple, not a list
  return pybind11::tuple(pybind11::cast(member));
}

inline pybind11::object as_python(const Beyond& beyond) {
  const char* names[] = {"error", "clamp", "loop"};
  return pybind11::str(names[static_cast<int>(beyond)]);
}

template <class M>
using Any = const pybind11::object&;  // one argument per member

// `check` throws std::invalid_argument for an invalid value.
template <class T, class... M>
pybind11::class_<T> bind_value(pybind11::module_& m, const char* name, const char* doc, const char* usage,
                               void (*check)(const T&), Field<T, M>... fields) {
  namespace py = pybind11;
  py::class_<T> cls = bind_type<T>(m, name, doc);
  const auto make = [check, fields...](Any<M>... values) {
    T self{};
    ((self.*fields.member = read<M>(fields.name, values, fields.low, fields.high)), ...);
    if (check) check(self);
    return self;
  };
  define_init(cls, make, usage, py::arg(fields.name)...);
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
  cls.def("__reduce__", [as_tuple](const T& self) { return py::make_tuple(py::type::of<T>(), as_tuple(self)); });
  return cls;
}

}  // namespace multigrid
