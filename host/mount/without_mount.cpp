// Takes the place of this folder's other sources in a build without libfuse.

#include "aprime/error.hpp"
#include "aprime/mount.hpp"
#include "aprime/runtime.hpp"

namespace aprime {
namespace mount {
class Server {};
}  // namespace mount

namespace {
[[noreturn]] void refuse(const std::string& path) {
  throw Error(Errc::resources,
              "'" + path +
                  "': this aprime was built without libfuse 3; install libfuse3-dev and configure with "
                  "-DAPRIME_ENABLE_MOUNT=ON",
              path);
}
const std::string kNowhere;
}  // namespace

bool can_mount() noexcept { return false; }

Mount::Mount(std::unique_ptr<mount::Server> server) noexcept : server_(std::move(server)) {}
Mount::Mount() noexcept = default;
Mount::Mount(Mount&&) noexcept = default;
Mount& Mount::operator=(Mount&&) noexcept = default;
Mount::~Mount() = default;
const std::string& Mount::source() const noexcept { return kNowhere; }
const std::string& Mount::mountpoint() const noexcept { return kNowhere; }
void Mount::wait() const {}
void Mount::unmount() noexcept {}

Mount Runtime::mount(const std::string&, const std::string& mountpoint, const MountOptions&) {
  refuse(mountpoint);
}

void unmount(const std::string& mountpoint, Unmount) { refuse(mountpoint); }

}  // namespace aprime
