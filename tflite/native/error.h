#pragma once

#include <stdexcept>

namespace kpose {

// What the user can mend, told in one line: what, where, the remedy.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace kpose
