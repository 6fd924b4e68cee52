#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "tests/stress/program_actor.hpp"
#include "tests/stress/tail.hpp"

namespace aprime::stress {
namespace {

/// What the tail actor of the run does here (tail_actor.cpp), by a program's calls. It is alone in the tail
/// but for the words that devices store to, so it knows each other byte exactly.
class ProgramTail {
 public:
  ProgramTail(Board& board, const Program::Arguments& program)
      : board_(board),
        program_(program),
        random_(program.seed, 300),
        granule_(board.layout().shadow.granule_words * std::uint64_t{8}),
        first_(board.shadow().words() * 8),
        file_(program, O_RDWR),
        direct_(program, O_RDONLY | O_DIRECT),
        appending_(program, O_WRONLY | O_APPEND),
        plain_(program.plain_path, O_RDONLY),
        bytes_(file_.size() - first_),
        page_words_((kTailMax + 2 * kPage) / 8) {
    mapped_size_ = first_ + kTailMax;
    void* const at = ::mmap(nullptr, mapped_size_, PROT_READ | PROT_WRITE, MAP_SHARED, file_.get(), 0);
    if (at == MAP_FAILED) fail_call("mmap", 0, mapped_size_, -1);
    memory_ = static_cast<std::uint8_t*>(at);
  }
  ~ProgramTail() { ::munmap(memory_, mapped_size_); }
  ProgramTail(const ProgramTail&) = delete;
  ProgramTail& operator=(const ProgramTail&) = delete;

  void run() {
    while (board_.go_on(done_, calls_)) {
      done_ = calls_ = 0;
      step();
    }
  }

 private:
  static constexpr std::uint64_t kPage = 4096;
  static constexpr std::uint64_t kTailMax = std::uint64_t{1} << 20;

  TailPart somewhere(std::uint64_t most) { return some_part(bytes_.size(), most, random_); }

  /// Does something by that path, and notes it.
  template <class What>
  void act(Path path, TailPart p, What what) {
    const auto began = Journal::Clock::now();
    what();
    board_.journal().note(program_.actor, path, (first_ + p.at) / 8, (p.size + 7) / 8, bytes_.size(), began);
    ++done_;
    if (path != Path::tail && path != Path::plain_read) ++calls_;
  }

  void step() {
    const std::uint64_t what = random_.below(100);
    if (what < 35) return store();
    if (what < 72) return look_somewhere();
    if (what < 80) return append();
    if (what < 90) return resize();
    if (what < 97) return punch();
    act(Path::sync, {0, bytes_.size()}, [&] { file_.sync(); });
    look({0, bytes_.size()}, Way::plain, "after fsync");
  }

  void store() {
    const TailPart p = somewhere(3 * granule_);
    if (p.size == 0) return;
    fill(p);
    if (!random_.one_in(3))
      act(Path::write_adaptive, p, [&] { file_.write(first_ + p.at, bytes_.data() + p.at, p.size); });
    else
      act(Path::tail, p, [&] { std::memcpy(memory_ + first_ + p.at, bytes_.data() + p.at, p.size); });
  }
  void fill(TailPart p) {
    const auto salt = static_cast<std::uint8_t>(random_.next());
    for (std::uint64_t i = 0; i < p.size; ++i) bytes_[p.at + i] = static_cast<std::uint8_t>(salt + i * 7);
  }

  void append() {
    const TailPart p{bytes_.size(), random_.between(1, 2 * granule_)};
    if (p.at + p.size > kTailMax) return;
    bytes_.resize(p.at + p.size);
    fill(p);
    act(Path::append, p, [&] {
      const ssize_t n = ::write(appending_.get(), bytes_.data() + p.at, p.size);
      if (n != static_cast<ssize_t>(p.size)) fail_call("append", first_ + p.at, p.size, n);
    });
    last_change_ = fmt::format("{} bytes were appended to {}", p.size, p.at);
    expect_size();
  }

