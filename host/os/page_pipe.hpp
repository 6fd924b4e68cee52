#pragma once

#include <sys/types.h>

#include <cstddef>

#include "host/os/file.hpp"

namespace aprime::os {

/// Takes pages of a file to a descriptor that is given them, without a copy of their bytes. For one thread.
class PagePipe {
 public:
  /// What surely fits.
  static constexpr std::size_t kBytesMax = std::size_t{256} << 10;

  /// Puts the bytes [at, at + size) in, `*got` of them where the file ends before. Returns false, and has
  /// nothing in it, if some of them cannot be had, or not so: reading them says why. \pre it is empty
  bool fill(int fd, off_t at, std::size_t size, std::size_t* got) noexcept;
  /// Where they can be taken from.
  int descriptor() const noexcept { return out_.get(); }
  /// Forgets what was not taken.
  void clear() noexcept;

 private:
  bool open() noexcept;

  Descriptor out_;
  Descriptor in_;
};

}  // namespace aprime::os
