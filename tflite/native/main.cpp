// pose_runner: one person's keypoints in a photo, as JSON. See kUsage.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "error.h"
#include "golden.h"
#include "json.h"
#include "pose_runner.h"

namespace {

using kpose::Error;

constexpr char kUsage[] = R"(pose_runner MODEL.tflite PHOTO X Y WIDTH HEIGHT [OPTIONS]
pose_runner [MODEL.tflite] --golden FOLDER [OPTIONS]

Prints the keypoints of the person in the box, in pixels of the photo, as JSON.

MODEL        a network of kpose convert
PHOTO        .ppm (binary), or raw RGB with --size
X Y ...      the person's box in the photo

--size WIDTHxHEIGHT      of a raw photo
--litert FILE            LiteRT's library (default: $KPOSE_LITERT, else libLiteRt.so where the system looks for libraries)
--accelerator auto|cpu|gpu   auto, the default: the GPU, or where it fails the CPU
--threads N              of the CPU (default: 2)
--repeat N               measure N runs from photo to keypoints, and print the median
--golden FOLDER          check against golden vectors, such as tflite/golden
--card                   print the network's card and end
)";

constexpr int kLargestPhotoSide = 16384;
constexpr int kWrong = 1, kRefused = 2;

struct Options {
  std::vector<std::string> arguments;
  std::string litert, golden;
  std::optional<std::pair<int, int>> size;
  PoseAccelerator accelerator = POSE_ACCELERATOR_AUTO;
  int threads = 2, repeat = 0;
  bool card = false, help = false;
};

int whole(const std::string &text, int least, int most, const std::string &what) {
  const double value = kpose::parse_number(text);
  if (value < least || value > most || value != std::floor(value)) {
    throw Error(what + " must be a whole number from " + std::to_string(least) + " to " + std::to_string(most) + ", found " + text);
  }
  return static_cast<int>(value);
}

// Boxes may lie left of and above the photo: what begins with a minus and a digit is no option.
bool is_option(const std::string &text) { return text.size() > 1 && text[0] == '-' && (text[1] == '-' || text[1] == 'h'); }

Options parse_options(int count, char **values) {
  Options options;
  const char *library = std::getenv("KPOSE_LITERT");
  options.litert = library != nullptr ? library : "libLiteRt.so";
  for (int index = 1; index < count; ++index) {
    const std::string name = values[index];
    if (!is_option(name)) {
      options.arguments.push_back(name);
      continue;
    }
    if (name == "--help" || name == "-h") {
      options.help = true;
      continue;
    }
    if (name == "--card") {
      options.card = true;
      continue;
    }
    if (name != "--size" && name != "--litert" && name != "--accelerator" && name != "--threads" && name != "--repeat" &&
        name != "--golden") {
      throw Error("there is no option " + name + "; see --help");
    }
    if (++index == count) throw Error(name + " needs a value; see --help");
    const std::string value = values[index];
    if (name == "--litert") options.litert = value;
    if (name == "--golden") options.golden = value;
    if (name == "--threads") options.threads = whole(value, 1, 256, name);
    if (name == "--repeat") options.repeat = whole(value, 1, 100000, name);
    if (name == "--size") {
      const size_t cross = value.find('x');
      if (cross == std::string::npos) throw Error("--size must be WIDTHxHEIGHT, found " + value);
      options.size = {whole(value.substr(0, cross), 1, kLargestPhotoSide, "the width"),
                      whole(value.substr(cross + 1), 1, kLargestPhotoSide, "the height")};
    }
    if (name == "--accelerator") {
      if (value != "auto" && value != "cpu" && value != "gpu") throw Error("--accelerator must be auto, cpu or gpu, found " + value);
      options.accelerator = value == "cpu" ? POSE_ACCELERATOR_CPU : value == "gpu" ? POSE_ACCELERATOR_GPU : POSE_ACCELERATOR_AUTO;
    }
  }
  return options;
}

struct PhotoFile {
  int width, height;
  std::vector<uint8_t> pixels;
};

// The next number in the head of a PPM file, behind white space and comments.
int ppm_number(std::istream &file, const std::string &path) {
  int next = file.get();
  while (next == ' ' || next == '\t' || next == '\n' || next == '\r' || next == '#') {
    if (next == '#') {
      while (next != '\n' && next != EOF) next = file.get();
    } else {
      next = file.get();
    }
  }
  std::string digits;
  for (; next >= '0' && next <= '9' && digits.size() < 9; next = file.get()) digits += static_cast<char>(next);
  if (digits.empty()) throw Error(path + " is damaged: its head has no size");
  return std::stoi(digits);
}

