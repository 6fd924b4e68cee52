#include "tests/stress/program_actor.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/falloc.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <utility>

namespace aprime::stress {

void fail_call(const char* call, std::uint64_t at, std::uint64_t size, long result) {
  throw std::runtime_error(fmt::format("{} of {} bytes at {}: {}", call, size, at,
                                       result < 0 ? std::strerror(errno) : std::to_string(result)));
}

OpenedFile::OpenedFile(const std::string& path, int flags) : fd_(::open(path.c_str(), flags | O_CLOEXEC)) {
  if (fd_ < 0) fail_call("open", 0, 0, -1);
}
OpenedFile::OpenedFile(const Program::Arguments& program, int flags) {
  for (unsigned tries = 0; fd_ < 0; ++tries) {
    const std::string& name = tries % 2 == 0 ? program.path : program.other_name;
    fd_ = ::open(name.c_str(), flags | O_CLOEXEC);
    if (fd_ < 0 && (errno != ENOENT || tries > 1000)) fail_call("open", 0, 0, -1);
  }
}
OpenedFile::~OpenedFile() {
  if (fd_ >= 0) ::close(fd_);
}
OpenedFile::OpenedFile(OpenedFile&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
OpenedFile& OpenedFile::operator=(OpenedFile&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}
std::uint64_t OpenedFile::size() const {
  struct ::stat s {};
  if (::fstat(fd_, &s) != 0) fail_call("fstat", 0, 0, -1);
  return static_cast<std::uint64_t>(s.st_size);
}
void OpenedFile::read(std::uint64_t at, void* into, std::size_t size) const {
  const ssize_t n = ::pread(fd_, into, size, static_cast<off_t>(at));
  if (n != static_cast<ssize_t>(size)) fail_call("pread", at, size, n);
}
void OpenedFile::write(std::uint64_t at, const void* from, std::size_t size) const {
  const ssize_t n = ::pwrite(fd_, from, size, static_cast<off_t>(at));
  if (n != static_cast<ssize_t>(size)) fail_call("pwrite", at, size, n);
}
void OpenedFile::punch(std::uint64_t at, std::uint64_t size) const {
  constexpr int kMode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
  if (::fallocate(fd_, kMode, static_cast<off_t>(at), static_cast<off_t>(size)) != 0)
    fail_call("fallocate", at, size, -1);
}
void OpenedFile::resize(std::uint64_t size) const {
  if (::ftruncate(fd_, static_cast<off_t>(size)) != 0) fail_call("ftruncate", size, 0, -1);
}
void OpenedFile::sync() const {
  if (::fsync(fd_) != 0) fail_call("fsync", 0, 0, -1);
}

namespace {

/// The words of the file in the program's memory.
class MappedWords {
 public:
  MappedWords() = default;
  MappedWords(const OpenedFile& file, std::uint64_t words) : size_(words * 8) {
    at_ = ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
    if (at_ == MAP_FAILED) fail_call("mmap", 0, size_, -1);
  }
  ~MappedWords() {
    if (at_ != nullptr) ::munmap(at_, size_);
  }
  MappedWords(const MappedWords&) = delete;
  MappedWords& operator=(MappedWords&& other) noexcept {
    std::swap(at_, other.at_);
    std::swap(size_, other.size_);
    return *this;
  }
  std::uint64_t* data() const noexcept { return static_cast<std::uint64_t*>(at_); }
  /// Takes the pages out of the program's page tables.
  void forget() const noexcept { ::madvise(at_, size_, MADV_DONTNEED); }

 private:
  void* at_ = nullptr;
  std::size_t size_ = 0;
};

class ProgramActor : CallActor {
 public:
  ProgramActor(Board& board, const Program::Arguments& program, const OpenedFile& early)
      : CallActor(board, static_cast<std::uint8_t>(board.layout().shadow.hosts - 1 - program.number),
                  program.actor, Random(program.seed, 200 + program.number)),
        program_(program),
        early_(early),
        plain_(program.plain_path, O_RDONLY) {
    if (::pipe2(pipe_.data(), O_CLOEXEC) != 0) throw std::runtime_error("no pipe");
    open();
  }
  ~ProgramActor() {
    ::close(pipe_[0]);
    ::close(pipe_[1]);
  }
  ProgramActor(const ProgramActor&) = delete;
  ProgramActor& operator=(const ProgramActor&) = delete;

  void run() {
    while (board_.go_on(done_, done_ - no_calls_)) {
      done_ = no_calls_ = 0;
      step();
    }
  }

  void look_at_all() {
    const auto check = [&](Path path, auto get) {
      const std::size_t most = looks_.size();
      for (std::uint64_t first = 0; first < shadow_.words(); first += most) {
        const std::span<std::uint64_t> values = buffer_.first(std::min(most, shadow_.words() - first));
        get(first, values);
        for (std::size_t i = 0; i < values.size(); ++i)
          if (!shadow_.check_exact(first + i, values[i], {actor_, path})) return;
      }
    };
    check(Path::read_direct, [&](std::uint64_t first, std::span<std::uint64_t> into) {
      const std::uint64_t whole = into.size() / 512 * 512;  // the file goes on behind the words
      direct_.read(first * 8, into.data(), whole * 8);
      file_.read((first + whole) * 8, into.data() + whole, (into.size() - whole) * 8);
    });
    check(Path::read_adaptive, [&](std::uint64_t first, std::span<std::uint64_t> into) {
      file_.read(first * 8, into.data(), into.size_bytes());
    });
    check(Path::at_end, [&](std::uint64_t first, std::span<std::uint64_t> into) {
      early_.read(first * 8, into.data(), into.size_bytes());
    });
    check(Path::host_load, [&](std::uint64_t first, std::span<std::uint64_t> into) {
      for (std::size_t i = 0; i < into.size(); ++i)
        into[i] = std::atomic_ref(words_.data()[first + i]).load(std::memory_order_acquire);
    });
  }

 private:
  void open() {
    file_ = OpenedFile(program_, O_RDWR);
    direct_ = OpenedFile(program_, O_RDWR | O_DIRECT);
    words_ = MappedWords(file_, shadow_.words());
  }

  void step() {
    const std::uint64_t what = random_.below(1000);
    if (what < 200) return use_memory();
    if (what < 480) return read_words(file_, Path::read_adaptive, true);
    if (what < 580) return read_words(early_, Path::read_bounce, false);
    if (what < 780) return write_cell();
    if (what < 860) return read_direct();
    if (what < 920) return copy_out();
    if (what < 950) return read_plain();
    if (what < 955) return sync();
    if (what < 965) return open_again();
    if (what < 980) return forget();
    if (program_.number == 1) return rename();
    use_memory();
  }

  /// Some words of one granule, by its own memory.
  void use_memory() {
    const std::uint64_t granule = shadow_.granule_words();
    const std::uint64_t first = any_word() / granule * granule;
    const std::uint64_t room = std::min(granule, shadow_.words() - first);
    const std::uint64_t n = random_.between(1, 32);
    for (std::uint64_t i = 0; i < n && !shadow_.failed(); ++i) {
      const std::uint64_t word = pick_word(shadow_, first, room, me_, random_);
      touch_word(board_, words_.data() + word, word, me_, actor_, false, true, random_);
    }
    done_ += n;
    no_calls_ += n;
  }

  void read_words(const OpenedFile& file, Path path, bool is_atomic) {
    const std::uint64_t first = any_word();
    const std::uint64_t n = any_length(shadow_.words() - first);
    const auto began = look(first, n, false);
    file.read(first * 8, buffer_.first(n).data(), n * 8);
    judge(first, n, path, is_atomic, began);
  }

  void read_direct() {
    const std::uint64_t unit = board_.layout().shadow.direct_words;
    const std::uint64_t first = any_word() / unit * unit;
    const std::uint64_t n = std::min(random_.between(1, 4) * unit, (shadow_.words() - first) / unit * unit);
    if (n == 0 || n > looks_.size()) return;
    const auto began = look(first, n, false);
    direct_.read(first * 8, buffer_.first(n).data(), n * 8);
    judge(first, n, Path::read_direct, true, began);
  }

  void read_plain() {
    const std::uint64_t first = any_word();
    const std::uint64_t n = std::min<std::uint64_t>(random_.between(1, 256), shadow_.words() - first);
    const auto began = look(first, n, true);
    plain_.read(first * 8, buffer_.first(n).data(), n * 8);
    judge(first, n, Path::plain_read, false, began);
    ++no_calls_;
  }

  /// Stores the next value of a cell of ours by one call.
  void write_cell() {
    Cell* const cell = find_mine(any_word(), shadow_.words());
    if (cell == nullptr) return;
    if (cell->kind == CellKind::leased && !random_.one_in(4)) return copy_in(*cell);
    const std::uint64_t unit = board_.layout().shadow.direct_words;
    const auto began = Journal::Clock::now();
    const std::uint32_t seq = Shadow::begin_store(*cell);
    const std::span<std::uint64_t> values = encode(*cell, seq);
    Path path = Path::write_adaptive;
    if (values.front() == 0 && random_.one_in(2)) {
      path = Path::discard;
      file_.punch(cell->first * std::uint64_t{8}, values.size_bytes());
    } else if (cell->first % unit == 0 && cell->words % unit == 0 && !random_.one_in(3)) {
      path = Path::write_direct;
      direct_.write(cell->first * std::uint64_t{8}, values.data(), values.size_bytes());
    } else {
      file_.write(cell->first * std::uint64_t{8}, values.data(), values.size_bytes());
    }
    Shadow::end_store(*cell, seq);
    note(path, cell->first, cell->words, seq, began);
  }

  /// A system call stores to our memory.
  void copy_in(Cell& cell) {
    const auto began = Journal::Clock::now();
    const std::uint32_t seq = Shadow::begin_store(cell);
    const std::span<std::uint64_t> values = encode(cell, seq);
    transfer(SYS_write, pipe_[1], values.data(), values.size_bytes());
    transfer(SYS_read, pipe_[0], words_.data() + cell.first, values.size_bytes());
    Shadow::end_store(cell, seq);
    note(Path::lease_in, cell.first, cell.words, seq, began);
  }

  /// A system call loads from our memory.
  void copy_out() {
    const std::uint64_t first = any_word();
    const std::uint64_t n = std::min<std::uint64_t>(random_.between(1, 600), shadow_.words() - first);
    const auto began = look(first, n, false);
    transfer(SYS_write, pipe_[1], words_.data() + first, n * 8);
    transfer(SYS_read, pipe_[0], buffer_.first(n).data(), n * 8);
    judge(first, n, Path::lease_out, false, began);
  }

  /// Everything that was complete before is in the file after, for whoever looks there.
  void sync() {
    const auto began = Journal::Clock::now();
    before_sync(0, shadow_.words());
    if (random_.one_in(2))
      file_.sync();
    else if (::msync(words_.data(), shadow_.words() * 8, MS_SYNC) != 0)
      fail_call("msync", 0, shadow_.words() * 8, -1);
    after_sync();
    note(Path::sync, 0, shadow_.words(), 0, began);
    for (int i = 0; i < 4; ++i) read_plain();
  }

  void open_again() {
    const auto began = Journal::Clock::now();
    if (random_.one_in(2)) words_ = MappedWords(file_, shadow_.words());
    open();
    const OpenedFile reader(program_, O_RDONLY);
    note(Path::map, 0, shadow_.words(), 0, began);
    for (int i = 0; i < 8; ++i) read_words(reader, Path::read_adaptive, true);
  }

  /// The kernel may drop its pages at any time.
  void forget() {
    words_.forget();
    ::posix_fadvise(early_.get(), 0, 0, POSIX_FADV_DONTNEED);
  }

  void rename() {
    const auto began = Journal::Clock::now();
    const std::string& from = is_renamed_ ? program_.other_name : program_.path;
    const std::string& to = is_renamed_ ? program_.path : program_.other_name;
    if (::rename(from.c_str(), to.c_str()) != 0) fail_call("rename", 0, 0, -1);
    is_renamed_ = !is_renamed_;
    note(Path::rename, 0, shadow_.words(), 0, began);
  }

  std::uint64_t any_word() { return CallActor::any_word(0, shadow_.words()); }

  static void transfer(long call, int fd, void* at, std::size_t size) {
    if (const long n = ::syscall(call, fd, at, size); n != static_cast<long>(size))
      fail_call(call == SYS_read ? "read" : "write", 0, size, n);
  }

  const Program::Arguments& program_;
  const OpenedFile& early_;
  const OpenedFile plain_;
  OpenedFile file_;
  OpenedFile direct_;
  MappedWords words_;
  bool is_renamed_ = false;
  /// Of the operations that the board was not told of yet: those that were no system call to the mount.
  std::uint64_t no_calls_ = 0;
  std::array<int, 2> pipe_{};
};

}  // namespace

void run_program(Board& board, const Program::Arguments& program, const OpenedFile& early) {
  ProgramActor(board, program, early).run();
}

void look_at_all(Board& board, const Program::Arguments& program, const OpenedFile& early) {
  ProgramActor(board, program, early).look_at_all();
}

}  // namespace aprime::stress
