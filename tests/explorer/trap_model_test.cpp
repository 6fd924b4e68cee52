#include <signal.h>
#include <ucontext.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "host/os/signal_chain.hpp"
#include "host/os/trap.hpp"

// Who is asked to serve a trap, while others register and go, in all orders of their steps with a few delays.

namespace aprime::os {
namespace {

void (*fault_handler)(int, siginfo_t*, void*) = nullptr;

}  // namespace

void install_fault_handler(void (*handler)(int, siginfo_t*, void*)) { fault_handler = handler; }
/// Notes it where it came from.
void forward_signal(int, siginfo_t* info, void*) noexcept { info->si_code = 0; }

}  // namespace aprime::os

namespace aprime::explored {
namespace {

/// An address range, and whether somebody may be asked for it.
class Target final : public os::TrapTarget {
 public:
  explicit Target(std::uintptr_t begin) : begin_(reinterpret_cast<std::byte*>(begin)) {}

  void add() { registration_ = os::TrapRegistration(begin_, kBytes, *this); }
  void remove() {
    { const os::TrapRegistration gone = std::move(registration_); }
    registration_ = {};
    is_gone_ = true;
  }
  Answer on_trap(const os::Trap& trap) noexcept override {
    if (is_gone_) Explorer::running().fail("a target that is gone is asked");
    if (trap.address != begin_) Explorer::running().fail("the wrong target is asked");
    Explorer::running().step();
    if (is_gone_) Explorer::running().fail("a target went while it was asked");
    return Answer::resolved;
  }
  /// What the processor does. Whether a target was found.
  bool trap() const {
    siginfo_t info{};
    info.si_addr = begin_;
    info.si_code = SEGV_ACCERR;
    ucontext_t context{};
    os::fault_handler(SIGSEGV, &info, &context);
    return info.si_code != 0;
  }

 private:
  static constexpr std::size_t kBytes = 4096;
  std::byte* const begin_;
  os::TrapRegistration registration_;
  bool is_gone_ = false;
};

/// One target is registered all the time, two others come and go.
class TrapModel : public testing::Test {
 protected:
  TrapModel() { stays_.add(); }
  ~TrapModel() override { stays_.remove(); }

  std::string explore(const std::vector<std::function<void()>>& threads) {
    Explorer explorer;
    const Explorer::Setup setup = [&](Explorer& e) {
      comes_ = std::make_unique<Target>(0x20000);
      other_ = std::make_unique<Target>(0x40000);
      for (const auto& thread : threads) e.add_thread(thread);
    };
    const Explorer::Check check = [] { return std::string(); };
    const std::string failure = explorer.explore(2, setup, check).failure;
    return failure.empty() ? explorer.sample(20'000, 5, setup, check).failure : failure;
  }

  Target stays_{0x30000};
  std::unique_ptr<Target> comes_, other_;
  const std::function<void()> come_and_go_ = [this] { comes_->add(), comes_->remove(); };
  const std::function<void()> other_comes_and_goes_ = [this] { other_->add(), other_->remove(); };
  const std::function<void()> touch_what_stays_ = [this] {
    if (!stays_.trap()) Explorer::running().fail("a registered target is not found");
  };
  const std::function<void()> touch_what_comes_ = [this] { comes_->trap(); };
};

TEST_F(TrapModel, what_is_registered_is_found_while_others_come_and_go) {
  EXPECT_EQ(explore({touch_what_stays_, come_and_go_, touch_what_stays_}), "");
  EXPECT_EQ(explore({touch_what_stays_, come_and_go_, other_comes_and_goes_}), "");
}

TEST_F(TrapModel, who_goes_is_not_asked_any_more) {
  EXPECT_EQ(explore({touch_what_comes_, come_and_go_, touch_what_comes_}), "");
  EXPECT_EQ(explore({touch_what_comes_, come_and_go_, other_comes_and_goes_, touch_what_stays_}), "");
}

}  // namespace
}  // namespace aprime::explored
