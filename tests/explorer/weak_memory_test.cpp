#include "tests/explorer/weak_memory.hpp"

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "tests/explorer/explorer.hpp"

// The usual small programs, of which it is known what each may show (Alglave, Maranget, Tautschnig: "Herding
// cats", TOPLAS 2014).

namespace aprime::explored {
namespace {

using Threads = std::vector<std::function<void()>>;

/// Two words, and what was loaded.
struct Words {
  std::uint64_t x, y;
  std::uint64_t first, second;
};

WeakMemory& memory() {
  Explorer::running().step();
  return Explorer::running().memory();
}

/// What is wrong in some run, if anything is; `is_forbidden` says it of a run that has ended.
std::string find(Words& words, const Threads& threads, const std::function<bool()>& is_forbidden) {
  Explorer explorer;
  const Explorer::Setup setup = [&](Explorer& e) {
    words = {0, 0, 9, 9};
    e.memory().track("words", std::as_bytes(std::span(&words, 1)).first(2 * sizeof(std::uint64_t)));
    for (const auto& thread : threads) e.add_thread(thread);
  };
  return explorer.sample(5'000, 2, setup, [&] { return std::string(is_forbidden() ? "it was seen" : ""); })
      .failure;
}
bool is_seen(Words& words, const Threads& threads, const std::function<bool()>& is_forbidden) {
  return find(words, threads, is_forbidden).starts_with("it was seen");
}

/// One stores data and then a flag; another sees the flag, and loads the data.
bool passes_old_data(Order stores, Order loads, bool has_fence) {
  Words w{};
  return is_seen(w,
                 {[&] {
                    memory().store(w.x, std::uint64_t{1}, Order::relaxed);
                    memory().store(w.y, std::uint64_t{1}, stores);
                  },
                  [&] {
                    w.first = memory().load(w.y, loads);
                    if (has_fence) memory().acquire_fence();
                    w.second = memory().load(w.x, Order::relaxed);
                  }},
                 [&] { return w.first == 1 && w.second == 0; });
}

TEST(WeakMemory, data_behind_a_flag_are_there_if_both_sides_order_it) {
  EXPECT_TRUE(passes_old_data(Order::relaxed, Order::relaxed, false));
  EXPECT_TRUE(passes_old_data(Order::release, Order::relaxed, false));
  EXPECT_TRUE(passes_old_data(Order::relaxed, Order::acquire, false));
  EXPECT_TRUE(passes_old_data(Order::relaxed, Order::relaxed, true));
  EXPECT_FALSE(passes_old_data(Order::release, Order::acquire, false));
  EXPECT_FALSE(passes_old_data(Order::release, Order::relaxed, true));
}

/// Each stores to one word and loads the other.
bool both_miss(Order how) {
  Words w{};
  return is_seen(w,
                 {[&] {
                    memory().store(w.x, std::uint64_t{1}, how);
                    w.first = memory().load(w.y, how);
                  },
                  [&] {
                    memory().store(w.y, std::uint64_t{1}, how);
                    w.second = memory().load(w.x, how);
                  }},
                 [&] { return w.first == 0 && w.second == 0; });
}

TEST(WeakMemory, of_two_who_store_and_look_both_may_miss_the_other_unless_all_agree_on_an_order) {
  EXPECT_TRUE(both_miss(Order::relaxed));
  EXPECT_FALSE(both_miss(Order::seq_cst));
}

TEST(WeakMemory, nobody_sees_a_word_go_back) {
  Words w{};
  EXPECT_FALSE(is_seen(w,
                       {[&] {
                          memory().store(w.x, std::uint64_t{1}, Order::relaxed);
                          memory().store(w.x, std::uint64_t{2}, Order::relaxed);
                        },
                        [&] {
                          w.first = memory().load(w.x, Order::relaxed);
                          w.second = memory().load(w.x, Order::relaxed);
                        }},
                       [&] { return w.second < w.first; }));
}

/// What one has seen, another sees that it tells of it.
TEST(WeakMemory, what_was_seen_is_passed_on_with_a_release) {
  Words w{};
  const auto is_lost = [&](Order loads) {
    return is_seen(w,
                   {[&] { memory().store(w.x, std::uint64_t{1}, Order::relaxed); },
                    [&] {
                      w.first = memory().load(w.x, Order::relaxed);
                      if (w.first == 1) memory().store(w.y, std::uint64_t{1}, Order::release);
                    },
                    [&] {
                      if (memory().load(w.y, loads) == 1) w.second = memory().load(w.x, Order::relaxed);
                    }},
                   [&] { return w.second == 0; });
  };
  EXPECT_TRUE(is_lost(Order::relaxed));
  EXPECT_FALSE(is_lost(Order::acquire));
}

TEST(WeakMemory, an_exchange_sees_the_newest_and_carries_on_a_release) {
  Words w{};
  const auto add = [](std::uint64_t before) { return before + 1; };
  EXPECT_FALSE(is_seen(w,
                       {[&] {
                          memory().store(w.x, std::uint64_t{1}, Order::relaxed);
                          memory().change(w.y, Order::release, add);
                        },
                        [&] { memory().change(w.y, Order::relaxed, add); },
                        [&] {
                          w.first = memory().load(w.y, Order::acquire);
                          w.second = memory().load(w.x, Order::relaxed);
                        }},
                       [&] { return w.y != 2 || (w.first == 2 && w.second == 0); }));
}

TEST(WeakMemory, plain_accesses_have_to_be_ordered) {
  Words w{};
  const auto race = [&](Order stores, Order loads) {
    return find(w,
                {[&] {
                   memory().write(&w.x, sizeof w.x);
                   memory().store(w.y, std::uint64_t{1}, stores);
                 },
                 [&] {
                   if (memory().load(w.y, loads) == 1) memory().read(&w.x, sizeof w.x);
                 }},
                [] { return false; });
  };
  EXPECT_EQ(race(Order::release, Order::acquire), "");
  EXPECT_TRUE(race(Order::relaxed, Order::acquire)
                  .starts_with("a plain load and a plain store are not ordered, of words byte 0"));
  EXPECT_NE(race(Order::release, Order::relaxed), "");
}

/// Or who waits for a flag would wait for ever.
TEST(WeakMemory, who_sleeps_sees_what_was_stored_before) {
  Words w{};
  EXPECT_EQ(find(w,
                 {[&] { memory().store(w.x, std::uint64_t{1}, Order::relaxed); },
                  [&] {
                    while (memory().load(w.x, Order::relaxed) == 0) Explorer::running().sleep();
                  }},
                 [] { return false; }),
            "");
}

}  // namespace
}  // namespace aprime::explored
