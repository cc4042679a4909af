// How bad input is refused: a ValueError that says the argument, its value, the rule and the next move.
#pragma once

#include <sstream>
#include <stdexcept>

namespace multigrid {

template <class... Parts>
[[noreturn]] void refuse(const Parts&... parts) {
  std::ostringstream message;
  message.precision(15);
  (message << ... << parts);
  throw std::invalid_argument(message.str());
}

}  // namespace multigrid
