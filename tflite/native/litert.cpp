#include "litert.h"

#include <dlfcn.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <vector>

#include "error.h"
#include "litert_api.h"

namespace kpose {
namespace {

using litert::Api;
using litert::Handle;

// The largest network of kpose has 60 million parameters.
constexpr int64_t kLargestFile = int64_t{512} << 20;
constexpr size_t kAlignment = 64;
constexpr int kLargestSide = 8192;

Api open_library(const std::string &path) {
  // It is never closed: LiteRT leaves threads and static objects behind that may outlive a network.
  void *library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) throw Error("cannot open LiteRT: " + std::string(dlerror()));
  Api api;
  const auto find = [&](const char *name) {
    void *function = dlsym(library, name);
    if (function == nullptr) throw Error(path + " has no function " + name + "; take the library of LiteRT 2.3");
    return function;
  };
#define KPOSE_LOAD(name, arguments) api.name = reinterpret_cast<decltype(api.name)>(find("LiteRt" #name));
  KPOSE_LITERT_FUNCTIONS(KPOSE_LOAD)
#undef KPOSE_LOAD
#define KPOSE_LOAD(name) api.name = reinterpret_cast<decltype(api.name)>(find("LiteRt" #name));
  KPOSE_LITERT_DESTROYERS(KPOSE_LOAD)
#undef KPOSE_LOAD
  return api;
}

void require(litert::Status status, const char *what) {
  if (status != 0) throw Error(std::string(what) + " (LiteRT's status " + std::to_string(status) + ")");
}

// A handle that is destroyed with the function that LiteRT has for its kind.
class Owned {
 public:
  Owned() = default;
  explicit Owned(void (*destroy)(Handle)) : destroy_(destroy) {}
  Owned(const Owned &) = delete;
  Owned &operator=(const Owned &) = delete;
  Owned(Owned &&other) noexcept { swap(other); }
  Owned &operator=(Owned &&other) noexcept {
    swap(other);
    return *this;
  }
  ~Owned() {
    if (handle_ != nullptr) destroy_(handle_);
  }

  operator Handle() const { return handle_; }
  Handle *receive() { return &handle_; }

 private:
  void swap(Owned &other) {
    std::swap(handle_, other.handle_);
    std::swap(destroy_, other.destroy_);
  }

  Handle handle_ = nullptr;
  void (*destroy_)(Handle) = nullptr;
};

size_t element_size(int element) { return element == litert::kElementFloat32 ? 4 : 1; }

// A tensor of the network and its memory.
struct Tensor {
  litert::TensorType type{};
  litert::Quantisation quantisation{1.0f, 0};
  size_t elements = 0;
  Owned buffer;
};

Tensor describe(const Api &api, Handle handle, const char *name) {
  Tensor tensor;
  const std::string what = std::string("the network's ") + name;
  require(api.GetRankedTensorType(handle, &tensor.type), (what + " has no shape").c_str());
  const int element = tensor.type.element;
  if (element != litert::kElementFloat32 && element != litert::kElementUInt8 && element != litert::kElementInt8) {
    throw Error(what + " is of a type that kpose does not write, number " + std::to_string(element));
  }
  if ((tensor.type.rank_and_flags & 0x7f) != 4) throw Error(what + " has not four dimensions");
  tensor.elements = 1;
  for (int axis = 0; axis < 4; ++axis) {
    const int32_t side = tensor.type.dimensions[axis];
    if (side < 1 || side > kLargestSide) throw Error(what + " has a side of " + std::to_string(side));
    tensor.elements *= static_cast<size_t>(side);
  }
  if (element != litert::kElementFloat32) {
    int kind = 0;
    require(api.GetQuantizationTypeId(handle, &kind), (what + " cannot be described").c_str());
    if (kind != litert::kQuantizedPerTensor) throw Error(what + " is of integers without a scale; kpose writes none such");
    require(api.GetPerTensorQuantization(handle, &tensor.quantisation), (what + " has no scale").c_str());
    if (!(tensor.quantisation.scale > 0)) throw Error(what + " has a scale that is not greater than 0");
  }
  return tensor;
}

std::string shape(const litert::TensorType &type) {
  std::string text = "(";
  for (int axis = 0; axis < 4; ++axis) text += (axis ? ", " : "") + std::to_string(type.dimensions[axis]);
  return text + ")";
}

template <typename Integer>
void quantise(const float *from, Integer *to, const Tensor &tensor) {
  const float least = std::numeric_limits<Integer>::min(), most = std::numeric_limits<Integer>::max();
  for (size_t index = 0; index < tensor.elements; ++index) {
    // To the even one of two equally near, as NumPy rounds.
    const float value = std::nearbyint(from[index] / tensor.quantisation.scale) + static_cast<float>(tensor.quantisation.zero);
    to[index] = static_cast<Integer>(std::clamp(value, least, most));
  }
}

template <typename Integer>
void dequantise(const Integer *from, float *to, const Tensor &tensor) {
  for (size_t index = 0; index < tensor.elements; ++index) {
    to[index] = (static_cast<float>(from[index]) - static_cast<float>(tensor.quantisation.zero)) * tensor.quantisation.scale;
  }
}

}  // namespace

