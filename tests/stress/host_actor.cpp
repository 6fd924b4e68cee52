#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <stdexcept>

#include "tests/stress/call_actor.hpp"
#include "tests/stress/world.hpp"

namespace aprime::stress {
namespace {

Path path_of(HostAccess how, bool write) noexcept {
  switch (how) {
    case HostAccess::migrate: return write ? Path::write_migrate : Path::read_migrate;
    case HostAccess::bounce: return write ? Path::write_bounce : Path::read_bounce;
    case HostAccess::adaptive: break;
  }
  return write ? Path::write_adaptive : Path::read_adaptive;
}

/// A host thread: loads and stores by pointer, every kind of call, leases for system calls, and
/// house-keeping.
class HostActor : CallActor {
 public:
  HostActor(World& world, unsigned number, Random random)
      : CallActor(world.board(), static_cast<std::uint8_t>(number), number, random), world_(world) {
    if (::pipe(pipe_.data()) != 0) throw std::runtime_error("pipe");
  }
  ~HostActor() {
    ::close(pipe_[0]);
    ::close(pipe_[1]);
  }
  HostActor(const HostActor&) = delete;
  HostActor& operator=(const HostActor&) = delete;

  void run() {
    for (std::uint64_t n = 0; world_.go_on(done_); ++n) {
      world_.take_turn(n, 4);
      done_ = 0;
      view_ = world_.views()[random_.below(world_.views().size())];
      step();
    }
  }

 private:
  void step() {
    const std::uint64_t what = random_.below(1000);
    if (what < 550) return use_pointer();
    if (what < 700) return read_words();
    if (what < 850) return write_cell();
    if (what < 890) return read_direct();
    if (what < 920) return lease_out();
    if (what < 960) return read_plain();
    if (what < 985) return prefetch();
    if (what < 990) return sync();
    if (what < 993) return use_another_mapping();
    // Advice and reports change nothing; they only have to get along with everybody.
    const ByteRange range = view_.range(view_.first_word, std::min<std::uint64_t>(view_.words, 4096));
    if (what < 997) view_.mapping->advise(range, random_.one_in(2) ? Advice::sequential : Advice::random);
    static_cast<void>(view_.mapping->snapshot(range));
    ++done_;
  }

  /// Some words of one granule, or of a small part of it.
  void use_pointer() {
    const std::uint64_t granule = shadow_.granule_words();
    const std::uint64_t first = any_word() / granule * granule;
    const std::uint64_t room = std::min(granule, end_of_view() - first);
    const std::uint64_t n = random_.between(1, 32);
    for (std::uint64_t i = 0; i < n && !shadow_.failed(); ++i) {
      const std::uint64_t word = pick_word(shadow_, first, room, me_, random_);
      touch_word(world_.board(), view_.host + (word - view_.first_word), word, me_, me_, false, true,
                 random_);
    }
    done_ += n;
  }

  void read_words() {
    const std::uint64_t first = any_word();
    const std::uint64_t n = any_length(end_of_view() - first);
    const HostAccess how = any_access();
    const auto began = look(first, n, false);
    const std::span<std::uint64_t> values = buffer_.first(n);
    view_.mapping->read(view_.at(first), std::as_writable_bytes(values), how);
    judge(first, n, path_of(how, false), true, began);
  }

  void read_direct() {
    const std::uint64_t unit = view_.mapping->direct_alignment().value / 8;
    const std::uint64_t first = any_word() / unit * unit;
    const std::uint64_t n = std::min(random_.between(1, 4) * unit, (end_of_view() - first) / unit * unit);
    if (first < view_.first_word || n == 0 || n > looks_.size()) return;
    const auto began = look(first, n, false);
    view_.mapping->read_direct(view_.at(first), std::as_writable_bytes(buffer_.first(n)));
    judge(first, n, Path::read_direct, true, began);
  }

  void read_plain() {
    const std::uint64_t first = any_word();
    const std::uint64_t n = std::min<std::uint64_t>(random_.between(1, 256), end_of_view() - first);
    const auto began = look(first, n, true);
    world_.plain().read(first * 8, buffer_.first(n).data(), n * 8);
    judge(first, n, Path::plain_read, false, began);
  }

  /// Stores the next value of a cell of ours by one call.
  void write_cell() {
    Cell* cell = find_mine(any_word(), end_of_view());
    if (cell == nullptr) return;
    if (cell->kind == CellKind::leased && !random_.one_in(4)) return lease_in(*cell);
    const std::uint64_t unit = view_.mapping->direct_alignment().value / 8;
    const bool can_direct = cell->first % unit == 0 && cell->words % unit == 0;
    const auto began = Journal::Clock::now();
    const std::uint32_t seq = Shadow::begin_store(*cell);
    const std::span<std::uint64_t> values = encode(*cell, seq);
    const std::span<const std::byte> bytes = std::as_bytes(values);
    const ByteOffset at = view_.at(cell->first);
    const HostAccess how = any_access();
    Path path = path_of(how, true);
    if (values.front() == 0 && random_.one_in(2)) {
      path = Path::discard;
      view_.mapping->discard({at, ByteCount{bytes.size()}});
    } else if (can_direct && !random_.one_in(3)) {
      path = Path::write_direct;
      view_.mapping->write_direct(at, bytes);
    } else if (world_.config().sabotage == Sabotage::tear_block) {
      const std::size_t half = bytes.size() / 2 / 8 * 8;
      view_.mapping->write(at, bytes.first(half), how);
      std::this_thread::sleep_for(std::chrono::microseconds(100));
      view_.mapping->write(at + ByteCount{half}, bytes.subspan(half), how);
    } else {
      view_.mapping->write(at, bytes, how);
    }
    Shadow::end_store(*cell, seq);
    note(path, cell->first, cell->words, seq, began);
  }

