// A program on the mount of a stress run: see program.hpp.

#include <fcntl.h>

#include <cstdlib>
#include <exception>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "tests/stress/program_actor.hpp"

namespace aprime::stress {
namespace {

void serve(const Program::Arguments& program, const SharedMemory& memory) {
  // Before the runtime has the file: read by the kernel's pages, from now on.
  OpenedFile early(program, O_RDONLY);
  std::vector<char> bytes(early.size());
  early.read(0, bytes.data(), bytes.size());
  std::unique_ptr<Board> board;
  for (std::string what; std::getline(std::cin, what);) {
    try {
      if (what == "prepare") board = std::make_unique<Board>(memory);
      if (what == "work" && program.has_tail)
        run_program_tail(*board, program);
      else if (what == "work")
        run_program(*board, program, early);
      if (what == "look") look_at_all(*board, program, early);
    } catch (const std::exception& error) {
      board->shadow().fail("program " + std::to_string(program.number) + ": " + error.what());
      board->go_on(0);
    }
    if (board != nullptr && board->shadow().failed()) std::cout << board->shadow().failure() << '\n';
    std::cout << '.' << std::endl;
  }
}

}  // namespace
}  // namespace aprime::stress

int main(int, char** arguments) {
  using namespace aprime::stress;
  const auto number = [&](int i) { return std::strtoull(arguments[i], nullptr, 10); };
  const SharedMemory memory(static_cast<int>(number(1)));
  try {
    serve({.number = static_cast<unsigned>(number(2)),
           .actor = static_cast<unsigned>(number(3)),
           .seed = number(4),
           .has_tail = number(5) != 0,
           .path = arguments[6],
           .other_name = arguments[7],
           .plain_path = arguments[8]},
          memory);
  } catch (const std::exception& error) {
    std::cout << error.what() << '\n';
    return 1;
  }
}
