#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "aprime/units.hpp"

namespace aprime::kernels {

/// A file that a run has mapped, and how much of it: others may append to it meanwhile.
struct RunFile {
  std::string path;
  ByteCount size;
};

/// What a run has mapped of a file, as any program sees it: read(2) from start to end. For checks, so it
/// shares nothing with the library.
class PlainFile {
 public:
  /// \throws InputError
  explicit PlainFile(const RunFile& file);
  ~PlainFile();
  PlainFile(const PlainFile&) = delete;
  PlainFile& operator=(const PlainFile&) = delete;

  /// The next bytes will be those at `offset`. \throws InputError
  void seek(std::uint64_t offset);

  /// The next bytes, as many as `into` holds unless what was mapped ends; the number read. \throws
  /// InputError, also if the file has become shorter
  std::size_t next(std::span<std::byte> into);

 private:
  RunFile file_;
  int fd_;
  std::uint64_t at_ = 0;
};

/// The elements of a file from some offset on, one at a time.
template <class T>
class ElementReader {
 public:
  /// \throws InputError
  ElementReader(const RunFile& file, std::uint64_t offset) : file_(file) { file_.seek(offset); }

  /// Zero past the end of what was mapped. \throws InputError
  T next() {
    if (at_ == block_.size()) {
      block_.assign(kElementsPerRead, T{});
      file_.next(std::as_writable_bytes(std::span(block_)));
      at_ = 0;
    }
    return block_[at_++];
  }

 private:
  static constexpr std::size_t kElementsPerRead = (std::size_t{1} << 18) / sizeof(T);

  PlainFile file_;
  std::vector<T> block_;
  std::size_t at_ = 0;
};

/// Calls `visit(index, value)` for each whole element, in order.
template <class T, class Visit>
void for_each_element(const RunFile& run_file, Visit visit) {
  constexpr std::size_t kElementsPerRead = (std::size_t{1} << 20) / sizeof(T);
  PlainFile file(run_file);
  std::vector<T> block(kElementsPerRead);
  std::uint64_t index = 0;
  for (;;) {
    const std::size_t count = file.next(std::as_writable_bytes(std::span(block))) / sizeof(T);
    for (std::size_t i = 0; i < count; ++i) visit(index++, block[i]);
    if (count < block.size()) return;
  }
}

}  // namespace aprime::kernels
