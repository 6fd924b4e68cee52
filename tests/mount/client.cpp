// A program on a mount, told by lines on its standard input what to do; answers each by one line: "ok", "ok
// HEX" or "errno N". It knows nothing of aprime.

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <memory>
#include <sstream>
#include <string>
#include <utility>

namespace {

constexpr std::size_t kPage = 4096;

class Client {
 public:
  /// The answer to one command.
  std::string answer(const std::string& line) {
    std::istringstream words(line);
    std::string command;
    words >> command;
    errno = 0;
    result_ = "ok";
    if (!run(command, words)) return "errno " + std::to_string(errno);
    return result_;
  }

 private:
  bool run(const std::string& command, std::istringstream& words) {
    std::string text;
    long at = 0, size = 0;
    int value = 0;
    if (command.starts_with("open")) {
      words >> text;
      close();
      const int how = command == "open_reading" ? O_RDONLY : O_RDWR;
      const int flags = command == "open_direct"      ? O_DIRECT
                        : command == "open_appending" ? O_APPEND
                        : command == "open_data_sync" ? O_DSYNC
                        : command == "open_creating"  ? O_CREAT | O_TRUNC
                        : command == "open_new"       ? O_CREAT | O_EXCL
                                                      : 0;
      fd_ = ::open(text.c_str(), how | flags, 0600);
      return fd_ >= 0;
    }
    if (command == "copy_to") {  // all of it, by copy_file_range
      words >> text;
      return copy_to(text);
    }
    if (command == "map") return map();
    // Page by page: the kernel guesses at nothing.
    if (command == "map_random") return map() && ::madvise(memory_, mapped_, MADV_RANDOM) == 0;
    if (command == "msync") return ::msync(memory_, mapped_, MS_SYNC) == 0;
    if (command == "fsync") return ::fsync(fd_) == 0;
    if (command == "fdatasync") return ::fdatasync(fd_) == 0;
    if (command == "close") return close();
    if (command == "size") return tell_size();
    if (command == "time") return tell_time();
    if (command == "rename" || command == "unlink") {
      std::string to;
      words >> text >> to;
      return (command == "rename" ? ::rename(text.c_str(), to.c_str()) : ::unlink(text.c_str())) == 0;
    }
    words >> at >> size >> value;
    const auto offset = static_cast<std::size_t>(at), length = static_cast<std::size_t>(size);
    if (command == "set_times") return set_times(at);
    if (command == "truncate") return ::ftruncate(fd_, at) == 0;
    if (command == "punch")
      return ::fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, size) == 0;
    if (command == "zero") return ::fallocate(fd_, FALLOC_FL_ZERO_RANGE, at, size) == 0;
    if (command == "allocate") return ::fallocate(fd_, 0, at, size) == 0;
    if (command == "data") return tell_offset(::lseek(fd_, at, SEEK_DATA));
    if (command == "hole") return tell_offset(::lseek(fd_, at, SEEK_HOLE));
    if (command == "append") return append(length, value);
    if (command == "read") return read(at, length);
    if (command == "read_often") return read_often(at, length, value);
    if (command == "write") return write(at, length, value, 0);
    if (command == "write_data_sync") return write(at, length, value, RWF_DSYNC);
    if (command == "load") return tell(memory_ + offset, length);
    if (command == "await") return await(offset, length, value);
    if (command == "store") return std::memset(memory_ + offset, value, length) != nullptr;
    if (command == "count") return count(offset, length, value);
    errno = ENOSYS;
    return false;
  }

