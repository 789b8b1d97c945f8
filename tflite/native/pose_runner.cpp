#include "pose_runner.h"

#include <algorithm>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "card.h"
#include "decoding.h"
#include "error.h"
#include "geometry.h"
#include "litert.h"

using kpose::Affine;
using kpose::Box;
using kpose::Error;
using kpose::Photo;
using kpose::Processor;

struct PoseRunner {
  explicit PoseRunner(const std::string &model_path)
      : file(model_path), card(kpose::parse_card(kpose::find_card(file.data(), file.size()))) {}

  kpose::ModelFile file;
  kpose::Card card;
  std::unique_ptr<kpose::Network> network;
  std::string accelerator, fallback_reason;
  std::vector<float> crop, heatmaps;  // kept from one picture to the next

  int joints() const { return static_cast<int>(card.joint_names.size()); }

  kpose::Codec codec() const { return {card.input, network->heatmap(), card.sigma, card.alignment, card.decoding}; }

  void open(Processor processor, const std::string &litert_path, int threads) {
    network = std::make_unique<kpose::Network>(file, litert_path, threads, processor, card.input, joints());
    accelerator = processor == Processor::gpu ? "gpu" : "cpu";
  }
};

namespace {

thread_local std::string last_error;

// What is done, or why not: no exception leaves the library.
template <typename Action>
int32_t guarded(Action action) {
  last_error.clear();
  try {
    action();
    return 0;
  } catch (const std::exception &error) {
    last_error = error.what();
  }
  return 1;
}

void cut(const PoseRunner &runner, const Photo &photo, const float box[4], float *crop, Affine &matrix) {
  const Box region = {box[0], box[1], box[2], box[3]};
  kpose::check_photo(photo);
  kpose::check_box(region, photo);
  matrix = kpose::crop_matrix(region, runner.card.input, runner.card.box_padding, runner.card.alignment);
  kpose::cut_crop(photo, matrix, runner.card.input, crop);
}

}  // namespace

PoseRunner *pose_runner_create(const char *model_path, const char *litert_path, int32_t threads, PoseAccelerator accelerator) {
  std::unique_ptr<PoseRunner> runner;
  const int32_t failed = guarded([&] {
    if (model_path == nullptr || litert_path == nullptr) throw Error("a path is missing");
    if (threads < 1) throw Error("threads must be at least 1, found " + std::to_string(threads));
    try {
      runner = std::make_unique<PoseRunner>(model_path);
      if (accelerator != POSE_ACCELERATOR_CPU) {
        try {
          runner->open(Processor::gpu, litert_path, threads);
        } catch (const Error &error) {
          if (accelerator == POSE_ACCELERATOR_GPU) throw;
          runner->fallback_reason = error.what();
        }
      }
      if (runner->network == nullptr) runner->open(Processor::cpu, litert_path, threads);
    } catch (const Error &error) {
      throw Error(std::string(model_path) + ": " + error.what());
    }
    const auto [height, width] = runner->network->heatmap();
    runner->crop.resize(static_cast<size_t>(runner->card.input.height) * runner->card.input.width * 3);
    runner->heatmaps.resize(static_cast<size_t>(height) * width * runner->joints());
  });
  return failed ? nullptr : runner.release();
}

void pose_runner_destroy(PoseRunner *runner) { delete runner; }

const char *pose_runner_last_error(void) { return last_error.c_str(); }

const char *pose_runner_accelerator(const PoseRunner *runner) { return runner->accelerator.c_str(); }

const char *pose_runner_fallback_reason(const PoseRunner *runner) { return runner->fallback_reason.c_str(); }

const char *pose_runner_card(const PoseRunner *runner) { return runner->card.json.c_str(); }

const char *pose_runner_joint_name(const PoseRunner *runner, int32_t joint) {
  return joint < 0 || joint >= runner->joints() ? nullptr : runner->card.joint_names[joint].c_str();
}

PoseSizes pose_runner_sizes(const PoseRunner *runner) {
  const auto [height, width] = runner->network->heatmap();
  return {runner->card.input.height, runner->card.input.width, height, width, runner->joints()};
}

int32_t pose_runner_crop(const PoseRunner *runner, const uint8_t *photo, int32_t width, int32_t height, int64_t stride, const float box[4],
                         float *crop, double matrix[6]) {
  return guarded([&] {
    Affine found;
    cut(*runner, {photo, width, height, stride}, box, crop, found);
    std::copy(found.begin(), found.end(), matrix);
  });
}

int32_t pose_runner_run(PoseRunner *runner, const float *crop, float *heatmaps) {
  return guarded([&] { runner->network->run(crop, heatmaps); });
}

int32_t pose_runner_decode(const PoseRunner *runner, const float *heatmaps, const double matrix[6], float *keypoints) {
  return guarded([&] {
    kpose::decode(heatmaps, runner->joints(), runner->codec(), keypoints);
    if (matrix == nullptr) return;
    Affine to_crop;
    std::copy(matrix, matrix + to_crop.size(), to_crop.begin());
    kpose::transform(kpose::invert(to_crop), runner->joints(), keypoints);
  });
}

int32_t pose_runner_estimate(PoseRunner *runner, const uint8_t *photo, int32_t width, int32_t height, int64_t stride, const float box[4],
                             float *keypoints) {
  return guarded([&] {
    Affine matrix;
    cut(*runner, {photo, width, height, stride}, box, runner->crop.data(), matrix);
    runner->network->run(runner->crop.data(), runner->heatmaps.data());
    kpose::decode(runner->heatmaps.data(), runner->joints(), runner->codec(), keypoints);
    kpose::transform(kpose::invert(matrix), runner->joints(), keypoints);
  });
}