  /// A system call stores through our pointer.
  void lease_in(Cell& cell) {
    const auto began = Journal::Clock::now();
    const std::uint32_t seq = Shadow::begin_store(cell);
    const std::span<std::uint64_t> values = encode(cell, seq);
    transfer(SYS_write, pipe_[1], values.data(), values.size_bytes());
    {
      const HostLease lease =
          view_.mapping->host_lease(view_.range(cell.first, cell.words), Right::read_write);
      transfer(SYS_read, pipe_[0], lease.bytes().data(), lease.bytes().size());
    }
    Shadow::end_store(cell, seq);
    note(Path::lease_in, cell.first, cell.words, seq, began);
  }

  /// A system call loads through our pointer.
  void lease_out() {
    const std::uint64_t first = any_word();
    const std::uint64_t n = std::min<std::uint64_t>(random_.between(1, 600), end_of_view() - first);
    const auto began = look(first, n, false);
    {
      const HostLease lease = view_.mapping->host_lease(view_.range(first, n), Right::read);
      transfer(SYS_write, pipe_[1], lease.bytes().data(), lease.bytes().size());
    }
    transfer(SYS_read, pipe_[0], buffer_.first(n).data(), n * 8);
    judge(first, n, Path::lease_out, false, began);
  }

  void prefetch() {
    const std::uint64_t first = any_word();
    const std::uint64_t n = std::min(random_.between(1, 3 * shadow_.granule_words()), end_of_view() - first);
    const auto began = Journal::Clock::now();
    const std::uint64_t where = random_.below(world_.device_count() + 1);
    if (where == world_.device_count())
      view_.mapping->prefetch_home(view_.range(first, n));
    else
      view_.mapping->prefetch(view_.range(first, n), static_cast<unsigned>(where),
                              random_.one_in(3) ? Right::read_write : Right::read);
    note(where == world_.device_count() ? Path::prefetch_home : Path::prefetch, first, n, where, began);
  }

  /// Everything that was complete before the call is in the file after it, for whoever looks there.
  void sync() {
    const bool all = random_.one_in(4);
    const std::uint64_t first = all ? view_.first_word : any_word();
    const std::uint64_t n =
        all ? view_.words : std::min(random_.between(1, 4 * shadow_.granule_words()), end_of_view() - first);
    const auto began = Journal::Clock::now();
    before_sync(first, n);
    if (all)
      view_.mapping->sync();
    else
      view_.mapping->sync(view_.range(first, n));
    after_sync();
    note(Path::sync, first, n, 0, began);
    for (int i = 0; i < 4; ++i) {
      const std::uint64_t at = first + random_.below(n);
      const std::uint64_t count = std::min<std::uint64_t>(first + n - at, 512);
      const auto plain_began = look(at, count, true);
      world_.plain().read(at * 8, buffer_.first(count).data(), count * 8);
      judge(at, count, Path::plain_read, false, plain_began);
    }
  }

  /// Maps some of the file once more, uses it like any other, and ends it.
  void use_another_mapping() {
    const std::uint64_t granule = shadow_.granule_words();
    const std::uint64_t first = random_.below(shadow_.granules()) * granule;
    const std::uint64_t words = std::min(shadow_.words() - first, random_.between(1, 6 * granule));
    const auto began = Journal::Clock::now();
    const Mapping mapping = world_.runtime().map(
        world_.path(), Access::read_write, {.offset = ByteOffset{first * 8}, .length = ByteCount{words * 8}});
    view_ = {&mapping, mapping.host<std::uint64_t>().data(), first, words};
    note(Path::map, first, words, 0, began);
    for (int i = 0; i < 12; ++i) {
      use_pointer();
      if (random_.one_in(3)) read_words();
      if (random_.one_in(3)) write_cell();
    }
  }

  // What the operations are made of.

  std::uint64_t end_of_view() const { return view_.first_word + view_.words; }
  std::uint64_t any_word() { return CallActor::any_word(view_.first_word, view_.words); }
  HostAccess any_access() {
    constexpr std::array all{HostAccess::migrate, HostAccess::bounce, HostAccess::adaptive};
    return all[random_.below(all.size())];
  }

  /// Straight to the kernel, so that a sanitizer does not take the transfer for an access of ours.
  void transfer(long call, int fd, void* at, std::size_t size) {
    if (const long n = ::syscall(call, fd, at, size); n != static_cast<long>(size))
      throw std::runtime_error(
          std::string(call == SYS_read ? "read" : "write") + " of " + std::to_string(size) +
          " bytes with a leased pointer: " + (n < 0 ? std::strerror(errno) : std::to_string(n)));
  }

  World& world_;
  View view_{};
  std::array<int, 2> pipe_{};
};

}  // namespace

void run_host_actor(World& world, unsigned number, Random random) { HostActor(world, number, random).run(); }

}  // namespace aprime::stress
