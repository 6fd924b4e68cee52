#pragma once

#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>
#include <cstdint>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <utility>

#include "tests/contract/contract.hpp"

namespace aprime::contract {

/// Makes a directory's file system run full and lets it have room again. With the right to mount it is a
/// small tmpfs; without, a limit on the size of files does the same to what lies beyond it.
class FullDisk {
 public:
  static constexpr std::uint64_t kRoom = 8 * kGranule;

  explicit FullDisk(std::string directory) : directory_(std::move(directory)) {
    if (::mkdir(directory_.c_str(), 0700) != 0) throw std::runtime_error("mkdir");
    mounted_ = ::mount("tmpfs", directory_.c_str(), "tmpfs", 0, options(kRoom).c_str()) == 0;
    if (mounted_) return;
    handler_ = std::signal(SIGXFSZ, SIG_IGN);
    ::getrlimit(RLIMIT_FSIZE, &limit_);
  }
  ~FullDisk() {
    if (mounted_) {
      ::umount2(directory_.c_str(), MNT_DETACH);
    } else {
      make_room();
      std::signal(SIGXFSZ, handler_);
    }
  }
  FullDisk(const FullDisk&) = delete;
  FullDisk& operator=(const FullDisk&) = delete;

  /// A file without contents, larger than there is room for.
  std::string sparse_file(std::uint64_t size) {
    const std::string path = directory_ + "/file";
    if (std::FILE* created = std::fopen(path.c_str(), "w")) std::fclose(created);
    plain_truncate(path, size);
    return path;
  }
  /// From now on there is room for kRoom bytes. To be called once everything is mapped: the limit on sizes is
  /// the process's, and meets device memory that is made of files too.
  void run_full() {
    if (mounted_) return;  // it is so from the start
    rlimit small = limit_;
    small.rlim_cur = kRoom;
    ::setrlimit(RLIMIT_FSIZE, &small);
  }
  /// The same, and what there was room for is taken: only what lies beyond kRoom counts on that.
  void run_full_at_once() {
    run_full();
    if (!mounted_) return;
    std::FILE* ballast = std::fopen((directory_ + "/ballast").c_str(), "w");
    while (std::fputc(0, ballast) != EOF) {
    }
    std::fclose(ballast);
  }
  void make_room() {
    if (mounted_) {
      if (::mount("tmpfs", directory_.c_str(), "tmpfs", MS_REMOUNT, options(64 * kRoom).c_str()) != 0)
        throw std::runtime_error("remount");
    } else {
      ::setrlimit(RLIMIT_FSIZE, &limit_);
    }
  }

 private:
  static std::string options(std::uint64_t size) { return "size=" + std::to_string(size); }

  std::string directory_;
  bool mounted_ = false;
  rlimit limit_{};
  void (*handler_)(int) = SIG_DFL;
};

}  // namespace aprime::contract
