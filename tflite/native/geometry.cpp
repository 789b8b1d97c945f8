#include "geometry.h"

#include <algorithm>
#include <cmath>
#include <locale>
#include <sstream>
#include <string>
#include <vector>

#include "error.h"

namespace kpose {
namespace {

constexpr int kChannels = 3;

// How long a crop or heatmap is, in pixels or in steps between pixel centres.
Stride extent(Size size, Alignment alignment) {
  const double less = alignment == Alignment::classic ? 0.0 : 1.0;
  return {size.width - less, size.height - less};
}

std::string shown(const Box &box) {
  std::ostringstream text;
  text.imbue(std::locale::classic());
  text << "box [" << box[0] << ", " << box[1] << ", " << box[2] << ", " << box[3] << "]";
  return text.str();
}

// Which two pixels of a row or column a place lies between, and how much of the second it takes; outside there is black.
struct Tap {
  int first, second;             // within the picture
  float first_part, second_part; // 0 for those that would lie outside
};

Tap tap_at(double place, int length) {
  // Far away all is black; held back, so that it can be counted in an int.
  place = std::clamp(place, -2.0, length + 1.0);
  const int before = static_cast<int>(std::floor(place));
  const float part = static_cast<float>(place - before);
  const auto inside = [length](int index) { return index >= 0 && index < length; };
  return {std::clamp(before, 0, length - 1), std::clamp(before + 1, 0, length - 1), inside(before) ? 1.0f - part : 0.0f,
          inside(before + 1) ? part : 0.0f};
}

}  // namespace

void check_photo(const Photo &photo) {
  if (photo.pixels == nullptr || photo.width < 1 || photo.height < 1) throw Error("the photo has no pixels");
  if (photo.stride < static_cast<int64_t>(kChannels) * photo.width) {
    throw Error("the photo's rows are " + std::to_string(photo.stride) + " bytes apart, less than " + std::to_string(photo.width) +
                " RGB pixels take");
  }
}

void check_box(const Box &box, const Photo &photo) {
  for (const double value : box) {
    if (!std::isfinite(value)) throw Error(shown(box) + " holds NaN or infinity");
  }
  if (box[2] <= 0 || box[3] <= 0) throw Error(shown(box) + " has no area; a box is x, y, width, height");
  if (box[0] >= photo.width || box[1] >= photo.height || box[0] + box[2] <= 0 || box[1] + box[3] <= 0) {
    throw Error(shown(box) + " lies outside of the photo of " + std::to_string(photo.width) + " x " + std::to_string(photo.height) +
                " pixels");
  }
}

Affine crop_matrix(const Box &box, Size crop, double padding, Alignment alignment) {
  const double aspect_ratio = static_cast<double>(crop.width) / crop.height;
  const double center_x = box[0] + box[2] * 0.5, center_y = box[1] + box[3] * 0.5;
  const double grown_width = std::max(box[2], box[3] * aspect_ratio);
  const Stride length = extent(crop, alignment);
  const double scale_x = length.x / (grown_width * padding), scale_y = length.y / (grown_width / aspect_ratio * padding);
  return {scale_x, 0.0, length.x * 0.5 - scale_x * center_x, 0.0, scale_y, length.y * 0.5 - scale_y * center_y};
}

Affine invert(const Affine &m) {
  const double determinant = m[0] * m[4] - m[1] * m[3];
  const Affine inverse = {m[4] / determinant, -m[1] / determinant, (m[1] * m[5] - m[4] * m[2]) / determinant,
                          -m[3] / determinant, m[0] / determinant, (m[3] * m[2] - m[0] * m[5]) / determinant};
  for (const double value : inverse) {
    if (!std::isfinite(value)) throw Error("the box is too small or too large to compute with");
  }
  return inverse;
}

Stride heatmap_stride(Size crop, Size heatmap, Alignment alignment) {
  const Stride whole = extent(crop, alignment), small = extent(heatmap, alignment);
  return {whole.x / small.x, whole.y / small.y};
}

void cut_crop(const Photo &photo, const Affine &matrix, Size size, float *crop) {
  const Affine back = invert(matrix);
  std::vector<Tap> columns(size.width);
  for (int x = 0; x < size.width; ++x) columns[x] = tap_at(back[0] * x + back[2], photo.width);
  for (int y = 0; y < size.height; ++y) {
    const Tap row = tap_at(back[4] * y + back[5], photo.height);
    const uint8_t *upper = photo.pixels + row.first * photo.stride, *lower = photo.pixels + row.second * photo.stride;
    for (const Tap &column : columns) {
      const int left = column.first * kChannels, right = column.second * kChannels;
      for (int channel = 0; channel < kChannels; ++channel) {
        const float above = upper[left + channel] * column.first_part + upper[right + channel] * column.second_part;
        const float below = lower[left + channel] * column.first_part + lower[right + channel] * column.second_part;
        *crop++ = above * row.first_part + below * row.second_part;
      }
    }
  }
}

}  // namespace kpose
