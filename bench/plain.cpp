#include "bench/plain.hpp"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <system_error>
#include <vector>

namespace aprime::bench {
namespace {

std::byte* map(std::size_t size, int protection, int flags, int fd) {
  void* base = ::mmap(nullptr, size, protection, flags, fd, 0);
  check(base != MAP_FAILED, "mmap");
  return static_cast<std::byte*>(base);
}

int open_unnamed() {
  const char* wanted = std::getenv("TMPDIR");  // NOLINT(concurrency-mt-unsafe): before any thread is made
  // /tmp may be memory; this is about files on a disk.
  std::string name = std::string(wanted != nullptr ? wanted : "/var/tmp") + "/aprime-bench.XXXXXX";
  const int fd = ::mkostemp(name.data(), O_CLOEXEC);
  check(fd >= 0, "mkostemp");
  ::unlink(name.c_str());
  return fd;
}

std::uint64_t address_of(const std::byte* p) noexcept { return reinterpret_cast<std::uintptr_t>(p); }

}  // namespace

void check(bool ok, const char* what) {
  if (!ok) throw std::system_error(errno, std::generic_category(), what);
}

PlainFile::PlainFile(ByteCount size, bool dense) : fd_(open_unnamed()), size_(size) {
  check(::ftruncate(fd_, static_cast<off_t>(size.value)) == 0, "ftruncate");
  if (dense) write_content(fd_, size);
}

PlainFile::~PlainFile() { ::close(fd_); }

std::string PlainFile::path() const { return "/proc/self/fd/" + std::to_string(fd_); }

void write_content(int fd, ByteCount size) {
  std::vector<std::byte> block(std::size_t{1} << 20);
  for (std::size_t i = 0; i < block.size(); ++i) block[i] = static_cast<std::byte>(i * 37 >> 3);
  for (std::uint64_t at = 0; at < size.value; at += block.size())
    write_all(fd, at,
              std::span(block).first(static_cast<std::size_t>(std::min(size.value - at, block.size()))));
  check(::fdatasync(fd) == 0, "fdatasync");
}

void PlainFile::sync() const { check(::fdatasync(fd_) == 0, "fdatasync"); }

PlainMemory PlainMemory::anonymous(ByteCount size, bool populate) {
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (populate ? MAP_POPULATE : 0);
  std::byte* base = map(size.value, PROT_READ | PROT_WRITE, flags, -1);
  static_cast<void>(::madvise(base, size.value, MADV_NOHUGEPAGE));
  return {base, size.value};
}

PlainMemory PlainMemory::of(const PlainFile& file, int protection) {
  return {map(file.size().value, protection, MAP_SHARED, file.fd()), file.size().value};
}

PlainMemory::~PlainMemory() {
  if (base_ != nullptr) ::munmap(base_, size_);
}

BareUserfault::BareUserfault(ByteCount size)
    : memory_(PlainMemory::anonymous(size)),
      fd_(static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY))) {
  check(fd_ >= 0, "userfaultfd");
  uffdio_api api{};
  api.api = UFFD_API;
  api.features = UFFD_FEATURE_SIGBUS | UFFD_FEATURE_PAGEFAULT_FLAG_WP;
  uffdio_register request{};
  request.range = {address_of(memory_.data()), memory_.size()};
  request.mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP;
  if (::ioctl(fd_, UFFDIO_API, &api) == 0 && ::ioctl(fd_, UFFDIO_REGISTER, &request) == 0) return;
  const int error = errno;
  ::close(fd_);
  throw std::system_error(error, std::generic_category(), "userfaultfd");
}

BareUserfault::~BareUserfault() { ::close(fd_); }

void BareUserfault::copy_protected(std::byte* to, const std::byte* from, std::size_t size) const noexcept {
  uffdio_copy request{};
  request.dst = address_of(to);
  request.src = address_of(from);
  request.len = size;
  request.mode = UFFDIO_COPY_MODE_DONTWAKE | UFFDIO_COPY_MODE_WP;
  if (::ioctl(fd_, UFFDIO_COPY, &request) != 0) std::abort();
}

void BareUserfault::unprotect(std::byte* at, std::size_t size) const noexcept {
  uffdio_writeprotect request{};
  request.range = {address_of(at), size};
  request.mode = UFFDIO_WRITEPROTECT_MODE_DONTWAKE;
  if (::ioctl(fd_, UFFDIO_WRITEPROTECT, &request) != 0) std::abort();
}

SignalScope::SignalScope(int signal, Handler handler) : signal_(signal) {
  struct sigaction action {};
  action.sa_sigaction = handler;
  action.sa_flags = SA_SIGINFO;
  check(::sigaction(signal, &action, &before_) == 0, "sigaction");
}

SignalScope::~SignalScope() { ::sigaction(signal_, &before_, nullptr); }

void write_all(int fd, std::uint64_t at, std::span<const std::byte> from) {
  for (std::size_t done = 0; done < from.size();) {
    const ssize_t n = ::pwrite(fd, from.data() + done, from.size() - done, static_cast<off_t>(at + done));
    check(n > 0, "pwrite");
    done += static_cast<std::size_t>(n);
  }
}

void read_all(int fd, std::uint64_t at, std::span<std::byte> into) {
  for (std::size_t done = 0; done < into.size();) {
    const ssize_t n = ::pread(fd, into.data() + done, into.size() - done, static_cast<off_t>(at + done));
    check(n > 0, "pread");
    done += static_cast<std::size_t>(n);
  }
}

}  // namespace aprime::bench
