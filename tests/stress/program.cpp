#include "tests/stress/program.hpp"

#include <stdexcept>

namespace aprime::stress {

Program::Program(const std::string& executable, const SharedMemory& memory, const Arguments& arguments)
    : process_({executable, std::to_string(test::ChildProcess::kInherited), std::to_string(arguments.number),
                std::to_string(arguments.actor), std::to_string(arguments.seed),
                arguments.has_tail ? "1" : "0", arguments.path, arguments.other_name, arguments.plain_path},
               memory.descriptor()) {
  if (const std::string wrong = tell("begin"); !wrong.empty()) throw std::runtime_error(wrong);
}

/// The answer ends with a line "."; before it is what went wrong.
std::string Program::tell(const char* what) {
  process_.tell(what);
  std::string text;
  for (std::string line; process_.listen(&line); text += line + '\n')
    if (line == ".") return text;
  return text + "a program has died";
}

}  // namespace aprime::stress
