#include "tests/fault/loop_disk.hpp"

#include <fcntl.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <thread>

#include "host/os/file.hpp"
#include "tests/mount_namespace.hpp"

namespace aprime::fault {
namespace {

using os::Descriptor;

// From the kernel's fs/ext4/ext4.h: in no public header.
constexpr unsigned long kShutdown = _IOR('X', 125, std::uint32_t);
constexpr std::uint32_t kWithoutFlushingTheJournal = 2;

[[noreturn]] void fail(const std::string& what) {
  throw std::runtime_error(
      what + ": " + std::strerror(errno) +
      " (this test needs root, loop devices and mkfs.ext4: run it as root, in a container with "
      "--privileged)");
}

Descriptor open_or_fail(const std::string& path, int flags) {
  Descriptor fd(::open(path.c_str(), flags | O_CLOEXEC, 0600));
  if (!fd) fail("cannot open " + path);
  return fd;
}

/// A free loop device with the image in it, which lets go of it at the last close. Past the page cache of the
/// image's own file system where that can be: it would only hold everything twice.
Descriptor attach(const Descriptor& image, std::string* device) {
  const Descriptor control = open_or_fail("/dev/loop-control", O_RDWR);
  for (int tries = 0; tries < 100; ++tries) {
    const int number = ::ioctl(control.get(), LOOP_CTL_GET_FREE);
    if (number < 0) fail("there is no free loop device");
    *device = "/dev/loop" + std::to_string(number);
    Descriptor loop(::open(device->c_str(), O_RDWR | O_CLOEXEC));
    loop_config config{};
    config.fd = static_cast<std::uint32_t>(image.get());
    config.info.lo_flags = LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO;
    if (loop && ::ioctl(loop.get(), LOOP_CONFIGURE, &config) == 0) return loop;
    // Somebody else was faster, or lets go of it or removes it just now.
    if (errno != EBUSY && errno != ENXIO) fail("cannot attach " + *device);
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  fail("all loop devices are busy");
}

}  // namespace

void enter_own_mount_namespace() {
  static bool done = false;
  if (done) return;
  if (!test::enter_mount_namespace()) fail("cannot have a mount namespace");
  done = true;
}

void make_disk_image(const std::string& path, std::uint64_t bytes) {
  {
    const Descriptor image = open_or_fail(path, O_RDWR | O_CREAT | O_TRUNC);
    if (::ftruncate(image.get(), static_cast<off_t>(bytes)) != 0) fail("cannot size " + path);
  }
  const std::string command =
      "PATH=$PATH:/usr/sbin:/sbin mkfs.ext4 -q -F -m 0 -b 4096 -E "
      "lazy_itable_init=0,lazy_journal_init=0,nodiscard " +
      path;
  if (const int status = std::system(command.c_str()); !WIFEXITED(status) || WEXITSTATUS(status) != 0)
    fail("cannot run '" + command + "'");
}

void copy_disk_image(const std::string& from, const std::string& to) {
  std::filesystem::copy_file(from, to, std::filesystem::copy_options::overwrite_existing);
}

LoopDisk::LoopDisk(const std::string& image, const std::string& directory) : directory_(directory) {
  enter_own_mount_namespace();
  std::string device;
  const Descriptor loop = attach(open_or_fail(image, O_RDWR), &device);
  if (::mount(device.c_str(), directory.c_str(), "ext4", 0, nullptr) != 0) fail("cannot mount " + device);
}

LoopDisk::~LoopDisk() { ::umount2(directory_.c_str(), MNT_DETACH); }

void LoopDisk::power_off() {
  const Descriptor root = open_or_fail(directory_, O_RDONLY | O_DIRECTORY);
  std::uint32_t how = kWithoutFlushingTheJournal;
  if (::ioctl(root.get(), kShutdown, &how) != 0) fail("cannot shut the file system down");
}

}  // namespace aprime::fault