void ModelFile::Free::operator()(uint8_t *memory) const { std::free(memory); }

ModelFile::ModelFile(const std::string &path) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE *)> file(std::fopen(path.c_str(), "rb"), std::fclose);
  if (file == nullptr) throw Error(std::string("cannot open it: ") + std::strerror(errno));
  if (std::fseek(file.get(), 0, SEEK_END) != 0) throw Error("cannot read it; is it a file?");
  const int64_t size = std::ftell(file.get());
  if (size < 0 || size > kLargestFile) throw Error("not a file of up to 512 MiB, as every network of kpose is");
  std::rewind(file.get());
  size_ = static_cast<size_t>(size);
  void *memory = nullptr;
  if (posix_memalign(&memory, kAlignment, size_ + 1) != 0) throw Error("not enough memory for its " + std::to_string(size_) + " bytes");
  data_.reset(static_cast<uint8_t *>(memory));
  if (std::fread(data_.get(), 1, size_, file.get()) != size_) throw Error("cannot read it whole");
}

struct Network::State {
  Api api;
  // In the order in which they depend on one another: destroyed from the last to the first.
  Owned environment, model, options, compiled;
  Tensor input, output;

  Owned buffer(const Tensor &tensor, bool is_input) {
    Handle requirements = nullptr;
    const auto get = is_input ? api.GetCompiledModelInputBufferRequirements : api.GetCompiledModelOutputBufferRequirements;
    require(get(compiled, 0, 0, &requirements), "LiteRT does not say what memory the network needs");
    Owned buffer(api.DestroyTensorBuffer);
    require(api.CreateManagedTensorBufferFromRequirements(environment, &tensor.type, requirements, buffer.receive()),
            "LiteRT has no memory for the network's tensors");
    size_t bytes = 0;
    require(api.GetTensorBufferPackedSize(buffer, &bytes), "LiteRT does not say how large a tensor is");
    if (bytes != tensor.elements * element_size(tensor.type.element)) throw Error("LiteRT's memory for a tensor has another size");
    return buffer;
  }
};

