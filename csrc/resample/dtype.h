// DType: the dtypes that can be resampled, and the one place where a dtype becomes a C++ type.
#pragma once

#include <cstdint>
#include <utility>

#include "resample/device.h"
#include "resample/half.h"

namespace multigrid {

enum class DType : int { u8, f16, f32, bf16 };

MULTIGRID_HD inline std::int64_t bytes_of(DType dtype) { return dtype == DType::u8 ? 1 : dtype == DType::f32 ? 4 : 2; }

// Calls f with a value of that type: visit(dtype, [](auto zero) { using T = decltype(zero); ... }).
template <class F>
inline decltype(auto) visit(DType dtype, F&& f) {
  switch (dtype) {
    case DType::u8:
      return f(std::uint8_t{});
    case DType::f16:
      return f(Half{});
    case DType::bf16:
      return f(Bfloat16{});
    case DType::f32:
      break;
  }
  return f(float{});
}

}  // namespace multigrid
