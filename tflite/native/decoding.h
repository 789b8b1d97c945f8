// From heatmaps to keypoints. The mathematics: tflite/golden/README.md.
#pragma once

#include "geometry.h"

namespace kpose {

enum class Decoding { argmax, quarter_offset, dark };

// How heatmaps mean joints.
struct Codec {
  Size input, heatmap;
  double sigma;  // of the taught Gaussians, heatmap pixels
  Alignment alignment;
  Decoding decoding;
};

// Keypoints (joints, 3) of heatmaps (height, width, joints): x, y in the crop, and the score.
void decode(const float *heatmaps, int joints, const Codec &codec, float *keypoints);

// Moves the x and y of keypoints (joints, 3).
void transform(const Affine &matrix, int joints, float *keypoints);

}  // namespace kpose
