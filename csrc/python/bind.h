// define: a bound function, or method, that refuses a wrong call in words of its own.
#pragma once

#include <pybind11/pybind11.h>

#include <string>

namespace multigrid {

// `usage` is how it is called: the error of a call with too many, too few or unknown arguments, in place of pybind11's
// "incompatible function arguments".
template <class Scope, class Function, class... Extra>
Scope& define(Scope& scope, const char* name, Function&& function, const char* usage, const char* doc,
              const Extra&... extra) {
  scope.def(name, std::forward<Function>(function), doc, extra...);
  scope.def(name, [usage](const pybind11::args&, const pybind11::kwargs&) -> void {
    throw pybind11::type_error("the call must be " + std::string(usage));
  });
  return scope;
}

}  // namespace multigrid
