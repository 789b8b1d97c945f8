// A JSON reader for cards: strict, with limits, for text that nobody vouches for.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace kpose {

struct Json {
  enum class Kind { null, boolean, number, string, array, object };

  Kind kind = Kind::null;
  bool boolean = false;
  double number = 0;
  std::string string;
  std::vector<Json> array;
  std::map<std::string, Json> object;
};

// Throws Error when the text is no JSON, or nested more than 32 deep.
Json parse_json(std::string_view text);

// The text as a JSON string, quotes included.
std::string quoted(std::string_view text);

// A finite decimal number, whatever the language of the machine; throws Error when the text is anything else.
double parse_number(const std::string &text);

}  // namespace kpose
