// Converts arguments to C++ values. Raises TypeError for a wrong kind and ValueError for a bad value, with the
// argument's name. Bound functions take py::object and convert here, so that users never see pybind11's messages about
// signatures.
#pragma once

#include <pybind11/pybind11.h>

#include <initializer_list>
#include <limits>
#include <string>
#include <string_view>
#include <utility>

namespace multigrid {

// "name (value)", the beginning of an error; a long value is truncated.
std::string said(const std::string& name, pybind11::handle value);

// A whole number (an int, or anything with __index__) as an int object in [low, high].
pybind11::int_ whole_object(const std::string& name, pybind11::handle value, const pybind11::int_& low,
                            const pybind11::int_& high);

template <class Int>
Int whole(std::string_view name, pybind11::handle value, Int low, Int high = std::numeric_limits<Int>::max()) {
  if (PyLong_CheckExact(value.ptr())) {  // the usual case: compared without making objects of the bounds
    int overflow = 0;
    const long long found = PyLong_AsLongLongAndOverflow(value.ptr(), &overflow);
    const Int taken = static_cast<Int>(found);
    const bool same = overflow == 0 && static_cast<long long>(taken) == found && (taken < 0) == (found < 0);
    if (same && taken >= low && taken <= high) return taken;
  }
  return whole_object(std::string(name), value, pybind11::int_(low), pybind11::int_(high)).template cast<Int>();
}

double number(const std::string& name, pybind11::handle value);
bool flag(const std::string& name, pybind11::handle value);
std::string text(const std::string& name, pybind11::handle value);

[[noreturn]] void refuse_word(const std::string& name, pybind11::handle value, const std::string& choices);

// One of a few words.
template <class Value>
Value word(const std::string& name, pybind11::handle value,
           std::initializer_list<std::pair<const char*, Value>> choices) {
  std::string list;
  for (const auto& [choice, meaning] : choices) {
    if (PyUnicode_Check(value.ptr()) && PyUnicode_CompareWithASCIIString(value.ptr(), choice) == 0) return meaning;
    list += (list.empty() ? "'" : ", '") + std::string(choice) + "'";
  }
  refuse_word(name, value, list);
}

}  // namespace multigrid