Network::Network(const ModelFile &file, const std::string &litert_path, int threads, Processor processor, Size input, int joints)
    : state_(std::make_unique<State>()) {
  State &state = *state_;
  const Api &api = state.api = open_library(litert_path);
  const size_t slash = litert_path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : litert_path.substr(0, slash + 1);
  const int accelerator = processor == Processor::gpu ? litert::kGpu : litert::kCpu;

  litert::EnvironmentOption settings[3] = {};
  settings[0].tag = litert::kOptionRuntimeFolder;
  settings[0].value.type = litert::kAnyString;
  settings[0].value.string = folder.c_str();
  settings[1].tag = litert::kOptionAccelerators;
  settings[1].value.type = litert::kAnyInteger;
  settings[1].value.integer = litert::kCpu | accelerator;
  settings[2].tag = litert::kOptionLeastSeverity;
  settings[2].value.type = litert::kAnyInteger;
  settings[2].value.integer = litert::kSeverityError;
  state.environment = Owned(api.DestroyEnvironment);
  require(api.CreateEnvironment(3, settings, state.environment.receive()), "LiteRT cannot start");

  state.model = Owned(api.DestroyModel);
  require(api.CreateModelFromBuffer(state.environment, file.data(), file.size(), state.model.receive()), "damaged, LiteRT cannot read it");
  size_t signatures = 0, inputs = 0, outputs = 0;
  Handle signature = nullptr, tensor = nullptr;
  require(api.GetNumModelSignatures(state.model, &signatures), "LiteRT cannot describe it");
  if (signatures < 1) throw Error("no signature inside; make the file with kpose convert");
  require(api.GetModelSignature(state.model, 0, &signature), "LiteRT cannot describe it");
  require(api.GetNumSignatureInputs(signature, &inputs), "LiteRT cannot describe its inputs");
  require(api.GetNumSignatureOutputs(signature, &outputs), "LiteRT cannot describe its outputs");
  if (inputs != 1 || outputs != 1)
    throw Error("it has " + std::to_string(inputs) + " inputs and " + std::to_string(outputs) + " outputs, not one each");
  require(api.GetSignatureInputTensorByIndex(signature, 0, &tensor), "LiteRT cannot describe its input");
  state.input = describe(api, tensor, "input");
  require(api.GetSignatureOutputTensorByIndex(signature, 0, &tensor), "LiteRT cannot describe its output");
  state.output = describe(api, tensor, "output");
  const int32_t *in = state.input.type.dimensions, *out = state.output.type.dimensions;
  if (in[0] != 1 || in[1] != input.height || in[2] != input.width || in[3] != 3) {
    throw Error("its input is " + shape(state.input.type) + ", but its card says (1, " + std::to_string(input.height) + ", " +
                std::to_string(input.width) + ", 3): the card is another network's");
  }
  if (out[0] != 1 || out[1] < 2 || out[2] < 2 || out[3] != joints) {
    throw Error("its output is " + shape(state.output.type) + ", but its card has " + std::to_string(joints) +
                " joints: the card is another network's");
  }

  state.options = Owned(api.DestroyOptions);
  require(api.CreateOptions(state.options.receive()), "LiteRT has no options");
  require(api.SetOptionsHardwareAccelerators(state.options, accelerator), "LiteRT does not take its accelerator");
  if (processor == Processor::cpu) {
    const std::string text = "num_threads = " + std::to_string(threads) + "\n";
    Handle opaque = nullptr;
    require(api.CreateOpaqueOptions("xnnpack", strdup(text.c_str()), std::free, &opaque), "LiteRT does not take the number of threads");
    require(api.AddOpaqueOptions(state.options, opaque), "LiteRT does not take the number of threads");
  }
  state.compiled = Owned(api.DestroyCompiledModel);
  const char *failure = processor == Processor::gpu ? "LiteRT cannot run it on a GPU here" : "damaged, LiteRT cannot prepare it";
  require(api.CreateCompiledModel(state.environment, state.model, state.options, state.compiled.receive()), failure);
  if (processor == Processor::gpu) {
    bool whole = false;
    require(api.CompiledModelIsFullyAccelerated(state.compiled, &whole), failure);
    if (!whole) throw Error("the GPU takes only a part of it, or there is none");
  }
  state.input.buffer = state.buffer(state.input, true);
  state.output.buffer = state.buffer(state.output, false);
}

Network::~Network() = default;

Size Network::heatmap() const { return {state_->output.type.dimensions[1], state_->output.type.dimensions[2]}; }

void Network::run(const float *crop, float *heatmaps) {
  State &state = *state_;
  void *memory = nullptr;
  require(state.api.LockTensorBuffer(state.input.buffer, &memory, litert::kLockWrite), "LiteRT does not give the input's memory");
  switch (state.input.type.element) {
    case litert::kElementInt8: quantise(crop, static_cast<int8_t *>(memory), state.input); break;
    case litert::kElementUInt8: quantise(crop, static_cast<uint8_t *>(memory), state.input); break;
    default: std::memcpy(memory, crop, state.input.elements * sizeof(float));
  }
  require(state.api.UnlockTensorBuffer(state.input.buffer), "LiteRT does not take the input back");

  Handle input = state.input.buffer, output = state.output.buffer;
  require(state.api.RunCompiledModel(state.compiled, 0, 1, &input, 1, &output), "LiteRT cannot run the network; is its file damaged?");

  require(state.api.LockTensorBuffer(state.output.buffer, &memory, litert::kLockRead), "LiteRT does not give the output's memory");
  switch (state.output.type.element) {
    case litert::kElementInt8: dequantise(static_cast<const int8_t *>(memory), heatmaps, state.output); break;
    case litert::kElementUInt8: dequantise(static_cast<const uint8_t *>(memory), heatmaps, state.output); break;
    default: std::memcpy(heatmaps, memory, state.output.elements * sizeof(float));
  }
  require(state.api.UnlockTensorBuffer(state.output.buffer), "LiteRT does not take the output back");
}

}  // namespace kpose
