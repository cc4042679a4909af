// float16 and bfloat16 as bits, converted without hardware support. Rounded to nearest, ties to even. Host and device.
#pragma once

#include <cstdint>
#include <cstring>

#include "resample/device.h"

namespace multigrid {

struct Half {
  std::uint16_t bits;
};

struct Bfloat16 {
  std::uint16_t bits;
};

MULTIGRID_HD inline std::uint32_t bits_of(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

MULTIGRID_HD inline float from_bits(std::uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

MULTIGRID_HD inline float to_float(float x) { return x; }
MULTIGRID_HD inline float to_float(std::uint8_t x) { return static_cast<float>(x); }
MULTIGRID_HD inline float to_float(Bfloat16 x) { return from_bits(static_cast<std::uint32_t>(x.bits) << 16); }

// The exponent is re-biased by a product that is exact, also for subnormals.
MULTIGRID_HD inline float to_float(Half x) {
  const std::uint32_t sign = static_cast<std::uint32_t>(x.bits & 0x8000u) << 16;
  const std::uint32_t magnitude = static_cast<std::uint32_t>(x.bits & 0x7fffu) << 13;
  if (magnitude >= 0x0f800000u) return from_bits(sign | 0x70000000u | magnitude);  // inf, nan
  return from_bits(sign | bits_of(from_bits(magnitude) * 0x1p112f));
}

MULTIGRID_HD inline void assign(float& to, float x) { to = x; }

MULTIGRID_HD inline void assign(Bfloat16& to, float x) {
  const std::uint32_t bits = bits_of(x);
  const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
  to.bits = static_cast<std::uint16_t>(nan ? (bits >> 16) | 0x40u : (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// Adding a power of two aligns float16's last place with float32's, so that the addition rounds.
MULTIGRID_HD inline void assign(Half& to, float x) {
  const std::uint32_t bits = bits_of(x), sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7fffffffu;
  std::uint32_t half;
  if (magnitude > 0x7f800000u) {
    half = 0x7e00u;
  } else if (magnitude >= 0x477ff000u) {  // 65520 and above
    half = 0x7c00u;
  } else if (magnitude < 0x38800000u) {  // below 2^-14: subnormal
    half = bits_of(from_bits(magnitude) + 0.5f) - 0x3f000000u;
  } else {
    half = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  }
  to.bits = static_cast<std::uint16_t>(sign | half);
}

// 2^23 + 2^22 pushes the fraction out of the mantissa.
MULTIGRID_HD inline void assign(std::uint8_t& to, float x) {
  const float clipped = x > 255 ? 255.0f : x > 0 ? x : 0.0f;
  to = static_cast<std::uint8_t>(bits_of(clipped + 12582912.0f) & 0xffu);
}

}  // namespace multigrid
