#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace aprime::kernels {

/// A file as any program sees it: read(2) from start to end. For checks, so it shares nothing with the
/// library.
class PlainFile {
 public:
  /// \throws InputError
  explicit PlainFile(const std::string& path);
  ~PlainFile();
  PlainFile(const PlainFile&) = delete;
  PlainFile& operator=(const PlainFile&) = delete;

  std::uint64_t size() const noexcept { return size_; }

  /// The next bytes, as many as `into` holds unless the file ends; the number read. \throws InputError
  std::size_t next(std::span<std::byte> into);

 private:
  std::string path_;
  int fd_;
  std::uint64_t size_;
};

/// Calls `visit(index, value)` for each whole element of the file, in order.
template <class T, class Visit>
void for_each_element(const std::string& path, Visit visit) {
  constexpr std::size_t kElementsPerRead = (std::size_t{1} << 20) / sizeof(T);
  PlainFile file(path);
  std::vector<T> block(kElementsPerRead);
  std::uint64_t index = 0;
  for (;;) {
    const std::size_t count = file.next(std::as_writable_bytes(std::span(block))) / sizeof(T);
    for (std::size_t i = 0; i < count; ++i) visit(index++, block[i]);
    if (count < block.size()) return;
  }
}

}  // namespace aprime::kernels
