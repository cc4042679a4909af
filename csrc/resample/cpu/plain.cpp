// Rows without vector instructions: loops over four floats.

#include "resample/cpu/rows.inl"

namespace multigrid {
namespace {

struct Plain {
  static constexpr int lanes = 1;
  static constexpr bool bytes = false;

  struct Floats {
    float at[4];
  };

  static Floats load(const float* from) { return {{from[0], from[1], from[2], from[3]}}; }
  static Floats all(float x) { return {{x, x, x, x}}; }

  static Floats product(Floats a, Floats b) {
    for (int i = 0; i < 4; ++i) a.at[i] *= b.at[i];
    return a;
  }

  static Floats add_product(Floats a, Floats b, Floats sum) {
    for (int i = 0; i < 4; ++i) sum.at[i] += a.at[i] * b.at[i];
    return sum;
  }

  static Floats gather(const float* row, const std::int32_t* offset) {
    return {{row[offset[0]], row[offset[1]], row[offset[2]], row[offset[3]]}};
  }

  template <class T>
  static Floats widen(const char* from, T) {
    Floats out;
    for (int i = 0; i < 4; ++i) {
      T value;
      std::memcpy(&value, from + i * sizeof(T), sizeof(T));
      out.at[i] = to_float(value);
    }
    return out;
  }

  template <class T>
  static void store(T* to, Floats from) {
    for (int i = 0; i < 4; ++i) assign(to[i], from.at[i]);
  }

  static void stream(char* to, const char* from) { std::memcpy(to, from, 16); }
  static void settle() {}

  // r g b r | g b r g | b r g b -> r r r r | g g g g | b b b b
  static void planes(Floats& a, Floats& b, Floats& c) {
    const Floats r = {{a.at[0], a.at[3], b.at[2], c.at[1]}};
    const Floats g = {{a.at[1], b.at[0], b.at[3], c.at[2]}};
    const Floats blue = {{a.at[2], b.at[1], c.at[0], c.at[3]}};
    a = r, b = g, c = blue;
  }
};

constexpr RowCode code = row_code<Plain>("plain");

}  // namespace

const RowCode* plain_code() { return &code; }

}  // namespace multigrid
