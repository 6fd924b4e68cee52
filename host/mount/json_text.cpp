#include "aprime/error.hpp"
#include "aprime/mount_call.hpp"

namespace aprime {

std::string json_text(const std::string& bytes) {
  std::string text;
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x80) {
      text += c;
    } else {
      text += static_cast<char>(0xc0 | byte >> 6);
      text += static_cast<char>(0x80 | (byte & 0x3f));
    }
  }
  return text;
}

std::string bytes_of_json_text(const std::string& text) {
  std::string bytes;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto first = static_cast<unsigned char>(text[i]);
    if (first < 0x80) {
      bytes += text[i];
      continue;
    }
    const auto second = static_cast<unsigned char>(i + 1 < text.size() ? text[i + 1] : 0);
    if ((first != 0xc2 && first != 0xc3) || (second & 0xc0) != 0x80)
      throw Error(Errc::invalid_argument, "a text in a message stands for no bytes");
    bytes += static_cast<char>((first & 0x03) << 6 | (second & 0x3f));
    ++i;
  }
  return bytes;
}

}  // namespace aprime
