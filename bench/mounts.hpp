#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "aprime/aprime.hpp"
#include "bench/plain.hpp"

struct fuse_session;

namespace aprime::bench {

/// A directory on the disk that TMPDIR names (default: /var/tmp), removed with what is in it.
class Directory {
 public:
  Directory();
  ~Directory();
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;

  /// The path of an entry.
  std::string at(const std::string& name) const { return path_ + "/" + name; }
  /// Makes a directory in it. Returns its path.
  std::string make_directory(const std::string& name) const;
  /// Makes a file in it, written, durable and in the page cache. Returns its path.
  std::string make_file(const std::string& name, ByteCount size) const;

 private:
  std::string path_;
};

/// A mount that a process of its own serves.
class ServedMount {
 public:
  /// `aprime mount`.
  static ServedMount ours(const std::string& source, const std::string& mountpoint);
  /// libfuse's example of a pass-through file system, caching as much as it can: passthrough_hp, its fastest,
  /// where APRIME_PASSTHROUGH_HP says where somebody has built it; no distribution has its source in a
  /// package. Else passthrough_ll, which is built with us.
  static ServedMount example(const std::string& source, const std::string& mountpoint);
  /// Which of them, for tables.
  static std::string name_of_example();

  ServedMount(std::vector<std::string> command, std::string mountpoint);
  ~ServedMount();
  ServedMount(const ServedMount&) = delete;
  ServedMount& operator=(const ServedMount&) = delete;

 private:
  std::string mountpoint_;
  pid_t process_ = 0;
};

/// A FUSE mount of one file, "file", with nothing behind its requests but pread and pwrite of another one:
/// what requests and invalidation cost by themselves. Served by two threads.
class BareMount {
 public:
  BareMount(const std::string& backing, ByteCount size, const std::string& mountpoint);
  ~BareMount();
  BareMount(const BareMount&) = delete;
  BareMount& operator=(const BareMount&) = delete;

  void invalidate(std::uint64_t at, std::uint64_t size);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// A file that a program has open.
class OpenFile {
 public:
  OpenFile(const std::string& path, int flags);
  ~OpenFile();
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;

  int fd() const noexcept { return fd_; }
  /// Shared, for loads and stores.
  PlainMemory map(ByteCount size) const;
  /// Lets the kernel forget the clean pages that the mount has cached of it.
  void forget_pages() const;

 private:
  int fd_;
};

/// Whether the kernel reads pages around those that a program touches in a mapping.
enum class ReadAhead : bool { no, yes };

/// A program in a process of its own, so that what its mount does to the rights of memory in this process
/// does not disturb it. Made by a fork: there should be no other thread yet.
class Program {
 public:
  Program();
  ~Program();
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  // Each opens the file and makes the kernel forget what clean pages it has of it, works through it in order,
  // and returns how many seconds that took.

  /// Maps it and loads from one byte in every `step`.
  double load_mapped(const std::string& path, ByteCount size, ByteCount step, ReadAhead read_ahead);
  /// `flags` as for open(2).
  double read_blocks(const std::string& path, int flags, ByteCount size, ByteCount block);
  double write_blocks(const std::string& path, int flags, ByteCount size, ByteCount block);

 private:
  struct Order;
  static void serve_orders(int connection) noexcept;
  double carry_out(const std::string& path, const Order& order);

  int connection_ = -1;
  pid_t process_ = 0;
};

}  // namespace aprime::bench
