// The card of a network, from inside of its TFLite file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "decoding.h"

namespace kpose {

struct Card {
  std::string json;  // all of it
  Size input;
  double box_padding;
  double sigma;
  Alignment alignment;
  Decoding decoding;
  std::vector<std::string> joint_names;
};

// The metadata `kpose_card` of a TFLite file; every offset and length is checked before it is followed. Throws Error.
std::string find_card(const uint8_t *content, size_t size);

// What the runner needs of a card. Throws Error when something is missing, out of bounds, or of another codec.
Card parse_card(const std::string &json);

}  // namespace kpose
