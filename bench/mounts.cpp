#include "bench/mounts.hpp"

#define FUSE_USE_VERSION 34
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <stdexcept>
#include <thread>
#include <vector>

namespace aprime::bench {
namespace {

void unmount(const std::string& mountpoint) { static_cast<void>(::umount2(mountpoint.c_str(), MNT_DETACH)); }

dev_t device_of(const std::string& path) {
  struct ::stat s {};
  check(::stat(path.c_str(), &s) == 0, path.c_str());
  return s.st_dev;
}

}  // namespace

Directory::Directory() {
  const char* wanted = std::getenv("TMPDIR");  // NOLINT(concurrency-mt-unsafe): nobody changes it
  path_ = std::string(wanted != nullptr ? wanted : "/var/tmp") + "/aprime-bench.XXXXXX";
  check(::mkdtemp(path_.data()) != nullptr, "mkdtemp");
  path_ = std::filesystem::canonical(path_);
}

Directory::~Directory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::string Directory::make_directory(const std::string& name) const {
  std::filesystem::create_directory(at(name));
  return at(name);
}

std::string Directory::make_file(const std::string& name, ByteCount size) const {
  write_content(OpenFile(at(name), O_CREAT | O_EXCL | O_WRONLY).fd(), size);
  return at(name);
}

namespace {

/// Null if there is none.
const char* passthrough_hp() {
  return std::getenv("APRIME_PASSTHROUGH_HP");  // NOLINT(concurrency-mt-unsafe): nobody changes it
}

}  // namespace

ServedMount ServedMount::ours(const std::string& source, const std::string& mountpoint) {
  return {{APRIME_COMMAND, "mount", source, mountpoint, "--foreground"}, mountpoint};
}

ServedMount ServedMount::example(const std::string& source, const std::string& mountpoint) {
  if (passthrough_hp() != nullptr)
    return {{passthrough_hp(), "--foreground", source, mountpoint}, mountpoint};
  const std::string built = APRIME_PASSTHROUGH_EXAMPLE;
  if (built.empty()) throw std::runtime_error("libfuse's examples are not installed (libfuse3-dev)");
  return {{built, "-f", "-o", "source=" + source + ",cache=always,timeout=86400", mountpoint}, mountpoint};
}

std::string ServedMount::name_of_example() {
  return passthrough_hp() != nullptr ? "libfuse's passthrough_hp" : "libfuse's passthrough_ll";
}

ServedMount::ServedMount(std::vector<std::string> command, std::string mountpoint)
    : mountpoint_(std::move(mountpoint)) {
  const dev_t before = device_of(mountpoint_);
  const std::string program = command.front();
  std::vector<char*> arguments;
  for (std::string& argument : command) arguments.push_back(argument.data());
  arguments.push_back(nullptr);
  const int error = ::posix_spawn(&process_, program.c_str(), nullptr, nullptr, arguments.data(), environ);
  if (error != 0) throw std::runtime_error("cannot start " + program);
  while (device_of(mountpoint_) == before) {
    if (::waitpid(process_, nullptr, WNOHANG) != 0) throw std::runtime_error(program + " does not mount");
    std::this_thread::sleep_for(std::chrono::milliseconds{5});
  }
}

ServedMount::~ServedMount() {
  unmount(mountpoint_);
  ::kill(process_, SIGTERM);
  ::waitpid(process_, nullptr, 0);
}

struct BareMount::State {
  /// What requests need.
  struct Served {
    int backing = -1;
    struct ::stat attributes {};
  } served;
  std::string mountpoint;
  fuse_session* session = nullptr;
  std::vector<std::thread> threads;
};

namespace {

constexpr fuse_ino_t kFileNode = 2;
constexpr double kForEver = 86400;

struct ::stat attributes_of(const struct ::stat& file, fuse_ino_t node) {
  struct ::stat s = file;
  s.st_ino = node;
  if (node == FUSE_ROOT_ID) s.st_mode = S_IFDIR | 0755;
  return s;
}

template <class Served>
const Served& served(fuse_req_t request) {
  return *static_cast<const Served*>(::fuse_req_userdata(request));
}

template <class Served>
fuse_lowlevel_ops bare_operations() {
  fuse_lowlevel_ops table{};
  table.lookup = [](fuse_req_t request, fuse_ino_t, const char* name) {
    if (std::strcmp(name, "file") != 0) return static_cast<void>(::fuse_reply_err(request, ENOENT));
    fuse_entry_param entry{};
    entry.ino = kFileNode;
    entry.attr = attributes_of(served<Served>(request).attributes, kFileNode);
    entry.attr_timeout = entry.entry_timeout = kForEver;
    ::fuse_reply_entry(request, &entry);
  };
  table.getattr = [](fuse_req_t request, fuse_ino_t node, fuse_file_info*) {
    const struct ::stat s = attributes_of(served<Served>(request).attributes, node);
    ::fuse_reply_attr(request, &s, kForEver);
  };
  table.open = [](fuse_req_t request, fuse_ino_t, fuse_file_info* info) {
    info->keep_cache = 1;
    ::fuse_reply_open(request, info);
  };
  table.read = [](fuse_req_t request, fuse_ino_t, std::size_t size, off_t at, fuse_file_info*) {
    thread_local std::vector<char> buffer(std::size_t{1} << 20);
    const ssize_t n =
        ::pread(served<Served>(request).backing, buffer.data(), std::min(size, buffer.size()), at);
    ::fuse_reply_buf(request, buffer.data(), n < 0 ? 0 : static_cast<std::size_t>(n));
  };
  table.write = [](fuse_req_t request, fuse_ino_t, const char* from, std::size_t size, off_t at,
                   fuse_file_info*) {
    const ssize_t n = ::pwrite(served<Served>(request).backing, from, size, at);
    if (n < 0) return static_cast<void>(::fuse_reply_err(request, EIO));
    ::fuse_reply_write(request, static_cast<std::size_t>(n));
  };
  return table;
}

}  // namespace

BareMount::BareMount(const std::string& backing, ByteCount size, const std::string& mountpoint)
    : state_(std::make_unique<State>()) {
  State& s = *state_;
  s.mountpoint = mountpoint;
  s.served.backing = ::open(backing.c_str(), O_RDWR | O_CLOEXEC);
  check(s.served.backing >= 0, "open");
  s.served.attributes.st_mode = S_IFREG | 0644;
  s.served.attributes.st_nlink = 1;
  s.served.attributes.st_uid = ::getuid();
  s.served.attributes.st_size = static_cast<off_t>(size.value);
  std::string name = "bare";
  std::array<char*, 2> arguments{name.data(), nullptr};
  fuse_args options = FUSE_ARGS_INIT(1, arguments.data());
  const fuse_lowlevel_ops operations = bare_operations<State::Served>();
  s.session = ::fuse_session_new(&options, &operations, sizeof operations, &s.served);
  if (s.session == nullptr || ::fuse_session_mount(s.session, mountpoint.c_str()) != 0)
    throw std::runtime_error("cannot mount on " + mountpoint);
  for (int i = 0; i < 2; ++i)
    s.threads.emplace_back([session = s.session] {
      fuse_buf request{};
      while (::fuse_session_receive_buf(session, &request) > 0) ::fuse_session_process_buf(session, &request);
      std::free(request.mem);
    });
}

BareMount::~BareMount() {
  unmount(state_->mountpoint);
  for (std::thread& thread : state_->threads) thread.join();
  ::fuse_session_destroy(state_->session);
  ::close(state_->served.backing);
}

void BareMount::invalidate(std::uint64_t at, std::uint64_t size) {
  check(::fuse_lowlevel_notify_inval_inode(state_->session, kFileNode, static_cast<off_t>(at),
                                           static_cast<off_t>(size)) == 0,
        "notify_inval_inode");
}

OpenFile::OpenFile(const std::string& path, int flags) : fd_(::open(path.c_str(), flags | O_CLOEXEC, 0644)) {
  check(fd_ >= 0, path.c_str());
}

OpenFile::~OpenFile() { ::close(fd_); }

PlainMemory OpenFile::map(ByteCount size) const {
  void* base = ::mmap(nullptr, size.value, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0);
  check(base != MAP_FAILED, "mmap");
  return {static_cast<std::byte*>(base), size.value};
}

void OpenFile::forget_pages() const {
  check(::posix_fadvise(fd_, 0, 0, POSIX_FADV_DONTNEED) == 0, "posix_fadvise");
}

/// What a program is told to do.
struct Program::Order {
  enum class Work : std::uint8_t { load_mapped, read_blocks, write_blocks };

