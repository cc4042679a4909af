// Rows with AVX2, FMA and F16C: two quads per vector. The build compiles this file for those instructions.

#include "resample/cpu/rows.inl"

#if defined(__AVX2__) && defined(__GNUC__)
#include <immintrin.h>

namespace multigrid {
namespace {

struct Avx2 {
  static constexpr int lanes = 2;
  static constexpr bool bytes = true;
  using Floats = __m256;
  using Bytes = __m256i;

  static Floats load(const float* from) { return _mm256_loadu_ps(from); }
  static Floats all(float x) { return _mm256_set1_ps(x); }
  static Floats product(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
  static Floats add_product(Floats a, Floats b, Floats sum) { return _mm256_fmadd_ps(a, b, sum); }

  static __m128i bytes_at(const std::uint8_t* from) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from)); }
  static __m128i two_halves(const std::uint8_t* low, const std::uint8_t* high) {
    const __m128i first = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(low));
    return _mm_castps_si128(_mm_loadh_pi(_mm_castsi128_ps(first), reinterpret_cast<const __m64*>(high)));
  }
  static Bytes windows(const std::uint8_t* row, const std::int32_t* offset, std::int64_t ahead) {
    const __m128i low = bytes_at(row + offset[0] + ahead), high = bytes_at(row + offset[1] + ahead);
    return _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1);
  }
  static Bytes split_windows(const std::uint8_t* row, const std::int32_t* offset, std::int64_t ahead) {
    return _mm256_set_m128i(two_halves(row + offset[2] + ahead, row + offset[3] + ahead),
                            two_halves(row + offset[0] + ahead, row + offset[1] + ahead));
  }
  static Bytes order(const std::uint8_t* mask) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(mask)); }
  static Floats pick(Bytes window, Bytes order) { return _mm256_cvtepi32_ps(_mm256_shuffle_epi8(window, order)); }
  static Floats gather(const float* row, const std::int32_t* offset) {
    return _mm256_i32gather_ps(row, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(offset)), 4);
  }

  static __m128i eight(const char* from) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from)); }
  static Floats widen(const char* from, float) { return _mm256_loadu_ps(reinterpret_cast<const float*>(from)); }
  static Floats widen(const char* from, Half) { return _mm256_cvtph_ps(eight(from)); }
  static Floats widen(const char* from, Bfloat16) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(eight(from)), 16));
  }
  static Floats widen(const char* from, std::uint8_t) {
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))));
  }

  static void store(float* to, Floats from) { _mm256_storeu_ps(to, from); }
  static void store(Half* to, Floats from) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtps_ph(from, _MM_FROUND_TO_NEAREST_INT));
  }
  static void store(Bfloat16* to, Floats from) {
    const __m256i bits = _mm256_castps_si256(from);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i even = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    const __m256 nan = _mm256_cmp_ps(from, from, _CMP_UNORD_Q);
    const __m256i kept =
        _mm256_castps_si256(_mm256_blendv_ps(_mm256_castsi256_ps(even), _mm256_castsi256_ps(quiet), nan));
    const __m256i packed = _mm256_packus_epi32(_mm256_srli_epi32(kept, 16), _mm256_setzero_si256());
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0x08)));
  }
  static void store(std::uint8_t* to, Floats from) {
    const __m256i whole = _mm256_cvtps_epi32(from);
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm_packus_epi16(words, words));
  }

  static void stream(char* to, const char* from) {
    _mm256_stream_si256(reinterpret_cast<__m256i*>(to), _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  }
  static void settle() { _mm_sfence(); }

  // In each lane r g b r | g b r g | b r g b -> r r r r | g g g g | b b b b
  static void planes(Floats& a, Floats& b, Floats& c) {
    const Floats rg = _mm256_shuffle_ps(b, c, _MM_SHUFFLE(2, 1, 3, 2));  // r2 g2 r3 g3
    const Floats gb = _mm256_shuffle_ps(a, b, _MM_SHUFFLE(1, 0, 2, 1));  // g0 b0 g1 b1
    const Floats r = _mm256_shuffle_ps(a, rg, _MM_SHUFFLE(2, 0, 3, 0));
    const Floats g = _mm256_shuffle_ps(gb, rg, _MM_SHUFFLE(3, 1, 2, 0));
    const Floats blue = _mm256_shuffle_ps(gb, c, _MM_SHUFFLE(3, 0, 3, 1));
    a = r, b = g, c = blue;
  }
};

constexpr RowCode code = row_code<Avx2>("avx2");

}  // namespace

const RowCode* avx2_code() { return &code; }

}  // namespace multigrid

#else

namespace multigrid {
const RowCode* avx2_code() { return nullptr; }
}  // namespace multigrid

#endif
