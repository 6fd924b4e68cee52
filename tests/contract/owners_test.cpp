#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <mutex>
#include <random>
#include <thread>

#include "tests/contract/contract.hpp"
#include "tests/contract/owner_kernels.hpp"
#include "tests/test_scale.hpp"

// Everybody at once, in every way there is to reach a byte, on device memory that holds a part of the file.
// Each word knows by itself whether it is right, so that kernels can tell, too.

namespace aprime::contract {
namespace {

using Owners = Contract;
APRIME_CONTRACT_SUITE(Owners);

constexpr std::uint64_t kGranules = 40;
constexpr std::uint64_t kWords = kGranule / sizeof(std::uint64_t);

/// What the owners share.
class Scene {
 public:
  explicit Scene(World& world)
      : world_(world), mapping_(world.map(world.sparse_file(kGranules * kGranule))) {}

  World& world() { return world_; }
  const Mapping& mapping() const { return mapping_; }
  bool goes_on(int steps) const { return problem().empty() && steps < test::scaled(32); }
  void complain(const std::string& what) {
    const std::lock_guard lock(mutex_);
    if (problem_.empty()) problem_ = what;
  }
  std::string problem() const {
    const std::lock_guard lock(mutex_);
    return problem_;
  }

 private:
  World& world_;
  const Mapping mapping_;
  mutable std::mutex mutex_;
  std::string problem_;
};

/// Visits granules at random, one at a time, in one way.
class Owner {
 public:
  Owner(Scene& scene, unsigned number, unsigned seed)
      : scene_(scene),
        number_(number),
        random_(seed),
        wrong_(scene.world().map(scene.world().sparse_file(kGranule))) {}

  void run() {
    try {
      for (int steps = 0; scene_.goes_on(steps); ++steps) {
        const std::uint64_t granule = std::uniform_int_distribution<std::uint64_t>(0, kGranules - 1)(random_);
        const OwnerVisit visit{number_, rounds_[granule], rounds_[granule] + 1, granule * kWords};
        go(visit, range(granule * kGranule, kGranule));
        rounds_[granule] = visit.now;
      }
    } catch (const std::exception& error) {
      complain(error.what());
    }
  }
  /// The round of the last stores to the granule.
  std::uint32_t round(std::uint64_t granule) const { return rounds_[granule]; }

 private:
  void go(const OwnerVisit& visit, ByteRange where) {
    switch (number_) {
      case 0:
      case 1: return by_pointer(visit);
      case 2: return by_calls(visit, where, HostAccess::migrate);
      case 3: return by_calls(visit, where, HostAccess::bounce);
      default: return by_kernel(visit, where, number_ % 2, number_ < 6);
    }
  }

  void by_pointer(const OwnerVisit& visit) {
    const std::span<std::uint64_t> words = scene_.mapping().host<std::uint64_t>();
    for (std::uint64_t i = 0; i < kWords; ++i) {
      const std::atomic_ref<std::uint64_t> at(words[visit.first + i]);
      look(visit, visit.first + i, at.load(std::memory_order_relaxed));
      if (visit.is_mine(visit.first + i))
        at.store(owned_word(visit.first + i, visit.now), std::memory_order_relaxed);
    }
  }
  void by_calls(const OwnerVisit& visit, ByteRange where, HostAccess how) {
    std::vector<std::uint64_t> words(kWords);
    scene_.mapping().read(where.first, std::as_writable_bytes(std::span(words)), how);
    for (std::uint64_t i = 0; i < kWords; ++i) {
      const std::uint64_t word = visit.first + i;
      look(visit, word, words[i]);
      if (!visit.is_mine(word)) continue;
      const std::uint64_t value = owned_word(word, visit.now);
      scene_.mapping().write(ByteOffset{word * sizeof value}, std::as_bytes(std::span(&value, 1)), how);
    }
  }
  void by_kernel(const OwnerVisit& visit, ByteRange where, unsigned device, bool leased) {
    const LaunchOptions options{.device = device, .name = "owner"};
    const Grid grid{{2}, {32}};
    Runtime& runtime = scene_.world().runtime();
    const Mapping& m = scene_.mapping();
    if (leased)
      runtime.launch(grid, options, VisitLeased{visit}, read_write(m, where), read_write(wrong_)).wait();
    else
      runtime.launch(grid, options, VisitOnDemand{visit}, demand_read_write(m, where), read_write(wrong_))
          .wait();
    std::array<unsigned long long, 2> wrong{};
    wrong_.read(ByteOffset{0}, std::as_writable_bytes(std::span(wrong)), HostAccess::bounce);
    if (wrong[0] != 0)
      complain("its kernel found " + std::to_string(wrong[0]) + " wrong words, one of them " +
               std::to_string(wrong[1] - 1));
  }

  void look(const OwnerVisit& visit, std::uint64_t word, std::uint64_t value) {
    if (!visit.is_right(word, value))
      complain("word " + std::to_string(word) + " is " + std::to_string(value) + " after round " +
               std::to_string(visit.before));
  }
  void complain(const std::string& what) {
    scene_.complain("owner " + std::to_string(number_) + ": " + what);
  }

  Scene& scene_;
  const unsigned number_;
  std::minstd_rand random_;
  const Mapping wrong_;
  std::array<std::uint32_t, kGranules> rounds_{};
};

TEST_P(Owners, see_their_own_words_as_they_left_them_and_no_torn_ones) {
  World world(GetParam(), {.devices = 2,
                           .device_memory = ByteCount{24 * kGranule},
                           .dirty_age_max = std::chrono::milliseconds(5)});
  Scene scene(world);
  const unsigned seed = std::random_device{}();
  std::vector<std::unique_ptr<Owner>> owners;
  for (unsigned o = 0; o < kOwners; ++o) owners.push_back(std::make_unique<Owner>(scene, o, seed + o));
  std::vector<std::thread> threads;
  for (const auto& owner : owners) threads.emplace_back([&owner] { owner->run(); });
  for (std::thread& thread : threads) thread.join();
  ASSERT_EQ(scene.problem(), "");

  scene.mapping().sync();
  const Bytes bytes = plain_read(scene.mapping().path());
  const auto* const words = reinterpret_cast<const std::uint64_t*>(bytes.data());
  for (std::uint64_t word = 0; word < kGranules * kWords; ++word)
    ASSERT_EQ(words[word], owned_word(word, owners[word % kOwners]->round(word / kWords))) << word;
}

/// A word that its owner did not store is noticed.
TEST_P(Owners, notice_a_wrong_word) {
  World world(GetParam(), {.devices = 2});
  const Mapping m = world.map_new(Bytes(kGranule));
  const Mapping wrong = world.map_new(Bytes(kGranule));
  const auto visit = [&](unsigned owner, std::uint32_t before) {
    world.runtime()
        .launch({{2}, {32}}, VisitLeased{{owner, before, before + 1, 0}}, read_write(m), read_write(wrong))
        .wait();
    return wrong.host<const unsigned long long>()[0];
  };
  EXPECT_EQ(visit(3, 0), 0U);
  EXPECT_EQ(visit(4, 0), 0U);
  m.host<std::uint64_t>()[3] += 1ULL << 40;
  EXPECT_EQ(visit(4, 1), 1U) << "no round of anybody's";
  EXPECT_EQ(wrong.host<const unsigned long long>()[1], 4U);
  m.host<std::uint64_t>()[11] = owned_word(11, 0);
  EXPECT_EQ(visit(3, 1), 3U) << "neither that nor a store that was lost";
}

}  // namespace
}  // namespace aprime::contract
