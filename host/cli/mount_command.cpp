#include "host/cli/mount_command.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <functional>
#include <system_error>
#include <thread>

#include "aprime/runtime.hpp"
#include "host/cli/exit_code.hpp"
#include "host/cli/report.hpp"
#include "host/cli/run_service.hpp"

namespace aprime::cli {
namespace {

[[noreturn]] void fail(const char* what) { throw std::system_error(errno, std::generic_category(), what); }

/// Each object of the tree that the kernel knows is a descriptor here. The system's own bound is for those
/// who may exceed what they were given.
void allow_many_descriptors() {
  ::rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  rlim_t most = 0;
  std::ifstream("/proc/sys/fs/nr_open") >> most;
  most = std::max(most, limit.rlim_max);
  const ::rlimit all{most, most}, given{limit.rlim_max, limit.rlim_max};
  if (::setrlimit(RLIMIT_NOFILE, &all) != 0) static_cast<void>(::setrlimit(RLIMIT_NOFILE, &given));
}

/// Ends the mount when a signal asks for it. The signals are blocked, in every thread that is made later too,
/// and taken by a thread of its own.
class StopOnSignal {
 public:
  StopOnSignal() {
    ::sigemptyset(&signals_);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) ::sigaddset(&signals_, signal);
    ::pthread_sigmask(SIG_BLOCK, &signals_, nullptr);
  }

  /// Serves until the mount has ended.
  void serve(Mount& mount) {
    std::thread watcher([&] {
      int signal = 0;
      ::sigwait(&signals_, &signal);
      mount.unmount();
    });
    mount.wait();
    ::pthread_kill(watcher.native_handle(), SIGTERM);  // unmounted from outside
    watcher.join();
  }

 private:
  sigset_t signals_;
};

int serve(const MountRequest& request, const std::function<void(const Mount&)>& tell_ready) {
  allow_many_descriptors();
  StopOnSignal stop;
  RuntimeOptions runtime_options = request.device.runtime_options();
  runtime_options.dirty_age_max = request.dirty_age;
  Runtime runtime = make_runtime(runtime_options);
  {
    RunService runs(runtime, request.device);
    MountOptions options = request.options;
    options.serve = [&runs](MountCall& call) { runs.serve(call); };
    Mount mount = runtime.mount(request.source, request.mountpoint, options);
    tell_ready(mount);
    stop.serve(mount);
  }
  runtime.close();
  return ExitCode::done;
}

/// Leaves the terminal, the working directory and the parent behind.
void become_daemon(int ready) {
  const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  if (::setsid() < 0 || ::chdir("/") != 0 || null < 0) fail("cannot become a background process");
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) ::dup2(null, fd);
  ::close(null);
  const char byte = 'r';
  if (::write(ready, &byte, 1) != 1) fail("cannot tell that the mount is ready");
  ::close(ready);
}

/// Waits for the daemon's word that the mount can be used, or for its end, which it has explained itself.
int wait_for(pid_t daemon, int ready) {
  char byte = 0;
  ssize_t n = 0;
  while ((n = ::read(ready, &byte, 1)) < 0 && errno == EINTR) {
  }
  if (n == 1) return ExitCode::done;
  int status = 0;
  while (::waitpid(daemon, &status, 0) < 0)
    if (errno != EINTR) fail("cannot wait for the background process");
  if (WIFEXITED(status)) return WEXITSTATUS(status);
  throw std::runtime_error(fmt::format("the background process ended by signal {}", WTERMSIG(status)));
}

}  // namespace

int mount_command(const MountRequest& request) {
  if (request.foreground) {
    return serve(request, [](const Mount& mount) {
      print(fmt::format("{} is mounted on {}\n", mount.source(), mount.mountpoint()));
    });
  }
  int ready[2];
  if (::pipe2(ready, O_CLOEXEC) != 0) fail("cannot make a pipe");
  // Before the first thread: a child has none of its parent's.
  const pid_t daemon = ::fork();
  if (daemon < 0) fail("cannot make a background process");
  if (daemon != 0) {
    ::close(ready[1]);
    return wait_for(daemon, ready[0]);
  }
  ::close(ready[0]);
  return serve(request, [&](const Mount&) { become_daemon(ready[1]); });
}

int unmount_command(const std::string& mountpoint, Unmount how) {
  unmount(mountpoint, how);
  return ExitCode::done;
}

}  // namespace aprime::cli
