#pragma once

#include <string>

#include "tests/os/child_process.hpp"
#include "tests/stress/board.hpp"

namespace aprime::stress {

/// A program on the mount, in a process of its own: tests/stress/program_main.cpp. It begins when it is told
/// to, works until the run is over, and looks at the whole file once more when it is told that all have
/// stopped.
class Program {
 public:
  /// What a program is started with, and reads as its arguments.
  struct Arguments {
    /// Among the programs, and among the actors.
    unsigned number;
    unsigned actor;
    std::uint64_t seed;
    bool has_tail;
    /// The file, on the mount; its other name, which it has at times; and past aprime.
    std::string path;
    std::string other_name;
    std::string plain_path;
  };

  /// Returns when it is ready to begin. \throws std::runtime_error
  Program(const std::string& executable, const SharedMemory& memory, const Arguments& arguments);
  // Each returns what went wrong, or nothing, when it has done so.
  /// Makes its board. \pre the layout is in the memory, and nobody works yet
  std::string prepare() { return tell("prepare"); }
  std::string work() { return tell("work"); }
  std::string look() { return tell("look"); }

 private:
  std::string tell(const char* what);

  test::ChildProcess process_;
};

}  // namespace aprime::stress
