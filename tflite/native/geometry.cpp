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

// Which two pixels of a row or column, counted from 1, a place lies between, and how far it is on its way to the second. The ones before
// the first and behind the last are black; further outside, there is no tap.
struct Tap {
  int first, second;
  float part;
  bool inside;
};

// The taps of `count` pixels that are spread evenly over a row or column of `length` pixels.
//
// scale, shift: of the map from the row of the photo to that of the crop, in float32. So is all of this, in the order of the operations of
// geometry.invert_affine and of TensorFlow's CropAndResize.
std::vector<Tap> taps_along(float scale, float shift, float other_scale, int length, int count) {
  const float last = static_cast<float>(length + 1), determinant = scale * other_scale;
  const float step = other_scale / determinant / last;
  const float start = ((0.0f - other_scale * shift) / determinant + 1.0f) / last;
  const float end = static_cast<float>(count - 1) * step + start;
  const float pixels = (end - start) * last / static_cast<float>(count - 1);
  std::vector<Tap> taps(count);
  for (int index = 0; index < count; ++index) {
    const float place = start * last + static_cast<float>(index) * pixels;
    if (!(place >= 0 && place <= last)) continue;  // NaN neither
    const float before = std::floor(place);
    taps[index] = {static_cast<int>(before), static_cast<int>(std::ceil(place)), place - before, true};
  }
  return taps;
}

// From where to where a crop shows a row or column, with a pixel more on either side for the interpolation.
struct Range {
  int start, length;
};

Range shown_range(double step, double shift, int count, int length) {
  const double one = shift, other = step * (count - 1) + shift;
  const double start = std::min(std::max(std::floor(std::min(one, other)) - 1, 0.0), length - 1.0);
  const double stop = std::max(std::min(std::floor(std::max(one, other)) + 3, static_cast<double>(length)), start + 1);
  return {static_cast<int>(start), static_cast<int>(stop - start)};
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
  const auto aspect_ratio = static_cast<float>(static_cast<double>(crop.width) / crop.height);
  const double center_x = box[0] + box[2] * 0.5f, center_y = box[1] + box[3] * 0.5f;
  const float grown_width = std::max(box[2], box[3] * aspect_ratio);
  const Stride length = extent(crop, alignment);
  const double scale_x = length.x / (grown_width * padding), scale_y = length.y / (grown_width / aspect_ratio * padding);
  return {scale_x, 0.0, length.x * 0.5 - scale_x * center_x, 0.0, scale_y, length.y * 0.5 - scale_y * center_y};
}

Affine invert(const Affine &m) {
  const double determinant = m[0] * m[4] - m[1] * m[3];
  const Affine inverse = {m[4] / determinant,  -m[1] / determinant, (m[1] * m[5] - m[4] * m[2]) / determinant,
                          -m[3] / determinant, m[0] / determinant,  (m[3] * m[2] - m[0] * m[5]) / determinant};
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
  const Range across = shown_range(back[0], back[2], size.width, photo.width);
  const Range down = shown_range(back[4], back[5], size.height, photo.height);
  const auto scale_x = static_cast<float>(matrix[0]), scale_y = static_cast<float>(matrix[4]);
  const auto shift_x = static_cast<float>(matrix[0] * across.start + matrix[2]),
             shift_y = static_cast<float>(matrix[4] * down.start + matrix[5]);
  const std::vector<Tap> columns = taps_along(scale_x, shift_x, scale_y, across.length, size.width);
  const std::vector<Tap> rows = taps_along(scale_y, shift_y, scale_x, down.length, size.height);

  static constexpr uint8_t black[kChannels] = {};
  const auto pixel = [&](int row, int column) {
    const bool inside = row >= 1 && row <= down.length && column >= 1 && column <= across.length;
    return inside ? photo.pixels + (down.start + row - 1) * photo.stride + (across.start + column - 1) * kChannels : black;
  };
  for (const Tap &row : rows) {
    for (const Tap &column : columns) {
      const bool inside = row.inside && column.inside;
      const uint8_t *upper_left = inside ? pixel(row.first, column.first) : black,
                    *upper_right = inside ? pixel(row.first, column.second) : black;
      const uint8_t *lower_left = inside ? pixel(row.second, column.first) : black,
                    *lower_right = inside ? pixel(row.second, column.second) : black;
      for (int channel = 0; channel < kChannels; ++channel) {
        const float upper = upper_left[channel] + static_cast<float>(upper_right[channel] - upper_left[channel]) * column.part;
        const float lower = lower_left[channel] + static_cast<float>(lower_right[channel] - lower_left[channel]) * column.part;
        *crop++ = upper + (lower - upper) * row.part;
      }
    }
  }
}

}  // namespace kpose
