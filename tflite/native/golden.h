// The runner against the golden vectors of tflite/golden.
#pragma once

#include <cstdio>
#include <string>

#include "pose_runner.h"

namespace kpose {

// Checks every step of every case, and writes one line each; with a runner, also whether its network gives the heatmaps of the cases of
// its input size.
//
// folder: tflite/golden, or one of its kind.
// runner: may be NULL.
// report: where the lines go.
//
// Returns whether all is as it should be. Throws Error when the folder cannot be read.
bool check_golden_vectors(const std::string &folder, PoseRunner *runner, std::FILE *report);

}  // namespace kpose
