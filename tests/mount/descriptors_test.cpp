// More files than the process of a mount may have descriptors.

#include <fmt/format.h>
#include <sys/resource.h>

#include <cerrno>
#include <string>

#include "host/os/syscalls.hpp"
#include "tests/mount/mounted.hpp"

namespace aprime {
namespace {

using namespace test;

/// What this process may have from now on.
class FewDescriptors {
 public:
  explicit FewDescriptors(rlim_t most) {
    ::getrlimit(RLIMIT_NOFILE, &before_);
    const ::rlimit few{most, before_.rlim_max};
    ::setrlimit(RLIMIT_NOFILE, &few);
  }
  ~FewDescriptors() { ::setrlimit(RLIMIT_NOFILE, &before_); }
  FewDescriptors(const FewDescriptors&) = delete;
  FewDescriptors& operator=(const FewDescriptors&) = delete;

 private:
  ::rlimit before_{};
};

class Descriptors : public testing::Test {
 protected:
  Descriptors() {
    must(fmt::format("mkdir -p {0}/inside && cd {0} && seq 1500 | split -l 1 -a 4 -d - f && echo held > held",
                     mounted_.plain("t")));
  }

  void must(const std::string& command) {
    const Answer answer = run_shell(command);
    EXPECT_EQ(answer.status, 0) << command << "\n" << answer.output.substr(0, 1000);
  }

  const FewDescriptors few_{500};
  Mounted mounted_{DeviceKind::emulated};
};

TEST_F(Descriptors, a_large_tree_is_listed_and_read) {
  for (int i = 0; i < 2; ++i) {
    must(fmt::format("ls -l {}", mounted_.at("t")));
    must(fmt::format("diff -r {} {}", mounted_.at("t"), mounted_.plain("t")));
  }
}

TEST_F(Descriptors, what_is_in_use_stays) {
  must(
      fmt::format("set -e; cd {0}/inside; exec 3<> ../held; ls -l ..; ls -l ..;"
                  "test \"$(readlink /proc/self/fd/3)\" = {0}/held; test \"$(env pwd -P)\" = {0}/inside;"
                  "echo more >&3; test \"$(cat ../held)\" = more",
                  mounted_.at("t")));
}

TEST_F(Descriptors, open_files_leave_room_for_others) {
  // Each takes two.
  must(fmt::format(
      "cd {} && python3 -c \"import os, subprocess; fs = [open(f'f{{n:04}}') for n in range(180)];"
      "subprocess.run(['ls', '-l', '.'], check=True);"
      "assert [f.read() for f in fs] == [f'{{n + 1}}\\n' for n in range(180)]\"",
      mounted_.at("t")));
}

TEST_F(Descriptors, what_found_none_left_is_done_again) {
  for (const auto call : {os::sys::Call::openat2, os::sys::Call::open}) {
    os::sys::set_fault_plan({.call = call, .nth = 1, .times = 2, .error = EMFILE});
    must(fmt::format("cat {0}/f0001 && ls {0}", mounted_.at("t")));
    os::sys::clear_fault_plan();
    EXPECT_EQ(os::sys::faults_injected(), 2u);
  }
}

TEST_F(Descriptors, a_file_whose_creation_found_none_left_is_created) {
  for (const auto call : {os::sys::Call::openat2, os::sys::Call::open}) {
    os::sys::set_fault_plan({.call = call, .nth = 2, .times = 1, .error = EMFILE});
    must(fmt::format("echo x > {0}/new && test $(cat {0}/new) = x && rm {0}/new", mounted_.at("t")));
    os::sys::clear_fault_plan();
    EXPECT_EQ(os::sys::faults_injected(), 1u);
  }
}

TEST_F(Descriptors, a_creation_that_fails_leaves_no_file) {
  os::sys::set_fault_plan({.call = os::sys::Call::open, .nth = 1, .times = 100, .error = EMFILE});
  EXPECT_NE(run_shell(fmt::format("echo x > {}/new", mounted_.at("t"))).status, 0);
  os::sys::clear_fault_plan();
  EXPECT_GT(os::sys::faults_injected(), 1u);
  must(fmt::format("test ! -e {}/new", mounted_.plain("t")));
}

/// The kernel remembers that a directory has no such entry, and keeps the directory for it.
class ManyDirectories : public Descriptors {
 protected:
  /// Runs `statements` with each directory's name as `d`.
  void in_each(const std::string& statements) {
    must(fmt::format("mkdir {0} && cd {0} && seq 700 | xargs mkdir", mounted_.plain("many")));
    must(fmt::format("cd {} && python3 -c \"import os\nfor n in range(1, 701): d = str(n); {}\"",
                     mounted_.at("many"), statements));
  }
};

TEST_F(ManyDirectories, are_looked_into_for_what_is_not_there) {
  in_each("os.stat(d); assert not os.path.exists(d + '/none')");
}

TEST_F(ManyDirectories, have_something_for_a_while) {
  in_each("os.mkdir(d + '/a'); open(d + '/b', 'w').close(); os.remove(d + '/b'); os.rmdir(d + '/a')");
}

TEST_F(ManyDirectories, are_made_and_the_first_is_used_meanwhile) {
  must(
      fmt::format("mkdir {0} && cd {0} && python3 -c \"import os; here = os.getcwd()\n"
                  "for n in range(700): os.mkdir('../t/%d' % n)\n"
                  "assert os.getcwd() == here\"",
                  mounted_.at("first")));
}

TEST_F(Descriptors, many_programs_use_a_large_tree_at_once) {
  must(fmt::format("cd {} && ls | grep f | xargs -P 8 -n 100 cat && ls | xargs -P 8 -n 100 ls -ld",
                   mounted_.at("t")));
}

}  // namespace
}  // namespace aprime
