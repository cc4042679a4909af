// Arguments of any kind to C++ values: TypeError for a kind, ValueError for a value, always with the argument's name.
// Bound functions take py::object and convert here, so that nobody reads pybind11's own words about signatures.
#pragma once

#include <pybind11/pybind11.h>

#include <initializer_list>
#include <limits>
#include <string>
#include <utility>

namespace multigrid {

// "name (value)", as errors begin; a long value is cut.
std::string said(const std::string& name, pybind11::handle value);

// A whole number (an int, or anything with __index__) as an int object in [low, high].
pybind11::int_ whole_object(const std::string& name, pybind11::handle value, const pybind11::int_& low,
                            const pybind11::int_& high);

template <class Int>
Int whole(const std::string& name, pybind11::handle value, Int low, Int high = std::numeric_limits<Int>::max()) {
  return whole_object(name, value, pybind11::int_(low), pybind11::int_(high)).template cast<Int>();
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
