#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "tests/stress/call_actor.hpp"
#include "tests/stress/program.hpp"

namespace aprime::stress {

/// A descriptor, with calls that do all or throw.
class OpenedFile {
 public:
  OpenedFile() = default;
  OpenedFile(const std::string& path, int flags);
  /// Of the run, under one of its names; it may be renamed just now.
  OpenedFile(const Program::Arguments& program, int flags);
  ~OpenedFile();
  OpenedFile(OpenedFile&& other) noexcept;
  OpenedFile& operator=(OpenedFile&& other) noexcept;

  int get() const noexcept { return fd_; }
  std::uint64_t size() const;
  void read(std::uint64_t at, void* into, std::size_t size) const;
  void write(std::uint64_t at, const void* from, std::size_t size) const;
  void punch(std::uint64_t at, std::uint64_t size) const;
  void resize(std::uint64_t size) const;
  void sync() const;

 private:
  int fd_ = -1;
};

[[noreturn]] void fail_call(const char* call, std::uint64_t at, std::uint64_t size, long result);

/// Works on the words of the file that are its own, and looks at all, by every call that a program has.
void run_program(Board& board, const Program::Arguments& program, const OpenedFile& early);
/// Truncates, grows, punches and writes what lies behind those words, which is its alone.
void run_program_tail(Board& board, const Program::Arguments& program);
/// Nobody works: each word is exactly what it must be.
void look_at_all(Board& board, const Program::Arguments& program, const OpenedFile& early);

}  // namespace aprime::stress
