#include <memory>
#include <span>
#include <string>
#include <vector>

#include "host/device/staging.hpp"
#include "host/engine/directory.hpp"
#include "host/engine/view_gate.hpp"
#include "host/os/gate.hpp"

// The locks that the library has of its own, in all orders of their steps with a few delays. Nobody is woken
// by the time that a sleep may take at most: a wake-up that is lost is seen.

namespace aprime::explored {
namespace {

/// Who is where nobody else may be.
class Room {
 public:
  void enter(bool alone) {
    Explorer& explorer = Explorer::running();
    if (alone ? inside_ != 0 : is_taken_) explorer.fail("somebody is not alone");
    ++inside_;
    is_taken_ = alone;
    explorer.step();
  }
  void leave() {
    --inside_;
    is_taken_ = false;
  }

 private:
  unsigned inside_ = 0;
  bool is_taken_ = false;
};

/// All orders of these threads, and some at random, each of which enters and leaves what `Lock` is.
template <class Lock>
std::string explore(const std::vector<std::function<void(Lock&, Room&)>>& threads) {
  Explorer explorer;
  std::unique_ptr<Lock> lock;
  Room room;
  const Explorer::Setup setup = [&](Explorer& e) {
    lock = std::make_unique<Lock>();
    room = {};
    for (const auto& thread : threads) e.add_thread([&] { thread(*lock, room); });
  };
  const Explorer::Check check = [] { return std::string(); };
  const std::string failure = explorer.explore(3, setup, check).failure;
  return failure.empty() ? explorer.sample(20'000, 5, setup, check).failure : failure;
}

void share(os::Gate& gate, Room& room) {
  gate.lock_shared();
  room.enter(false);
  room.leave();
  gate.unlock_shared();
}
void have_alone(os::Gate& gate, Room& room) {
  gate.lock();
  room.enter(true);
  room.leave();
  gate.unlock();
}

TEST(GateModel, who_wants_it_alone_has_it_alone) {
  EXPECT_EQ(explore<os::Gate>({share, have_alone, share}), "");
  EXPECT_EQ(explore<os::Gate>({have_alone, have_alone, share}), "");
  EXPECT_EQ(explore<os::Gate>({have_alone, have_alone, have_alone}), "");
}

/// While one has it shared, another wants it alone, and sleeps: who comes then comes after him.
TEST(GateModel, newcomers_wait_for_him) {
  struct Watched : os::Gate {
    bool is_shared = false, has_been_alone = false;
  };
  const auto first = [](Watched& gate, Room& room) {
    gate.lock_shared();
    room.enter(false);
    gate.is_shared = true;
    Explorer::changed();
    for (int i = 0; i < 5; ++i) Explorer::running().sleep();
    room.leave();
    gate.unlock_shared();
  };
  const auto alone = [](Watched& gate, Room& room) {
    Explorer::running().wait_until([&] { return gate.is_shared; });
    gate.lock();
    room.enter(true);
    gate.has_been_alone = true;
    room.leave();
    gate.unlock();
  };
  const auto newcomer = [](Watched& gate, Room& room) {
    Explorer::running().wait_until(
        [&] { return gate.has_been_alone || Explorer::running().is_anybody_blocked(); });
    gate.lock_shared();
    room.enter(false);
    if (!gate.has_been_alone) Explorer::running().fail("a newcomer was let pass");
    room.leave();
    gate.unlock_shared();
  };
  EXPECT_EQ(explore<Watched>({first, alone, newcomer}), "");
}

TEST(ViewGateModel, is_closed_while_nobody_passes) {
  using Gate = engine::ViewGate;
  const auto pass = [](Gate& gate, Room& room) {
    const Gate::Pass passed(gate);
    room.enter(false);
    room.leave();
  };
  const auto close = [](Gate& gate, Room& room) {
    const Gate::Closed closed(gate);
    room.enter(true);
    room.leave();
  };
  EXPECT_EQ(explore<Gate>({pass, close, pass}), "");
  EXPECT_EQ(explore<Gate>({close, pass, close}), "");
}

TEST(StagingPoolModel, a_buffer_is_one_leases_and_who_waits_for_one_gets_it) {
  // Of which nobody uses a byte.
  const std::span<std::byte> memory(reinterpret_cast<std::byte*>(64), 2 * device::StagingPool::kBufferBytes);
  struct Two {
    explicit Two(std::span<std::byte> bytes) : pool(bytes, 2) {}
    device::StagingPool pool;
    Room rooms[2];
  };
  const auto lease = [&](Two& two) {
    const device::StagingPool::Lease leased = two.pool.lease();
    Room& room = two.rooms[leased.first_half().data() == memory.data() ? 0 : 1];
    room.enter(true);
    room.leave();
  };
  Explorer explorer;
  std::unique_ptr<Two> two;
  const Explorer::Setup setup = [&](Explorer& e) {
    two = std::make_unique<Two>(memory);
    for (int i = 0; i < 4; ++i) e.add_thread([&] { lease(*two); });
  };
  const Explorer::Check check = [] { return std::string(); };
  EXPECT_EQ(explorer.explore(3, setup, check).failure, "");
  EXPECT_EQ(explorer.sample(20'000, 5, setup, check).failure, "");
}

/// Threads that use granules of one directory, each of which is a room.
class DirectoryModel : public testing::Test {
 protected:
  using Directory = engine::Directory;

  /// Two that sleep in the same slot, by the directory's own hash.
  static constexpr GranuleIndex kFirst{1};
  static constexpr GranuleIndex kSecond{234};
  static_assert(kFirst.value * 0x9E3779B97F4A7C15u >> 56 == kSecond.value * 0x9E3779B97F4A7C15u >> 56);

  DirectoryModel() { directory_.reserve(GranuleCount{1024}); }

  std::string explore(const std::vector<std::function<void()>>& threads) {
    Explorer explorer;
    const Explorer::Setup setup = [&](Explorer& e) {
      rooms_[0] = rooms_[1] = {};
      for (const auto& thread : threads) e.add_thread(thread);
    };
    const Explorer::Check check = [&] {
      for (const GranuleIndex g : {kFirst, kSecond})
        if (directory_.load(g).busy() || directory_.load(g).pins() != 0) return "it is not let go";
      return "";
    };
    const std::string failure = explorer.explore(3, setup, check).failure;
    return failure.empty() ? explorer.sample(20'000, 5, setup, check).failure : failure;
  }

  Room& room(GranuleIndex g) { return rooms_[g == kFirst ? 0 : 1]; }
  void take(GranuleIndex g) {
    directory_.begin(g);
    room(g).enter(true);
  }
  void let_go(GranuleIndex g, bool pin = false) {
    room(g).leave();
    directory_.end(g, pin);
  }
  void use(GranuleIndex g) {
    take(g);
    let_go(g);
  }

  Directory directory_;
  Room rooms_[2];
};

TEST_F(DirectoryModel, a_granule_is_one_transactions_at_a_time) {
  const auto use_first = [&] { use(kFirst); };
  EXPECT_EQ(explore({use_first, use_first, use_first}), "");
}

TEST_F(DirectoryModel, runs_are_taken_in_ascending_order) {
  const auto use_both = [&] {
    take(kFirst);
    take(kSecond);
    let_go(kFirst);
    let_go(kSecond);
  };
  EXPECT_EQ(explore({use_both, use_both, [&] { use(kSecond); }}), "");
}

TEST_F(DirectoryModel, those_who_wait_for_two_granules_in_one_place_are_all_woken) {
  const auto use_first = [&] { use(kFirst); };
  const auto use_second = [&] { use(kSecond); };
  EXPECT_EQ(explore({use_first, use_second, use_first, use_second}), "");
}

TEST_F(DirectoryModel, pins_are_waited_for) {
  const auto lease = [&] {
    take(kFirst);
    let_go(kFirst, true);
    Explorer::running().step();
    directory_.unpin(kFirst);
  };
  const auto drain = [&] {
    take(kFirst);
    directory_.drain_pins(kFirst, [] { return true; });
    if (directory_.load(kFirst).pins() != 0) Explorer::running().fail("a pin is left");
    let_go(kFirst);
  };
  EXPECT_EQ(explore({lease, drain, lease}), "");
  EXPECT_EQ(explore({drain, lease, drain}), "");
}

TEST_F(DirectoryModel, who_does_not_wait_takes_it_free_and_unpinned) {
  const auto lease = [&] {
    take(kFirst);
    let_go(kFirst, true);
    directory_.unpin(kFirst);
  };
  const auto try_it = [&] {
    if (!directory_.try_begin(kFirst, true)) return;
    room(kFirst).enter(true);
    if (directory_.load(kFirst).pins() != 0) Explorer::running().fail("it is pinned");
    let_go(kFirst);
  };
  EXPECT_EQ(explore({lease, try_it, [&] { use(kFirst); }}), "");
}

}  // namespace
}  // namespace aprime::explored