  /// Loads the byte again and again until it has the value, for some seconds at most.
  bool await(std::size_t at, std::size_t seconds, int value) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
    while (*static_cast<volatile unsigned char*>(memory_ + at) != value) {
      errno = ETIMEDOUT;
      if (std::chrono::steady_clock::now() > deadline) return false;
    }
    return true;
  }

  bool close() {
    if (memory_ != nullptr) ::munmap(memory_, mapped_);
    memory_ = nullptr;
    if (fd_ < 0) return true;
    return ::close(std::exchange(fd_, -1)) == 0;
  }

  bool map() {
    struct ::stat s {};
    if (::fstat(fd_, &s) != 0) return false;
    mapped_ = static_cast<std::size_t>(s.st_size);
    const bool stores = (::fcntl(fd_, F_GETFL) & O_ACCMODE) != O_RDONLY;
    void* at = ::mmap(nullptr, mapped_, PROT_READ | (stores ? PROT_WRITE : 0), MAP_SHARED, fd_, 0);
    if (at == MAP_FAILED) return false;
    memory_ = static_cast<unsigned char*>(at);
    return true;
  }

  bool tell_size() {
    struct ::stat s {};
    return ::fstat(fd_, &s) == 0 && tell_offset(s.st_size);
  }

  bool tell_time() {
    struct ::stat s {};
    if (::fstat(fd_, &s) != 0) return false;
    result_ = "ok " + std::to_string(s.st_mtim.tv_sec) + "." + std::to_string(s.st_mtim.tv_nsec);
    return true;
  }

  /// The times that it was last read and changed, in seconds.
  bool set_times(long seconds) {
    const ::timespec times[2] = {{seconds, 0}, {seconds, 0}};
    return ::futimens(fd_, times) == 0;
  }

  bool tell_offset(off_t at) {
    result_ = "ok " + std::to_string(at);
    return at >= 0;
  }

  bool tell(const unsigned char* bytes, std::size_t size) {
    result_ = "ok ";
    char hex[3];
    for (std::size_t i = 0; i < size; ++i) {
      std::snprintf(hex, sizeof hex, "%02x", bytes[i]);
      result_ += hex;
    }
    return true;
  }

  /// Aligned for O_DIRECT.
  std::unique_ptr<unsigned char, decltype(&std::free)> buffer(std::size_t size) {
    const std::size_t room = (size + kPage - 1) / kPage * kPage;
    return {static_cast<unsigned char*>(std::aligned_alloc(kPage, room)), &std::free};
  }

  bool read(long at, std::size_t size) {
    const auto bytes = buffer(size);
    const ssize_t n = ::pread(fd_, bytes.get(), size, at);
    return n >= 0 && tell(bytes.get(), static_cast<std::size_t>(n));
  }

  bool read_often(long at, std::size_t size, int times) {
    const auto bytes = buffer(size);
    while (times-- > 0)
      if (::pread(fd_, bytes.get(), size, at) != static_cast<ssize_t>(size)) return false;
    return true;
  }

  bool write(long at, std::size_t size, int value, int flags) {
    const auto bytes = buffer(size);
    std::memset(bytes.get(), value, size);
    const ::iovec part{bytes.get(), size};
    return ::pwritev2(fd_, &part, 1, at, flags) == static_cast<ssize_t>(size);
  }

  bool append(std::size_t size, int value) {
    const auto bytes = buffer(size);
    std::memset(bytes.get(), value, size);
    return ::write(fd_, bytes.get(), size) == static_cast<ssize_t>(size);
  }

  bool copy_to(const std::string& name) {
    const int to = ::open(name.c_str(), O_CREAT | O_TRUNC | O_WRONLY, 0600);
    if (to < 0) return false;
    loff_t from_at = 0, to_at = 0;
    ssize_t n = 0;
    while ((n = ::copy_file_range(fd_, &from_at, to, &to_at, std::size_t{1} << 20, 0)) > 0) {
    }
    return ::close(to) == 0 && n == 0;
  }

  /// Adds 1 to every fourth 32-bit word from `first` (in words, below 4) on, `rounds` times, by mmap.
  bool count(std::size_t first, std::size_t rounds, int) {
    const auto words = reinterpret_cast<std::atomic<unsigned>*>(memory_);
    for (std::size_t round = 0; round < rounds; ++round)
      for (std::size_t i = first; i < mapped_ / sizeof(unsigned); i += 4 * 64)
        words[i].store(words[i].load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    return true;
  }

  int fd_ = -1;
  unsigned char* memory_ = nullptr;
  std::size_t mapped_ = 0;
  std::string result_;
};

}  // namespace

int main() {
  Client client;
  for (std::string line; std::getline(std::cin, line);) std::cout << client.answer(line) << std::endl;
}