  void resize() {
    std::uint64_t size = random_.below(6 * granule_);
    if (random_.one_in(4)) size = size / granule_ * granule_;
    if (random_.one_in(6)) size = 0;
    if (random_.one_in(2)) store();
    last_change_ = fmt::format("it was cut from {} to {} bytes", bytes_.size(), size);
    const std::uint64_t kept = std::min<std::uint64_t>(bytes_.size(), size);
    act(Path::resize, {kept, size - kept}, [&] { file_.resize(first_ + size); });
    bytes_.resize(size);
    expect_size();
    if (size > kept && random_.one_in(2)) look({kept, size - kept}, any_way(), "after it grew");
  }

  void punch() {
    const TailPart p = somewhere(4 * granule_);
    if (p.size == 0) return;
    if (random_.one_in(2)) store();
    act(Path::discard, p, [&] { file_.punch(first_ + p.at, p.size); });
    std::fill_n(bytes_.begin() + static_cast<std::ptrdiff_t>(p.at), p.size, std::uint8_t{0});
    if (random_.one_in(2)) look(p, any_way(), "after a hole was punched");
  }

  void expect_size() {
    if (const std::uint64_t now = file_.size(); now != first_ + bytes_.size())
      board_.shadow().fail(
          fmt::format("the file has {} bytes, not {}: {}", now, first_ + bytes_.size(), last_change_));
  }

  /// Whether the byte is of a word that devices store to.
  static bool is_marked(std::uint64_t at) { return at / 8 % kTailMarkEvery == 0; }

  enum class Way : std::uint8_t { read, direct, memory, plain };
  Way any_way() { return static_cast<Way>(random_.below(3)); }

  void look_somewhere() {
    const TailPart p = somewhere(3 * granule_);
    if (p.size != 0) look(p, any_way(), "later");
  }

  void look(TailPart p, Way way, const char* when) {
    if (p.size == 0) return;
    const std::uint64_t at = first_ + p.at;
    const std::uint8_t* seen = reinterpret_cast<const std::uint8_t*>(page_words_.first(1).data());
    auto* const into = reinterpret_cast<std::uint8_t*>(page_words_.first(1).data());
    switch (way) {
      case Way::read: act(Path::read_adaptive, p, [&] { file_.read(at, into, p.size); }); break;
      case Way::plain: act(Path::plain_read, p, [&] { plain_.read(at, into, p.size); }); break;
      case Way::memory: act(Path::tail, p, [&] { std::memcpy(into, memory_ + at, p.size); }); break;
      case Way::direct: {
        // Whole pages; what is asked for beyond the end of the file does not come.
        const std::uint64_t from = at / kPage * kPage;
        const std::uint64_t size = (at + p.size - from + kPage - 1) / kPage * kPage;
        act(Path::read_direct, p, [&] {
          const ssize_t n = ::pread(direct_.get(), into, size, static_cast<off_t>(from));
          if (n < static_cast<ssize_t>(at + p.size - from)) fail_call("direct pread", from, size, n);
        });
        seen = into + (at - from);
      }
    }
    std::uint64_t i = 0;
    while (i < p.size && (is_marked(at + i) || seen[i] == bytes_[p.at + i])) ++i;
    if (i == p.size) return;
    board_.shadow().fail(fmt::format(
        "the tail's byte {} (byte {} of the file, which has {}) is {:#x}, not {:#x}, {} by way {}; last, {}",
        p.at + i, at + i, first_ + bytes_.size(), seen[i], bytes_[p.at + i], when, static_cast<int>(way),
        last_change_));
  }

  Board& board_;
  const Program::Arguments& program_;
  Random random_;
  const std::uint64_t granule_;
  const std::uint64_t first_;
  const OpenedFile file_;
  const OpenedFile direct_;
  const OpenedFile appending_;
  const OpenedFile plain_;
  /// What the tail must hold.
  std::vector<std::uint8_t> bytes_;
  AlignedWords page_words_;
  std::uint8_t* memory_ = nullptr;
  std::uint64_t mapped_size_ = 0;
  std::string last_change_ = "nothing";
  /// What the board was not told of yet: operations, and how many of them were system calls.
  std::uint64_t done_ = 0;
  std::uint64_t calls_ = 0;
};

}  // namespace

void run_program_tail(Board& board, const Program::Arguments& program) { ProgramTail(board, program).run(); }

}  // namespace aprime::stress
