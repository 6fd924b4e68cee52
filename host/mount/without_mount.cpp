// Takes the place of this folder's other sources in a build without libfuse.

#include "aprime/error.hpp"
#include "aprime/mount.hpp"
#include "aprime/mount_call.hpp"
#include "aprime/mount_status.hpp"
#include "aprime/runtime.hpp"

namespace aprime {
namespace mount {
class Server {};
class Connection {};
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
MountStatus Mount::status() const { return {}; }
void Mount::wait() const {}
void Mount::unmount() noexcept {}

Mount Runtime::mount(const std::string&, const std::string& mountpoint, const MountOptions&) {
  refuse(mountpoint);
}

MountStatus mount_status(const std::string& path) { refuse(path); }
std::optional<MountedPath> find_on_mount(const std::string&) { return std::nullopt; }

MountConnection::MountConnection(const std::string& path) { refuse(path); }
MountConnection::MountConnection(MountConnection&&) noexcept = default;
MountConnection& MountConnection::operator=(MountConnection&&) noexcept = default;
MountConnection::~MountConnection() = default;
void MountConnection::send(const MountMessage&) {}
std::optional<MountMessage> MountConnection::receive(std::chrono::milliseconds) { return std::nullopt; }

void unmount(const std::string& mountpoint, Unmount) { refuse(mountpoint); }

}  // namespace aprime
