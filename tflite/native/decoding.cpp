#include "decoding.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

namespace kpose {
namespace {

// One heatmap out of its channels.
struct Map {
  Size size;
  std::vector<float> values;

  float at(int x, int y) const { return values[static_cast<size_t>(y) * size.width + x]; }
};

struct Point {
  double x, y;
};

// The kernel that OpenCV 5 takes for this many taps: tables up to 9, above them a Gaussian.
std::vector<double> blur_kernel(int taps) {
  switch (taps) {
    case 3: return {1 / 4., 2 / 4., 1 / 4.};
    case 5: return {1 / 16., 4 / 16., 6 / 16., 4 / 16., 1 / 16.};
    case 7: return {2 / 64., 7 / 64., 14 / 64., 18 / 64., 14 / 64., 7 / 64., 2 / 64.};
    case 9: return {4 / 256., 13 / 256., 30 / 256., 51 / 256., 60 / 256., 51 / 256., 30 / 256., 13 / 256., 4 / 256.};
    default: break;
  }
  const double deviation = 0.15 * taps + 0.35;
  std::vector<double> kernel(taps);
  double sum = 0;
  for (int tap = 0; tap < taps; ++tap) {
    const double distance = tap - taps / 2;
    sum += kernel[tap] = std::exp(-distance * distance / (2 * deviation * deviation));
  }
  for (double &weight : kernel) weight /= sum;
  return kernel;
}

// Blurred along one direction; outside of the line there is nothing.
void blur_line(const float *from, float *to, int length, int step, const std::vector<double> &kernel) {
  const int reach = static_cast<int>(kernel.size()) / 2;
  for (int place = 0; place < length; ++place) {
    double sum = 0;
    for (int source = std::max(0, place - reach); source <= std::min(length - 1, place + reach); ++source) {
      sum += kernel[source - place + reach] * from[source * step];
    }
    to[place * step] = static_cast<float>(sum);
  }
}

Map blur(const Map &map, double sigma) {
  const std::vector<double> kernel = blur_kernel(std::max(3, 2 * static_cast<int>(std::floor(3 * sigma - 0.5)) + 1));
  const auto [height, width] = map.size;
  Map down{map.size, std::vector<float>(map.values.size())}, result = down;
  for (int x = 0; x < width; ++x) blur_line(&map.values[x], &down.values[x], height, width, kernel);
  for (int y = 0; y < height; ++y) {
    const size_t row = static_cast<size_t>(y) * width;
    blur_line(&down.values[row], &result.values[row], width, 1, kernel);
  }
  return result;
}

Point quarter_offset(const Map &map, int x, int y) {
  if (x <= 1 || x >= map.size.width - 1 || y <= 1 || y >= map.size.height - 1) return {0, 0};
  const auto quarter = [](float slope) { return slope > 0 ? 0.25 : slope < 0 ? -0.25 : 0.0; };
  return {quarter(map.at(x + 1, y) - map.at(x - 1, y)), quarter(map.at(x, y + 1) - map.at(x, y - 1))};
}

// DARK: one Newton step on the logarithm of the blurred map.
Point dark_offset(const Map &map, int x, int y, double sigma) {
  const auto [height, width] = map.size;
  if (std::min(height, width) < 5 || x <= 1 || x >= width - 2 || y <= 1 || y >= height - 2) return {0, 0};
  const Map blurred = blur(map, sigma);
  const float now = *std::max_element(blurred.values.begin(), blurred.values.end());
  const float scale = now > 0 ? map.at(x, y) / now : 0.0f;
  const auto log = [&](int right, int below) -> double { return std::log(std::max(blurred.at(x + right, y + below) * scale, 1e-10f)); };
  const double middle = log(0, 0);
  const double dx = (log(1, 0) - log(-1, 0)) / 2, dy = (log(0, 1) - log(0, -1)) / 2;
  const double dxx = (log(2, 0) - 2 * middle + log(-2, 0)) / 4, dyy = (log(0, 2) - 2 * middle + log(0, -2)) / 4;
  const double dxy = (log(1, 1) - log(1, -1) - log(-1, 1) + log(-1, -1)) / 4;
  const double determinant = dxx * dyy - dxy * dxy;
  if (determinant == 0) return {0, 0};
  return {(dxy * dy - dyy * dx) / determinant, (dxy * dx - dxx * dy) / determinant};
}

}  // namespace

void decode(const float *heatmaps, int joints, const Codec &codec, float *keypoints) {
  const size_t pixels = static_cast<size_t>(codec.heatmap.height) * codec.heatmap.width;
  const Stride stride = heatmap_stride(codec.input, codec.heatmap, codec.alignment);
  Map map{codec.heatmap, std::vector<float>(pixels)};
  for (int joint = 0; joint < joints; ++joint) {
    for (size_t pixel = 0; pixel < pixels; ++pixel) map.values[pixel] = heatmaps[pixel * joints + joint];
    const auto best = static_cast<int>(std::max_element(map.values.begin(), map.values.end()) - map.values.begin());
    const int x = best % codec.heatmap.width, y = best / codec.heatmap.width;
    const float score = map.values[best];
    Point point{0, 0};
    if (score > 0) {
      Point offset{0, 0};
      if (codec.decoding == Decoding::quarter_offset) offset = quarter_offset(map, x, y);
      if (codec.decoding == Decoding::dark) offset = dark_offset(map, x, y, codec.sigma);
      point = {x + offset.x, y + offset.y};
    }
    *keypoints++ = static_cast<float>(point.x * stride.x);
    *keypoints++ = static_cast<float>(point.y * stride.y);
    *keypoints++ = score;
  }
}

void transform(const Affine &m, int joints, float *keypoints) {
  for (int joint = 0; joint < joints; ++joint, keypoints += 3) {
    const double x = keypoints[0], y = keypoints[1];
    keypoints[0] = static_cast<float>(m[0] * x + m[1] * y + m[2]);
    keypoints[1] = static_cast<float>(m[3] * x + m[4] * y + m[5]);
  }
}

}  // namespace kpose
