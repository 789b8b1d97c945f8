#include "golden.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <limits>
#include <map>
#include <sstream>
#include <vector>

#include "decoding.h"
#include "error.h"
#include "geometry.h"
#include "json.h"

namespace kpose {
namespace {

constexpr char kTitle[] = "kpose golden vectors 1";
constexpr int kCropStep = 3;
constexpr float kCropUnit = 256, kHeatmapUnit = 16384;
constexpr double kLargestSide = 8192, kMostJoints = 1024;
// How far a right runner may be off: the map (relative), grey levels, photo pixels.
constexpr double kAffineTolerance = 1e-4, kCropTolerance = 0.1, kKeypointTolerance = 0.01;
// Of heatmaps, relative to them (rms): a network that says nothing is off by 1, int8 in hard cases by more than a half.
constexpr double kHeatmapTolerance = 0.9;

using Words = std::vector<std::string>;

struct Case {
  std::string name;
  std::map<std::string, Words> lines;

  const Words &line(const std::string &key, size_t words) const {
    const auto found = lines.find(key);
    if (found == lines.end() || found->second.size() != words) {
      throw Error("golden.txt: case " + name + " has no line '" + key + "' of " + std::to_string(words) + " words");
    }
    return found->second;
  }
};

struct Index {
  int joints = 0;
  std::vector<Case> cases;
  std::vector<Words> refused;
};

double number(const std::string &word) {
  // JSON has no words for these.
  if (word == "NaN") return std::numeric_limits<double>::quiet_NaN();
  if (word == "Infinity") return std::numeric_limits<double>::infinity();
  return parse_number(word);
}

int whole(const std::string &word, double most) {
  const double value = number(word);
  if (!(value >= 1 && value <= most)) throw Error("golden.txt: " + word + " is not from 1 to " + std::to_string(static_cast<int>(most)));
  return static_cast<int>(value);
}

template <typename Array>
Array numbers(const Words &words, size_t first = 0) {
  Array values;
  for (size_t index = 0; index < values.size(); ++index)
    values[index] = static_cast<typename Array::value_type>(number(words[first + index]));
  return values;
}

Index read_index(const std::string &folder) {
  std::ifstream file(folder + "/golden.txt");
  std::string text;
  if (!file || !std::getline(file, text)) throw Error("cannot read " + folder + "/golden.txt");
  if (text != kTitle) throw Error(folder + "/golden.txt does not begin with '" + kTitle + "'");
  Index index;
  while (std::getline(file, text)) {
    std::istringstream stream(text);
    Words words;
    for (std::string word; stream >> word;) words.push_back(word);
    if (words.empty()) continue;
    const std::string key = words[0];
    words.erase(words.begin());
    if (key == "case" && words.size() == 1) {
      index.cases.push_back({words[0], {}});
    } else if (key == "refused" && words.size() == 8) {
      index.refused.push_back(words);
    } else if (key == "joints" && words.size() == 1) {
      index.joints = whole(words[0], kMostJoints);
    } else if (!index.cases.empty()) {
      index.cases.back().lines[key] = words;
    }
  }
  if (index.joints == 0 || index.cases.empty()) throw Error(folder + "/golden.txt has no joints or no cases");
  return index;
}

template <typename Value>
std::vector<Value> read_values(const std::string &path, size_t count) {
  std::ifstream file(path, std::ios::binary);
  std::vector<Value> values(count);
  const auto bytes = static_cast<std::streamsize>(count * sizeof(Value));
  if (!file.read(reinterpret_cast<char *>(values.data()), bytes) || file.peek() != std::ifstream::traits_type::eof()) {
    throw Error(path + " has not " + std::to_string(bytes) + " bytes");
  }
  return values;
}

// Whether a difference is within its tolerance; also when it is NaN, it is not.
bool is_right(double difference, double tolerance) { return difference <= tolerance; }

double largest(double difference, double other) { return std::isnan(other) ? other : std::max(difference, other); }

bool check_case(const std::string &folder, const Case &golden, int joints, PoseRunner *runner, std::FILE *report) {
  const Words &photo_line = golden.line("photo", 3);
  const int width = whole(photo_line[1], kLargestSide), height = whole(photo_line[2], kLargestSide);
  const auto pixels = read_values<uint8_t>(folder + "/" + photo_line[0], static_cast<size_t>(width) * height * 3);
  const Photo photo = {pixels.data(), width, height, int64_t{width} * 3};
  const Words &input_line = golden.line("input", 2), &heatmap_line = golden.line("heatmaps", 3);
  Codec codec = {};
  codec.input = {whole(input_line[0], kLargestSide), whole(input_line[1], kLargestSide)};
  codec.heatmap = {whole(heatmap_line[1], kLargestSide), whole(heatmap_line[2], kLargestSide)};
  codec.sigma = number(golden.line("sigma", 1)[0]);
  codec.alignment = golden.line("alignment", 1)[0] == "classic" ? Alignment::classic : Alignment::unbiased;
  const Box box = numbers<Box>(golden.line("box", 4));

  check_box(box, photo);
  const Affine expected_matrix = numbers<Affine>(golden.line("affine", 6));
  const Affine matrix = crop_matrix(box, codec.input, number(golden.line("padding", 1)[0]), codec.alignment);
  double affine_difference = 0;
  for (size_t index = 0; index < matrix.size(); ++index) {
    const double scale = std::max(1.0, std::abs(expected_matrix[index]));
    affine_difference = largest(affine_difference, std::abs(matrix[index] - expected_matrix[index]) / scale);
  }

  std::vector<float> crop(static_cast<size_t>(codec.input.height) * codec.input.width * 3);
  cut_crop(photo, matrix, codec.input, crop.data());
  const int rows = (codec.input.height + kCropStep - 1) / kCropStep, columns = (codec.input.width + kCropStep - 1) / kCropStep;
  const auto expected_crop = read_values<uint16_t>(folder + "/" + golden.name + ".crop", static_cast<size_t>(rows) * columns * 3);
  double crop_difference = 0;
  for (int row = 0; row < rows; ++row) {
    for (int column = 0; column < columns; ++column) {
      for (int channel = 0; channel < 3; ++channel) {
        const float found = crop[(static_cast<size_t>(row) * kCropStep * codec.input.width + column * kCropStep) * 3 + channel];
        const float expected = expected_crop[(static_cast<size_t>(row) * columns + column) * 3 + channel] / kCropUnit;
        crop_difference = largest(crop_difference, std::abs(found - expected));
      }
    }
  }

  const size_t values = static_cast<size_t>(codec.heatmap.height) * codec.heatmap.width * joints;
  const auto stored = read_values<int16_t>(folder + "/" + golden.name + ".heatmaps", values);
  std::vector<float> heatmaps(values);
  std::transform(stored.begin(), stored.end(), heatmaps.begin(), [](int16_t value) { return value / kHeatmapUnit; });
  double keypoint_difference = 0;
  std::vector<float> keypoints(static_cast<size_t>(joints) * 3);
  for (const auto &[name, decoding] :
       {std::pair{"argmax", Decoding::argmax}, std::pair{"quarter_offset", Decoding::quarter_offset}, std::pair{"dark", Decoding::dark}}) {
    codec.decoding = decoding;
    decode(heatmaps.data(), joints, codec, keypoints.data());
    transform(invert(matrix), joints, keypoints.data());
    const Words &expected = golden.line(name, keypoints.size());
    for (size_t index = 0; index < keypoints.size(); ++index) {
      keypoint_difference = largest(keypoint_difference, std::abs(keypoints[index] - number(expected[index])));
    }
  }

  bool right = is_right(affine_difference, kAffineTolerance) && is_right(crop_difference, kCropTolerance) &&
               is_right(keypoint_difference, kKeypointTolerance);
  std::string network;
  const PoseSizes sizes = runner == nullptr ? PoseSizes{} : pose_runner_sizes(runner);
  if (heatmap_line[0] == "network" && sizes.input_height == codec.input.height && sizes.input_width == codec.input.width &&
      sizes.joints == joints) {
    std::vector<float> found(values);
    if (pose_runner_run(runner, crop.data(), found.data()) != 0) throw Error(pose_runner_last_error());
    double difference = 0, errors = 0, squares = 0;
    for (size_t index = 0; index < values; ++index) {
      const double error = found[index] - heatmaps[index];
      difference = largest(difference, std::abs(error));
      errors += error * error;
      squares += static_cast<double>(heatmaps[index]) * heatmaps[index];
    }
    const double relative = std::sqrt(errors / squares);
    right = right && is_right(relative, kHeatmapTolerance);
    char text[96];
    std::snprintf(text, sizeof text, ", heatmaps %.2g (rms %.2g of them)", difference, relative);
    network = text;
  }
  std::fprintf(report, "%s %s: affine %.1e, crop %.3f grey levels, keypoints %.1e px%s\n", right ? "right" : "WRONG", golden.name.c_str(),
               affine_difference, crop_difference, keypoint_difference, network.c_str());
  return right;
}

bool check_refused(const Words &words, std::FILE *report) {
  const int width = whole(words[2], kLargestSide), height = whole(words[3], kLargestSide);
  bool refused = false;
  try {
    check_box(numbers<Box>(words, 4), {nullptr, width, height, int64_t{width} * 3});
  } catch (const Error &) {
    refused = true;
  }
  std::fprintf(report, "%s box %s: %s\n", refused ? "right" : "WRONG", words[0].c_str(), refused ? "refused" : "not refused");
  return refused;
}

}  // namespace

bool check_golden_vectors(const std::string &folder, PoseRunner *runner, std::FILE *report) {
  const Index index = read_index(folder);
  bool right = true;
  for (const Case &golden : index.cases) right = check_case(folder, golden, index.joints, runner, report) && right;
  for (const Words &box : index.refused) right = check_refused(box, report) && right;
  return right;
}

}  // namespace kpose
