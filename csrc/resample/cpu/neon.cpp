// Rows with NEON, which every 64-bit Arm machine has: one quad per vector.

#include "resample/cpu/rows.inl"

#if defined(__aarch64__) && defined(__GNUC__)
#include <arm_neon.h>

namespace multigrid {
namespace {

struct Neon {
  static constexpr int lanes = 1;
  static constexpr bool bytes = true;
  using Floats = float32x4_t;
  using Bytes = uint8x16_t;

  static Floats load(const float* from) { return vld1q_f32(from); }
  static Floats all(float x) { return vdupq_n_f32(x); }
  static Floats product(Floats a, Floats b) { return vmulq_f32(a, b); }
  static Floats add_product(Floats a, Floats b, Floats sum) { return vfmaq_f32(sum, a, b); }

  static Bytes windows(const std::uint8_t* row, const std::int32_t* offset, std::int64_t ahead) {
    return vld1q_u8(row + offset[0] + ahead);
  }
  static Bytes split_windows(const std::uint8_t* row, const std::int32_t* offset, std::int64_t ahead) {
    return vcombine_u8(vld1_u8(row + offset[0] + ahead), vld1_u8(row + offset[1] + ahead));
  }
  static Bytes order(const std::uint8_t* mask) { return vld1q_u8(mask); }
  static Floats pick(Bytes window, Bytes order) {
    return vcvtq_f32_u32(vreinterpretq_u32_u8(vqtbl1q_u8(window, order)));
  }
  static Floats gather(const float* row, const std::int32_t* offset) {
    const float values[4] = {row[offset[0]], row[offset[1]], row[offset[2]], row[offset[3]]};
    return vld1q_f32(values);
  }

  template <class T>
  static Floats widen(const char* from, T) {
    T values[4];
    std::memcpy(values, from, sizeof values);
    const float floats[4] = {to_float(values[0]), to_float(values[1]), to_float(values[2]), to_float(values[3])};
    return vld1q_f32(floats);
  }

  static void store(float* to, Floats from) { vst1q_f32(to, from); }
  static void store(std::uint8_t* to, Floats from) {
    const uint16x4_t words = vqmovn_u32(vcvtnq_u32_f32(from));
    vst1_lane_u32(reinterpret_cast<std::uint32_t*>(to), vreinterpret_u32_u8(vqmovn_u16(vcombine_u16(words, words))), 0);
  }
  static void store(Half* to, Floats from) {
    vst1_u16(reinterpret_cast<std::uint16_t*>(to), vreinterpret_u16_f16(vcvt_f16_f32(from)));
  }
  static void store(Bfloat16* to, Floats from) {
    float values[4];
    vst1q_f32(values, from);
    for (int i = 0; i < 4; ++i) assign(to[i], values[i]);
  }
  static void stream(char* to, const char* from) { std::memcpy(to, from, 16); }
  static void settle() {}

  // r g b r | g b r g | b r g b -> r r r r | g g g g | b b b b
  static void planes(Floats& a, Floats& b, Floats& c) {
    float values[12];
    vst1q_f32(values, a);
    vst1q_f32(values + 4, b);
    vst1q_f32(values + 8, c);
    const float32x4x3_t split = vld3q_f32(values);
    a = split.val[0], b = split.val[1], c = split.val[2];
  }
};

constexpr RowCode code = row_code<Neon>("neon");

}  // namespace

const RowCode* neon_code() { return &code; }

}  // namespace multigrid

#else

namespace multigrid {
const RowCode* neon_code() { return nullptr; }
}  // namespace multigrid

#endif
