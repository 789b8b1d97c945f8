#include "json.h"

#include <cctype>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <locale>
#include <sstream>

#include "error.h"

namespace kpose {
namespace {

constexpr int kDeepest = 32;

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Json whole() {
    require_utf8();
    Json value = parse(0);
    skip_spaces();
    if (place_ != text_.size()) fail("text behind its end");
    return value;
  }

 private:
  [[noreturn]] void fail(const std::string &what) const { throw Error("not valid JSON: " + what + " at byte " + std::to_string(place_)); }

  // Strings end up in messages, whose readers take UTF-8.
  void require_utf8() {
    while (place_ < text_.size()) {
      const auto byte = [this](size_t place) { return place < text_.size() ? static_cast<unsigned char>(text_[place]) : 0u; };
      const unsigned first = byte(place_);
      const int following = first < 0x80 ? 0 : first < 0xE0 ? 1 : first < 0xF0 ? 2 : 3;
      bool valid = first < 0x80 || (first >= 0xC2 && first <= 0xF4);
      for (int next = 1; next <= following; ++next) valid = valid && (byte(place_ + next) & 0xC0) == 0x80;
      // Longer forms than needed, surrogates, and what is beyond Unicode.
      const unsigned second = byte(place_ + 1);
      valid = valid && !(first == 0xE0 && second < 0xA0) && !(first == 0xED && second > 0x9F) && !(first == 0xF0 && second < 0x90) &&
              !(first == 0xF4 && second > 0x8F);
      if (!valid) fail("text that is not UTF-8");
      place_ += 1 + following;
    }
    place_ = 0;
  }

  bool is_next(char wanted) const { return place_ < text_.size() && text_[place_] == wanted; }

  void skip_spaces() {
    while (place_ < text_.size() && (is_next(' ') || is_next('\t') || is_next('\n') || is_next('\r'))) ++place_;
  }

  bool take(char wanted) {
    skip_spaces();
    if (!is_next(wanted)) return false;
    ++place_;
    return true;
  }

  void expect(char wanted) {
    if (!take(wanted)) fail(std::string("no '") + wanted + "'");
  }

  Json parse(int depth) {
    if (depth > kDeepest) fail("nested too deep");
    skip_spaces();
    Json value;
    if (is_next('{')) {
      value.kind = Json::Kind::object;
      ++place_;
      if (take('}')) return value;
      do {
        skip_spaces();
        std::string key = parse_string();
        expect(':');
        value.object[std::move(key)] = parse(depth + 1);
      } while (take(','));
      expect('}');
    } else if (is_next('[')) {
      value.kind = Json::Kind::array;
      ++place_;
      if (take(']')) return value;
      do {
        value.array.push_back(parse(depth + 1));
      } while (take(','));
      expect(']');
    } else if (is_next('"')) {
      value.kind = Json::Kind::string;
      value.string = parse_string();
    } else if (take_word("true") || take_word("false")) {
      value.kind = Json::Kind::boolean;
      value.boolean = text_[place_ - 2] == 'u';
    } else if (!take_word("null")) {
      const size_t start = place_;
      while (place_ < text_.size() && (std::isdigit(static_cast<unsigned char>(text_[place_])) || is_next('-') || is_next('+') ||
                                       is_next('.') || is_next('e') || is_next('E'))) {
        ++place_;
      }
      if (place_ == start) fail("no value");
      value.kind = Json::Kind::number;
      value.number = parse_number(std::string(text_.substr(start, place_ - start)));
    }
    return value;
  }

  bool take_word(std::string_view word) {
    if (text_.substr(place_, word.size()) != word) return false;
    place_ += word.size();
    return true;
  }

  std::string parse_string() {
    if (!is_next('"')) fail("no string");
    ++place_;
    std::string result;
    for (;;) {
      if (place_ >= text_.size()) fail("a string without end");
      const char letter = text_[place_++];
      if (letter == '"') return result;
      if (static_cast<unsigned char>(letter) < 0x20) fail("a control character in a string");
      if (letter != '\\') {
        result += letter;
        continue;
      }
      if (place_ >= text_.size()) fail("a string without end");
      switch (text_[place_++]) {
        case '"': result += '"'; break;
        case '\\': result += '\\'; break;
        case '/': result += '/'; break;
        case 'b': result += '\b'; break;
        case 'f': result += '\f'; break;
        case 'n': result += '\n'; break;
        case 'r': result += '\r'; break;
        case 't': result += '\t'; break;
        case 'u': append_code_point(result); break;
        default: fail("an unknown escape");
      }
    }
  }

  uint32_t four_digits() {
    uint32_t value = 0;
    for (int digit = 0; digit < 4; ++digit) {
      if (place_ >= text_.size() || !std::isxdigit(static_cast<unsigned char>(text_[place_]))) fail("an escape without four digits");
      const char letter = text_[place_++];
      value = value * 16 + static_cast<uint32_t>(letter <= '9' ? letter - '0' : (letter | 0x20) - 'a' + 10);
    }
    return value;
  }

  void append_code_point(std::string &result) {
    uint32_t code = four_digits();
    if (code >= 0xD800 && code < 0xDC00 && text_.substr(place_, 2) == "\\u") {
      place_ += 2;
      const uint32_t second = four_digits();
      if (second < 0xDC00 || second > 0xDFFF) fail("half of a surrogate pair");
      code = 0x10000 + ((code - 0xD800) << 10) + (second - 0xDC00);
    }
    if (code >= 0xD800 && code <= 0xDFFF) fail("half of a surrogate pair");
    const auto append = [&result](uint32_t byte) { result += static_cast<char>(byte); };
    if (code < 0x80) {
      append(code);
    } else if (code < 0x800) {
      append(0xC0 | code >> 6), append(0x80 | (code & 0x3F));
    } else if (code < 0x10000) {
      append(0xE0 | code >> 12), append(0x80 | (code >> 6 & 0x3F)), append(0x80 | (code & 0x3F));
    } else {
      append(0xF0 | code >> 18), append(0x80 | (code >> 12 & 0x3F)), append(0x80 | (code >> 6 & 0x3F)), append(0x80 | (code & 0x3F));
    }
  }

  std::string_view text_;
  size_t place_ = 0;
};

}  // namespace

Json parse_json(std::string_view text) { return Parser(text).whole(); }

std::string quoted(std::string_view text) {
  std::string result = "\"";
  for (const char letter : text) {
    if (letter == '"' || letter == '\\') result += '\\';
    if (static_cast<unsigned char>(letter) < 0x20) {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\u%04x", letter);
      result += escape;
    } else {
      result += letter;
    }
  }
  return result + '"';
}

double parse_number(const std::string &text) {
  std::istringstream stream(text);
  stream.imbue(std::locale::classic());
  double value = 0;
  if (!(stream >> value) || stream.peek() != std::istringstream::traits_type::eof() || !std::isfinite(value)) {
    throw Error("'" + text.substr(0, 40) + "' is not a number");
  }
  return value;
}

}  // namespace kpose
