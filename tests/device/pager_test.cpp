#include "aprime/detail/pager.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "host/device/executor.hpp"

// The pager kernel, without a device and without its host's side.

namespace aprime::device {
namespace {

/// What the pager uses of a PagingPort.
struct PagerWords {
  std::vector<detail::PagingCommand> commands{detail::kPagingCommands};
  std::uint64_t leave = 0, next_command = 0, waiting = 0, pagers = 0, copiers = 0, listed = 0, promised = 0;
  detail::PagingPort port{};

  PagerWords() {
    port.commands = commands.data();
    port.pager_leave = &leave;
    port.next_command = &next_command;
    port.waiting = &waiting;
    port.pagers = &pagers;
    port.copiers = &copiers;
    port.pieces_listed = &listed;
    port.pieces_promised = &promised;
  }
};

/// The next session's page table is another: a command that is left over would be executed on what is freed.
TEST(Pager, leaves_no_command_behind) {
  Executor processor(1);
  for (int round = 0; round < 300; ++round) {
    PagerWords words;
    std::uint64_t entry = 0;
    const std::atomic_ref<std::uint64_t> pagers(words.pagers);
    std::thread kernel([&] {
      const detail::PagingPort* port = &words.port;
      const auto run = [](const void* closure, detail::ThreadCursor& cursor) {
        while (cursor.next()) detail::PagerKernel{}(*static_cast<const detail::PagingPort* const*>(closure));
      };
      EXPECT_TRUE(processor.run({&port, run, "pager"}, Grid{{1}, {4}}).completed());
    });
    while (pagers.load() == 0) std::this_thread::yield();
    words.commands[0].entry = &entry;
    words.commands[0].value = detail::PageEntry::kRead;
    std::atomic_ref<std::uint64_t>(words.commands[0].ready).store(1, std::memory_order_release);
    std::atomic_ref<std::uint64_t>(words.leave).store(1, std::memory_order_release);
    kernel.join();
    ASSERT_EQ(entry, detail::PageEntry::kRead) << "in round " << round;
  }
}

}  // namespace
}  // namespace aprime::device
