#pragma once

#include <cstdint>
#include <string>

namespace aprime::fault {

/// Lets this process, and those that it starts, mount file systems that nobody else sees and that go with
/// them. \throws std::runtime_error that says what is needed
void enter_own_mount_namespace();
/// Makes a file that holds an empty ext4 file system. \throws std::runtime_error
void make_disk_image(const std::string& path, std::uint64_t bytes);
/// Copies the bytes that a disk image holds now.
void copy_disk_image(const std::string& from, const std::string& to);

/// A real file system on a block device: an image that is attached to a loop device and mounted, in a mount
/// namespace of this process, so that it goes with the process at the latest.
class LoopDisk {
 public:
  /// Mounts the image on an existing directory; replays the journal if there is something in it.
  /// \throws std::runtime_error that says what is needed: these tests do not pass where they cannot run
  LoopDisk(const std::string& image, const std::string& directory);
  ~LoopDisk();
  LoopDisk(const LoopDisk&) = delete;
  LoopDisk& operator=(const LoopDisk&) = delete;

  /// What a loss of power does: from now on nothing reaches the image any more, neither pages nor journal.
  /// The disk has no volatile cache of its own: what reached it is in the image.
  void power_off();

 private:
  const std::string directory_;
};

}  // namespace aprime::fault