  Work work;
  std::array<char, PATH_MAX> path{};
  int flags = O_RDWR;
  std::uint64_t size;
  /// Or block.
  std::uint64_t step;
  ReadAhead read_ahead = ReadAhead::yes;
};

namespace {

/// Negative if it cannot be done; so are the next two.
template <class Order>
double load_mapped(const Order& order, int fd) noexcept {
  void* const base = ::mmap(nullptr, order.size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (base == MAP_FAILED) return -1;
  if (order.read_ahead == ReadAhead::no && ::madvise(base, order.size, MADV_RANDOM) != 0) return -1;
  const double start = now();
  for (std::uint64_t at = 0; at < order.size; at += order.step) touch(static_cast<std::byte*>(base) + at);
  const double taken = now() - start;
  ::munmap(base, order.size);
  return taken;
}

template <class Order, class Move>
double move_blocks(const Order& order, const Move& move) noexcept {
  void* const block =
      ::mmap(nullptr, order.step, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (block == MAP_FAILED) return -1;
  const double start = now();
  for (std::uint64_t at = 0; at < order.size; at += order.step)
    if (move(block, order.step, static_cast<off_t>(at)) != static_cast<ssize_t>(order.step)) return -1;
  const double taken = now() - start;
  ::munmap(block, order.step);
  return taken;
}

template <class Order>
double carry_out_here(const Order& order) noexcept {
  const int fd = ::open(order.path.data(), order.flags | O_CLOEXEC);
  if (fd < 0 || ::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) != 0) return -1;
  double taken = -1;
  switch (order.work) {
    case Order::Work::load_mapped: taken = load_mapped(order, fd); break;
    case Order::Work::read_blocks:
      taken = move_blocks(
          order, [fd](void* block, std::size_t size, off_t at) { return ::pread(fd, block, size, at); });
      break;
    case Order::Work::write_blocks:
      taken = move_blocks(order, [fd](const void* block, std::size_t size, off_t at) {
        return ::pwrite(fd, block, size, at);
      });
      break;
  }
  ::close(fd);
  return taken;
}

}  // namespace

void Program::serve_orders(int connection) noexcept {
  static Order order;  // too large for a stack
  while (::read(connection, &order, sizeof order) == sizeof order) {
    const double taken = carry_out_here(order);
    if (::write(connection, &taken, sizeof taken) != sizeof taken) break;
  }
  ::_exit(0);
}

Program::Program() {
  std::array<int, 2> ends{};
  check(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) == 0, "socketpair");
  process_ = ::fork();
  check(process_ >= 0, "fork");
  if (process_ == 0) {
    ::close(ends[0]);
    serve_orders(ends[1]);
  }
  ::close(ends[1]);
  connection_ = ends[0];
}

Program::~Program() {
  ::close(connection_);
  ::waitpid(process_, nullptr, 0);
}

double Program::carry_out(const std::string& path, const Order& order) {
  Order sent = order;
  check(path.copy(sent.path.data(), sent.path.size() - 1) == path.size(), "path");
  double taken = -1;
  check(::write(connection_, &sent, sizeof sent) == sizeof sent, "write");
  check(::read(connection_, &taken, sizeof taken) == sizeof taken && taken >= 0, path.c_str());
  return taken;
}

double Program::load_mapped(const std::string& path, ByteCount size, ByteCount step, ReadAhead read_ahead) {
  return carry_out(
      path,
      {.work = Order::Work::load_mapped, .size = size.value, .step = step.value, .read_ahead = read_ahead});
}

double Program::read_blocks(const std::string& path, int flags, ByteCount size, ByteCount block) {
  return carry_out(
      path, {.work = Order::Work::read_blocks, .flags = flags, .size = size.value, .step = block.value});
}

double Program::write_blocks(const std::string& path, int flags, ByteCount size, ByteCount block) {
  return carry_out(
      path, {.work = Order::Work::write_blocks, .flags = flags, .size = size.value, .step = block.value});
}

}  // namespace aprime::bench
