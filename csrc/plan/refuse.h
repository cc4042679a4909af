// refuse: raises ValueError with the argument, its value, the rule and the next move.
//
// The message is made without streams. If the compiler links its standard library into this module, as some do by
// default, a stream that writes a number crashes the interpreter (seen with g++ 13 and Python 3.12).
#pragma once

#include <cstdio>
#include <stdexcept>
#include <string>
#include <type_traits>

namespace multigrid {

template <class Part>
void append(std::string& message, const Part& part) {
  if constexpr (std::is_floating_point_v<Part>) {
    char digits[32];
    std::snprintf(digits, sizeof digits, "%.15g", static_cast<double>(part));
    message += digits;
  } else if constexpr (std::is_arithmetic_v<Part> && !std::is_same_v<Part, char>) {
    message += std::to_string(part);
  } else {
    message += part;
  }
}

template <class... Parts>
std::string joined(const Parts&... parts) {
  std::string message;
  (append(message, parts), ...);
  return message;
}

template <class... Parts>
[[noreturn]] void refuse(const Parts&... parts) {
  throw std::invalid_argument(joined(parts...));
}

}  // namespace multigrid
