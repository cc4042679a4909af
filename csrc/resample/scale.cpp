// The scale and shift from a pixel to a value of the clip.

#include "resample/resample.h"

namespace multigrid {

Scale scale_of(const Options& options, DType from, DType to, std::int64_t channels) {
  Scale scale;
  const double top = from == DType::u8 && to != DType::u8 ? 255 : 1;
  const auto of_channel = [](const std::vector<double>& values, std::int64_t c, double otherwise) {
    return values.empty() ? otherwise : values[values.size() == 1 ? 0 : c];
  };
  for (std::int64_t c = 0; c < channels; ++c) {
    const double mean = of_channel(options.mean, c, 0), std = of_channel(options.std, c, 1);
    scale.times.push_back(static_cast<float>(1 / (top * std)));
    scale.plus.push_back(static_cast<float>(-mean / std));
  }
  return scale;
}

}  // namespace multigrid
