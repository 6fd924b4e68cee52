#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <cstddef>
#include <cstdlib>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace aprime::test {

/// An empty directory that goes with everything in it.
class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    const char* base = std::getenv("TMPDIR");
    path_ = std::string(base != nullptr ? base : "/tmp") + "/aprime-test-XXXXXX";
    if (::mkdtemp(path_.data()) == nullptr) throw std::runtime_error("mkdtemp");
  }
  ~TemporaryDirectory() {
    for (auto name = names_.rbegin(); name != names_.rend(); ++name) ::unlink(name->c_str());
    ::rmdir(path_.c_str());
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;

  const std::string& path() const { return path_; }
  /// The path of a name in it, removed at the end if it exists then.
  std::string name(const std::string& file) {
    names_.push_back(path_ + "/" + file);
    return names_.back();
  }
  /// A file with these contents.
  std::string file(const std::string& file_name, std::span<const std::byte> contents) {
    std::string full = name(file_name);
    const int fd = ::open(full.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || ::write(fd, contents.data(), contents.size()) != static_cast<ssize_t>(contents.size())) {
      throw std::runtime_error("cannot write " + full);
    }
    ::close(fd);
    return full;
  }
  /// A file of this size without contents.
  std::string sparse(const std::string& file_name, std::size_t size) {
    std::string full = file(file_name, {});
    if (::truncate(full.c_str(), static_cast<off_t>(size)) != 0)
      throw std::runtime_error("cannot size " + full);
    return full;
  }

 private:
  std::string path_;
  std::vector<std::string> names_;
};

/// Bytes that differ from place to place and from zero.
inline std::vector<std::byte> pattern(std::size_t size, unsigned seed = 1) {
  std::vector<std::byte> bytes(size);
  for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>((i / 7 + i * 13 + seed) % 255 + 1);
  return bytes;
}

}  // namespace aprime::test
