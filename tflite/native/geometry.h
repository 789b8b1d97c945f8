// From a photo and a person's box to the network's crop. The mathematics: tflite/golden/README.md.
#pragma once

#include <array>
#include <cstdint>

namespace kpose {

enum class Alignment { classic, unbiased };

struct Size {
  int height, width;
};

// x, y, width, height in the photo.
using Box = std::array<float, 4>;

// x' = m[0] x + m[1] y + m[2], y' = m[3] x + m[4] y + m[5].
using Affine = std::array<double, 6>;

// Rows of red, green, blue; row y begins at pixels + y * stride.
struct Photo {
  const uint8_t *pixels;
  int width, height;
  int64_t stride;
};

// Throws Error when the picture has no pixels, or a stride less than its width.
void check_photo(const Photo &photo);

// Throws Error when the box is not finite, has no area or lies outside of the photo.
void check_box(const Box &box, const Photo &photo);

// The map from the photo to the crop of the box, grown to the crop's aspect ratio and by `padding`.
Affine crop_matrix(const Box &box, Size crop, double padding, Alignment alignment);

Affine invert(const Affine &matrix);

// Crop pixels from one heatmap pixel to the next.
struct Stride {
  double x, y;
};
Stride heatmap_stride(Size crop, Size heatmap, Alignment alignment);

// Cuts an upright crop (height, width, 3) of 0..255 out, bilinearly; black outside of the photo. To the bit what kpose's Python code
// gives: a network in int8 rounds the crop, and the least difference tips pixels, and with them maxima that are almost equal.
void cut_crop(const Photo &photo, const Affine &matrix, Size size, float *crop);

}  // namespace kpose
