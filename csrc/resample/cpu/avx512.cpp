// Rows with AVX-512 (F, BW, DQ, VL): four quads per vector. The build compiles this file for those instructions.

#include "resample/cpu/rows.inl"

#if defined(__AVX512BW__) && defined(__GNUC__)
#include <immintrin.h>

#ifndef __clang__
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12 warns of its own header (GCC bug 105593)
#endif

namespace multigrid {
namespace {

struct Avx512 {
  static constexpr int lanes = 4;
  static constexpr bool bytes = true;
  using Floats = __m512;
  using Bytes = __m512i;

  static Floats load(const float* from) { return _mm512_loadu_ps(from); }
  static Floats all(float x) { return _mm512_set1_ps(x); }
  static Floats product(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
  static Floats add_product(Floats a, Floats b, Floats sum) { return _mm512_fmadd_ps(a, b, sum); }

  static __m128i bytes_at(const std::uint8_t* from) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from)); }
  static __m128i two_halves(const std::uint8_t* low, const std::uint8_t* high) {
    const __m128i first = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(low));
    return _mm_castps_si128(_mm_loadh_pi(_mm_castsi128_ps(first), reinterpret_cast<const __m64*>(high)));
  }
  static Bytes joined(__m128i a, __m128i b, __m128i c, __m128i d) {
    return _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_set_m128i(b, a)), _mm256_set_m128i(d, c), 1);
  }
  static Bytes windows(const std::uint8_t* row, const std::int32_t* offset, std::int64_t ahead) {
    return joined(bytes_at(row + offset[0] + ahead), bytes_at(row + offset[1] + ahead),
                  bytes_at(row + offset[2] + ahead), bytes_at(row + offset[3] + ahead));
  }
  static Bytes split_windows(const std::uint8_t* row, const std::int32_t* offset, std::int64_t ahead) {
    return joined(two_halves(row + offset[0] + ahead, row + offset[1] + ahead),
                  two_halves(row + offset[2] + ahead, row + offset[3] + ahead),
                  two_halves(row + offset[4] + ahead, row + offset[5] + ahead),
                  two_halves(row + offset[6] + ahead, row + offset[7] + ahead));
  }
  static Bytes order(const std::uint8_t* mask) { return _mm512_loadu_si512(mask); }
  static Floats pick(Bytes window, Bytes order) { return _mm512_cvtepi32_ps(_mm512_shuffle_epi8(window, order)); }
  static Floats gather(const float* row, const std::int32_t* offset) {
    return _mm512_i32gather_ps(_mm512_loadu_si512(offset), row, 4);
  }

  static __m256i sixteen(const char* from) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)); }
  static Floats widen(const char* from, float) { return _mm512_loadu_ps(from); }
  static Floats widen(const char* from, Half) { return _mm512_cvtph_ps(sixteen(from)); }
  static Floats widen(const char* from, Bfloat16) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(sixteen(from)), 16));
  }
  static Floats widen(const char* from, std::uint8_t) {
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
  }

  static void store(float* to, Floats from) { _mm512_storeu_ps(to, from); }
  static void store(Half* to, Floats from) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtps_ph(from, _MM_FROUND_TO_NEAREST_INT));
  }
  static void store(Bfloat16* to, Floats from) {
    const __m512i bits = _mm512_castps_si512(from);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i even = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
    const __mmask16 nan = _mm512_cmp_ps_mask(from, from, _CMP_UNORD_Q);
    const __m512i kept = _mm512_srli_epi32(_mm512_mask_blend_epi32(nan, even, quiet), 16);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi32_epi16(kept));
  }
  static void store(std::uint8_t* to, Floats from) {
    const __m512i whole = _mm512_max_epi32(_mm512_cvtps_epi32(from), _mm512_setzero_si512());
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtusepi32_epi8(whole));
  }
  static void stream(char* to, const char* from) {
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to), _mm512_loadu_si512(from));
  }
  static void settle() { _mm_sfence(); }

  // In each lane r g b r | g b r g | b r g b -> r r r r | g g g g | b b b b
  static void planes(Floats& a, Floats& b, Floats& c) {
    const Floats rg = _mm512_shuffle_ps(b, c, _MM_SHUFFLE(2, 1, 3, 2));  // r2 g2 r3 g3
    const Floats gb = _mm512_shuffle_ps(a, b, _MM_SHUFFLE(1, 0, 2, 1));  // g0 b0 g1 b1
    const Floats r = _mm512_shuffle_ps(a, rg, _MM_SHUFFLE(2, 0, 3, 0));
    const Floats g = _mm512_shuffle_ps(gb, rg, _MM_SHUFFLE(3, 1, 2, 0));
    const Floats blue = _mm512_shuffle_ps(gb, c, _MM_SHUFFLE(3, 0, 3, 1));
    a = r, b = g, c = blue;
  }
};

constexpr RowCode code = row_code<Avx512>("avx512");

}  // namespace

const RowCode* avx512_code() { return &code; }

}  // namespace multigrid

#else

namespace multigrid {
const RowCode* avx512_code() { return nullptr; }
}  // namespace multigrid

#endif