PhotoFile read_photo(const std::string &path, const std::optional<std::pair<int, int>> &size) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Error("cannot read " + path);
  PhotoFile photo{};
  if (size) {
    std::tie(photo.width, photo.height) = *size;
  } else {
    if (file.get() != 'P' || file.get() != '6')
      throw Error(path + " is no binary PPM picture; of raw RGB say the size, --size WIDTHxHEIGHT");
    photo.width = ppm_number(file, path);
    photo.height = ppm_number(file, path);
    if (ppm_number(file, path) != 255) throw Error(path + " has not 8 bits a channel");
    if (photo.width < 1 || photo.height < 1 || photo.width > kLargestPhotoSide || photo.height > kLargestPhotoSide) {
      throw Error(path + " claims " + std::to_string(photo.width) + " x " + std::to_string(photo.height) + " pixels; sides may have 1 to " +
                  std::to_string(kLargestPhotoSide));
    }
  }
  // No more memory than the file can fill.
  const std::streamoff start = file.tellg();
  file.seekg(0, std::ios::end);
  const std::streamoff bytes = std::streamoff{photo.width} * photo.height * 3, found = file.tellg() - start;
  if (found < bytes || (size && found != bytes)) {
    throw Error(path + " has " + std::to_string(found) + " bytes of pixels; " + std::to_string(photo.width) + " x " +
                std::to_string(photo.height) + " RGB pixels are " + std::to_string(bytes));
  }
  file.seekg(start);
  photo.pixels.resize(static_cast<size_t>(bytes));
  if (!file.read(reinterpret_cast<char *>(photo.pixels.data()), bytes)) throw Error("cannot read " + path);
  return photo;
}

struct Destroy {
  void operator()(PoseRunner *runner) const { pose_runner_destroy(runner); }
};
using Runner = std::unique_ptr<PoseRunner, Destroy>;

Runner open_runner(const Options &options) {
  Runner runner(pose_runner_create(options.arguments[0].c_str(), options.litert.c_str(), options.threads, options.accelerator));
  if (runner == nullptr) throw Error(pose_runner_last_error());
  const std::string reason = pose_runner_fallback_reason(runner.get());
  if (!reason.empty()) std::fprintf(stderr, "pose_runner: on the CPU, not the GPU: %s\n", reason.c_str());
  return runner;
}

void print_keypoints(PoseRunner *runner, const std::vector<float> &keypoints, std::optional<double> milliseconds, std::FILE *answers) {
  std::fprintf(answers, "{\"accelerator\": \"%s\", ", pose_runner_accelerator(runner));
  if (milliseconds) std::fprintf(answers, "\"median_milliseconds\": %.3f, ", *milliseconds);
  std::fprintf(answers, "\"keypoints\": [");
  for (int32_t joint = 0; joint < pose_runner_sizes(runner).joints; ++joint) {
    const float *values = &keypoints[static_cast<size_t>(joint) * 3];
    std::fprintf(answers, "%s\n  {\"joint\": %s, \"x\": %.4f, \"y\": %.4f, \"score\": %.5f}", joint ? "," : "",
                 kpose::quoted(pose_runner_joint_name(runner, joint)).c_str(), values[0], values[1], values[2]);
  }
  std::fprintf(answers, "\n]}\n");
}

void estimate(const Options &options, std::FILE *answers) {
  const PhotoFile photo = read_photo(options.arguments[1], options.size);
  float box[4];
  for (size_t index = 0; index < 4; ++index) box[index] = static_cast<float>(kpose::parse_number(options.arguments[2 + index]));
  const Runner runner = open_runner(options);
  std::vector<float> keypoints(static_cast<size_t>(pose_runner_sizes(runner.get()).joints) * 3);
  std::vector<double> times;
  // The first run warms up and is not measured.
  for (int run = 0; run <= options.repeat; ++run) {
    const auto start = std::chrono::steady_clock::now();
    if (pose_runner_estimate(runner.get(), photo.pixels.data(), photo.width, photo.height, int64_t{photo.width} * 3, box,
                             keypoints.data()) != 0) {
      throw Error(pose_runner_last_error());
    }
    if (run > 0) times.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
  }
  std::sort(times.begin(), times.end());
  print_keypoints(runner.get(), keypoints, times.empty() ? std::nullopt : std::optional(times[times.size() / 2]), answers);
}

int run(const Options &options, std::FILE *answers) {
  const size_t count = options.arguments.size();
  if (options.help) {
    std::fputs(kUsage, answers);
  } else if (!options.golden.empty()) {
    if (count > 1) throw Error("--golden takes a network and nothing else; see --help");
    const Runner runner = count == 1 ? open_runner(options) : nullptr;
    return kpose::check_golden_vectors(options.golden, runner.get(), answers) ? 0 : kWrong;
  } else if (options.card) {
    if (count != 1) throw Error("--card takes a network and nothing else; see --help");
    std::fprintf(answers, "%s\n", pose_runner_card(open_runner(options).get()));
  } else {
    if (count != 6) throw Error("expected a network, a photo and the four numbers of a box; see --help");
    estimate(options, answers);
  }
  return 0;
}

}  // namespace

int main(int count, char **values) {
  try {
    // LiteRT's accelerators write to standard output, too; that is sent to the errors, so that ours is JSON and nothing else.
    const std::unique_ptr<std::FILE, int (*)(std::FILE *)> answers(fdopen(dup(STDOUT_FILENO), "w"), std::fclose);
    if (answers == nullptr || dup2(STDERR_FILENO, STDOUT_FILENO) < 0) throw Error("cannot write to the standard output");
    const int status = run(parse_options(count, values), answers.get());
    if (std::fflush(answers.get()) != 0) throw Error("cannot write to the standard output");
    return status;
  } catch (const std::exception &error) {
    std::fprintf(stderr, "pose_runner: %s\n", error.what());
    return kRefused;
  }
}
