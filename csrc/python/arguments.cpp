#include "python/arguments.h"

namespace py = pybind11;

namespace multigrid {

std::string said(const std::string& name, py::handle value) {
  std::string shown;
  try {
    shown = py::repr(value);
  } catch (py::error_already_set&) {  // a value whose repr fails is named by its type
    shown = py::str(py::type::handle_of(value).attr("__name__"));
  }
  constexpr std::size_t most = 80;
  if (shown.size() > most) {
    std::size_t end = most;
    while ((static_cast<unsigned char>(shown[end]) & 0xc0u) == 0x80u) --end;  // not inside a character
    shown = shown.substr(0, end) + "...";
  }
  return name + " (" + shown + ")";
}

py::int_ whole_object(const std::string& name, py::handle value, const py::int_& low, const py::int_& high) {
  if (PyBool_Check(value.ptr())) throw py::type_error(said(name, value) + " must be a whole number");
  auto index = py::reinterpret_steal<py::object>(PyNumber_Index(value.ptr()));
  if (!index) {
    if (!PyErr_ExceptionMatches(PyExc_TypeError)) throw py::error_already_set();
    PyErr_Clear();
    throw py::type_error(said(name, value) + " must be a whole number");
  }
  if (index < low) throw py::value_error(said(name, value) + " must be at least " + std::string(py::str(low)));
  if (index > high) {
    // The bound of a machine word is easier to read as a power of two.
    const py::object bits = high.attr("bit_length")();
    const bool word = bits > py::int_(32) && (high + py::int_(1)).equal(py::int_(1) << bits);
    throw py::value_error(said(name, value) + (word ? " must be below 2**" + std::string(py::str(bits))
                                                    : " must be at most " + std::string(py::str(high))));
  }
  return py::reinterpret_steal<py::int_>(index.release());
}

double number(const std::string& name, py::handle value) {
  if (PyBool_Check(value.ptr())) throw py::type_error(said(name, value) + " must be a number");
  const double found = PyFloat_AsDouble(value.ptr());
  if (found != -1 || !PyErr_Occurred()) return found;
  if (PyErr_ExceptionMatches(PyExc_OverflowError)) {
    PyErr_Clear();
    throw py::value_error(said(name, value) + " is too large for a float");
  }
  if (!PyErr_ExceptionMatches(PyExc_TypeError) && !PyErr_ExceptionMatches(PyExc_ValueError))
    throw py::error_already_set();
  PyErr_Clear();
  throw py::type_error(said(name, value) + " must be a number");
}

bool flag(const std::string& name, py::handle value) {
  if (PyBool_Check(value.ptr())) return value.ptr() == Py_True;
  // NumPy's own booleans, which are not Python's.
  if (py::str(py::type::handle_of(value).attr("__name__")).equal(py::str("bool"))) return value.equal(py::bool_(true));
  throw py::type_error(said(name, value) + " must be True or False");
}

std::string text(const std::string& name, py::handle value) {
  if (!PyUnicode_Check(value.ptr())) throw py::type_error(said(name, value) + " must be a string");
  return value.cast<std::string>();
}

void refuse_word(const std::string& name, py::handle value, const std::string& choices) {
  const std::string message = said(name, value) + " must be one of " + choices;
  if (PyUnicode_Check(value.ptr())) throw py::value_error(message);
  throw py::type_error(message);
}

}  // namespace multigrid
