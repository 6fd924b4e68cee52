#include "tests/stress/board.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <new>
#include <stdexcept>
#include <thread>
#include <type_traits>

namespace aprime::stress {
namespace {

static_assert(std::is_trivially_copyable_v<BoardLayout>);
constexpr std::size_t kLayoutRoom = 4096;
static_assert(sizeof(BoardLayout) <= kLayoutRoom);

int make_shared_file() {
  const int fd = ::memfd_create("stress", MFD_CLOEXEC);
  if (fd < 0 || ::ftruncate(fd, static_cast<off_t>(SharedMemory::kBytes)) != 0)
    throw std::runtime_error("no shared memory");
  return fd;
}

}  // namespace

SharedMemory::SharedMemory() : SharedMemory(make_shared_file()) {}

SharedMemory::SharedMemory(int inherited) : fd_(inherited) {
  void* const at = ::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0);
  if (at == MAP_FAILED) throw std::runtime_error("cannot map the shared memory");
  data_ = static_cast<std::byte*>(at);
}

SharedMemory::~SharedMemory() {
  ::munmap(data_, kBytes);
  ::close(fd_);
}

// Every process allocates the same things in the same order, so that they lie at the same places.
Board::Board(const BoardLayout& layout, std::pmr::memory_resource* memory)
    : layout_(layout),
      memory_(memory),
      state_in_(1, &memory_),
      state_(state_in_.data()),
      journal_(layout.actors, &memory_),
      shadow_(layout.shadow, journal_, &memory_) {}

void Board::await_calls(std::uint64_t calls) const noexcept {
  while (state_->calls.load(std::memory_order_relaxed) < std::min(calls, layout_.calls) &&
         !state_->failed.load(std::memory_order_relaxed))
    std::this_thread::sleep_for(std::chrono::microseconds(500));
}

BoardLayout& Board::layout_in(const SharedMemory& memory) noexcept {
  return *std::launder(reinterpret_cast<BoardLayout*>(memory.data()));
}

Board::Board(const SharedMemory& memory)
    : layout_(layout_in(memory)),
      memory_(memory.data() + kLayoutRoom, SharedMemory::kBytes - kLayoutRoom,
              std::pmr::null_memory_resource()),
      state_in_(1, &memory_),
      state_(state_in_.data()),
      journal_(layout_.actors, &memory_),
      shadow_(layout_.shadow, journal_, &memory_) {}

}  // namespace aprime::stress
