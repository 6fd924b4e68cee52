#pragma once

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>

namespace aprime::test {

/// A program in a process of its own that is told things by lines, and answers. Killed at the end, whatever
/// it does, unless it was waited for.
class ChildProcess {
 public:
  /// What it inherits as descriptor 3; -1: nothing.
  static constexpr int kInherited = 3;

  /// \throws std::runtime_error
  explicit ChildProcess(std::vector<std::string> command, int inherited = -1) {
    std::array<int, 2> in{}, out{};
    if (::pipe2(in.data(), O_CLOEXEC) != 0 || ::pipe2(out.data(), O_CLOEXEC) != 0)
      throw std::runtime_error("no pipe");
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_adddup2(&actions, in[0], STDIN_FILENO);
    ::posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
    if (inherited >= 0) ::posix_spawn_file_actions_adddup2(&actions, inherited, kInherited);
    std::vector<char*> arguments;
    for (std::string& word : command) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    const int error =
        ::posix_spawn(&process_, arguments.front(), &actions, nullptr, arguments.data(), environ);
    ::posix_spawn_file_actions_destroy(&actions);
    ::close(in[0]);
    ::close(out[1]);
    if (error != 0) throw std::runtime_error("cannot start " + command.front());
    to_ = ::fdopen(in[1], "w");
    from_ = ::fdopen(out[0], "r");
  }
  ~ChildProcess() {
    if (!has_ended_) ::kill(process_, SIGKILL);
    std::fclose(to_);
    std::fclose(from_);
    end();
  }
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  void tell(const std::string& line) {
    std::fprintf(to_, "%s\n", line.c_str());
    std::fflush(to_);
  }
  /// False if it has ended.
  bool listen(std::string* line) {
    line->clear();
    int c = 0;
    while ((c = std::fgetc(from_)) != '\n' && c != EOF) *line += static_cast<char>(c);
    return c != EOF;
  }
  /// Waits until it has ended by itself; its status, as of waitpid().
  int end() {
    // Once: afterwards the number may be another process's.
    while (!has_ended_) has_ended_ = ::waitpid(process_, &status_, 0) == process_ || errno != EINTR;
    return status_;
  }

 private:
  pid_t process_ = 0;
  bool has_ended_ = false;
  int status_ = -1;
  FILE* to_ = nullptr;
  FILE* from_ = nullptr;
};

}  // namespace aprime::test
