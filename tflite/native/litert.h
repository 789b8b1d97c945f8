// A network that LiteRT runs: from crops to heatmaps. LiteRT's library is opened by path when it is needed, nothing is linked.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "geometry.h"

namespace kpose {

// The content of a TFLite file, aligned as LiteRT wants it.
class ModelFile {
 public:
  // Throws Error when the file cannot be read, or is larger than any network.
  explicit ModelFile(const std::string &path);

  const uint8_t *data() const { return data_.get(); }
  size_t size() const { return size_; }

 private:
  struct Free {
    void operator()(uint8_t *memory) const;
  };
  std::unique_ptr<uint8_t, Free> data_;
  size_t size_ = 0;
};

enum class Processor { cpu, gpu };

class Network {
 public:
  // file: lives as long as the network does.
  // input: the crop that the card promises; joints: the number of heatmaps.
  // Throws Error when LiteRT or its accelerator is missing, does not take the whole network, or the network's tensors are others.
  Network(const ModelFile &file, const std::string &litert_path, int threads, Processor processor, Size input, int joints);
  ~Network();

  Size heatmap() const;

  // From a crop (height, width, 3) in 0..255 to heatmaps (height, width, joints). Throws Error.
  void run(const float *crop, float *heatmaps);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace kpose
