#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <ctime>
#include <filesystem>
#include <functional>
#include <thread>
#include <utility>
#include <vector>

#include "tests/contract/contract.hpp"

// What may be mapped, how, and what two mappings have to do with each other.

namespace aprime::contract {
namespace {

using MappingApi = Contract;
APRIME_CONTRACT_SUITE(MappingApi);

TEST_P(MappingApi, two_mappings_of_one_inode_share_a_directory) {
  World world(GetParam());
  const std::string path = world.file(pattern(8 * kGranule));
  const std::string link = world.path_for("link");
  std::filesystem::create_hard_link(path, link);
  const Mapping whole = world.map(path);
  const Mapping by_link = world.map(link, Access::read);
  const Mapping tail =
      world.runtime().map(path, Access::read_write, {.offset = ByteOffset{4 * kGranule}, .length = 2_KiB});
  ASSERT_EQ(tail.size_bytes().value, 2048);

  world.store_on_device(whole, granules(4), 0x31);
  EXPECT_EQ(report(tail, 0).place, Place::device);
  EXPECT_EQ(report(by_link, 4).place, Place::device);
  const Delta delta(world);
  EXPECT_EQ(world.seen_by_device(tail), constant(2048, 0x31)) << "the same copy";
  EXPECT_EQ(delta.get().granules_filled, 0);
  write_bytes(tail, 0, constant(10, 0x32));
  EXPECT_EQ(seen_by_pointer(by_link, range(4 * kGranule, 11)), with(constant(11, 0x31), 0, 10, 0x32));
  EXPECT_EQ(tail.host<const std::byte>()[9], std::byte{0x32});
  EXPECT_EQ(world.seen_by_device(by_link, range(4 * kGranule, 1)), constant(1, 0x32));
}

TEST_P(MappingApi, a_file_stays_coherent_when_one_of_its_mappings_ends) {
  World world(GetParam());
  const std::string path = world.file(pattern(2 * kGranule));
  Mapping first = world.map(path);
  const Mapping second = world.map(path);
  first.host<std::byte>();
  world.store_on_device(first, all_of(first), 0x31);
  first.close();
  EXPECT_EQ(report(second, 0).place, Place::device) << "only the last one brings the bytes home";
  EXPECT_EQ(seen_by_pointer(second, all_of(second)), constant(2 * kGranule, 0x31));
}

TEST_P(MappingApi, another_granule_for_a_mapped_file_is_refused) {
  World world(GetParam());
  const std::string path = world.file(pattern(8 * kGranule));
  const MapOptions coarse{.granule = ByteCount{4 * kGranule}};
  {
    const Mapping m = world.map(path);
    const Error error = error_of([&] { world.runtime().map(path, Access::read, coarse); });
    EXPECT_EQ(error.code(), Errc::conflict);
    EXPECT_EQ(error.path(), path);
    EXPECT_NE(std::string(error.what()).find(std::to_string(kGranule)), std::string::npos) << error.what();
  }
  EXPECT_EQ(world.runtime().map(path, Access::read, coarse).granule().value, 4 * kGranule)
      << "it is free again";
}

TEST_P(MappingApi, offset_and_granule_are_checked) {
  World world(GetParam());
  const std::string path = world.file(pattern(2 * kGranule));
  const auto map = [&](const MapOptions& options) {
    return [&world, &path, options] { world.runtime().map(path, Access::read, options); };
  };
  EXPECT_EQ(code_of(map({.offset = ByteOffset{kPage}})), Errc::invalid_argument)
      << "no multiple of the granule";
  EXPECT_EQ(code_of(map({.granule = ByteCount{12345}})), Errc::invalid_argument);
  EXPECT_EQ(error_of(map({.granule = ByteCount{12345}})).path(), path);
  EXPECT_EQ(code_of(map({.granule = 4_MiB})), Errc::invalid_argument);
  EXPECT_EQ(code_of(map({.granule = ByteCount{kGranule / 2}})), Errc::invalid_argument)
      << "smaller than a frame";
  EXPECT_EQ(code_of(map({.offset = ByteOffset{3 * kGranule}})), Errc::out_of_range);
  EXPECT_EQ(code_of(map({.length = ByteCount{2 * kGranule + 1}})), Errc::out_of_range);
  EXPECT_EQ(code_of(map({.length = ByteCount{~std::uint64_t{0}}})), Errc::out_of_range);
  EXPECT_NO_THROW(map({.offset = ByteOffset{2 * kGranule}})()) << "nothing, at the end";
}

TEST_P(MappingApi, what_cannot_be_mapped_is_named) {
  World world(GetParam());
  const auto code = [&](const std::string& path) {
    const Error error = error_of([&] { world.map(path, Access::read); });
    EXPECT_NE(std::string(error.what()).find(path), std::string::npos) << error.what();
    return error.code();
  };
  EXPECT_EQ(code(world.path_for("missing")), Errc::cannot_open);
  EXPECT_EQ(code(world.path_for("")), Errc::cannot_open) << "a directory";
  const std::string fifo = world.path_for("fifo");
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_EQ(code(fifo), Errc::cannot_open);
  EXPECT_EQ(code("/dev/null"), Errc::cannot_open);
}

TEST_P(MappingApi, runtime_options_are_checked) {
  const DeviceOptions device{.kind = GetParam().kind, .without_userfaultfd = GetParam().without_userfaultfd};
  const auto make = [](const RuntimeOptions& options) {
    return [options] { const Runtime runtime(options); };
  };
  EXPECT_EQ(code_of(make({.devices = {}})), Errc::invalid_argument);
  EXPECT_EQ(code_of(make({.devices = std::vector(15, device)})), Errc::invalid_argument);
  EXPECT_EQ(code_of(make({.devices = {device}, .granule = ByteCount{5000}})), Errc::invalid_argument);
  EXPECT_EQ(code_of(make({.devices = {device}, .dirty_age_max = std::chrono::milliseconds{-1}})),
            Errc::invalid_argument);
  DeviceOptions crowded = device;
  crowded.workers = 4097;
  const Error too_many = error_of(make({.devices = {crowded}}));
  EXPECT_EQ(too_many.code(), Errc::invalid_argument);
  EXPECT_EQ(std::string(too_many.what()), "DeviceOptions::workers: 4097 threads; at most 4096 are possible");
  DeviceOptions tiny = device;
  tiny.memory = ByteCount{kGranule};
  EXPECT_EQ(code_of(make({.devices = {tiny}})), Errc::invalid_argument);
  World world(GetParam());
  EXPECT_EQ(code_of([&] { world.runtime().stats(1); }), Errc::invalid_argument);
  const Mapping m = world.map_new(pattern(10));
  EXPECT_EQ(code_of([&] { world.store_on_device(m, all_of(m), 1, 99); }), Errc::invalid_argument);
  EXPECT_EQ(code_of([&] { m.prefetch(all_of(m), 1); }), Errc::invalid_argument);
}

TEST_P(MappingApi, a_granule_of_several_frames_moves_as_one) {
  World world(GetParam());
  const Bytes before = pattern(5 * 4 * kGranule + 77);
  const std::string path = world.file(before);
  const Mapping m = world.runtime().map(path, Access::read_write, {.granule = ByteCount{4 * kGranule}});
  const Delta delta(world);
  world.store_on_device(m, range(4 * kGranule + 1, 1), 0xab);
  EXPECT_EQ(delta.get().granules_filled, 1);
  EXPECT_EQ(delta.get().bytes_filled, 4 * kGranule);
  EXPECT_EQ(m.snapshot(all_of(m)).size(), 6);
  EXPECT_EQ(world.seen_by_device(m), with(before, 4 * kGranule + 1, 1, 0xab));
  m.sync();
  EXPECT_EQ(plain_read(path), with(before, 4 * kGranule + 1, 1, 0xab));
}

TEST_P(MappingApi, a_file_mapped_for_reading_can_be_mapped_for_writing_later) {
  World world(GetParam());
  const std::string path = world.file(pattern(2 * kGranule));
  Mapping reader = world.map(path, Access::read);
  const auto host = reader.host<const std::byte>();
  world.touch_on_device(reader, all_of(reader));
  const Mapping writer = world.map(path);
  world.store_on_device(writer, granules(1), 0x41);
  EXPECT_EQ(host[kGranule], std::byte{0x41});
  writer.host<std::byte>()[0] = std::byte{0x42};
  EXPECT_EQ(host[0], std::byte{0x42});
  EXPECT_EQ(code_of([&] { reader.resize(1_KiB); }), Errc::access_denied);
  EXPECT_EQ(code_of([&] { reader.discard(all_of(reader)); }), Errc::access_denied);
  EXPECT_EQ(code_of([&] { reader.prefetch(all_of(reader), 0, Right::read_write); }), Errc::access_denied);
}

TEST_P(MappingApi, prefetch_and_prefetch_home_save_the_faults) {
  World world(GetParam());
  const Mapping m = world.map_new(pattern(8 * kGranule));
  const auto host = m.host<const std::byte>();
  m.prefetch(granules(0, 4), 0);
  m.prefetch(granules(4, 4), 0, Right::read_write);
  Delta delta(world);
  EXPECT_EQ(report(m, 3).place, Place::shared);
  EXPECT_EQ(report(m, 4).place, Place::device);
  EXPECT_EQ(world.seen_by_device(m), pattern(8 * kGranule));
  world.increment_on_device(m, granules(4, 4));
  EXPECT_EQ(delta.get().granules_filled, 0);
  EXPECT_EQ(delta.get().faults.device_read + delta.get().faults.device_write, 0);

  m.prefetch_home(all_of(m));
  EXPECT_EQ(report(m, 4).place, Place::shared);
  delta = Delta(world);
  EXPECT_EQ(Bytes(host.begin() + 4 * kGranule, host.end()),
            incremented(part(pattern(8 * kGranule), 4 * kGranule, 4 * kGranule)));
  EXPECT_EQ(delta.get().faults.host_read, 0);
}

TEST_P(MappingApi, advice_changes_no_result) {
  World world(GetParam());
  for (const Advice advice :
       {Advice::sequential, Advice::random, Advice::will_need, Advice::dont_need, Advice::normal}) {
    const Mapping m = world.map_new(pattern(64 * kGranule));
    m.advise(all_of(m), advice);
    EXPECT_EQ(world.seen_by_device(m), pattern(64 * kGranule));
    world.increment_on_device(m, all_of(m));
    m.advise(granules(3, 3), advice);
    EXPECT_EQ(seen_by_pointer(m, all_of(m)), incremented(pattern(64 * kGranule)));
  }
}

TEST_P(MappingApi, sequential_advice_batches_faults) {
  World world(GetParam());
  const Mapping random = world.map_new(pattern(32 * kGranule));
  random.advise(all_of(random), Advice::random);
  Delta delta(world);
  world.touch_on_device(random, all_of(random));
  EXPECT_EQ(delta.get().faults.device_read, world.faults(32));
  EXPECT_EQ(delta.get().granules_filled, 32);

  const Mapping sequential = world.map_new(pattern(32 * kGranule));
  sequential.advise(all_of(sequential), Advice::sequential);
  delta = Delta(world);
  world.touch_on_device(sequential, all_of(sequential));
  EXPECT_LE(delta.get().faults.device_read, world.faults(2));
  EXPECT_EQ(delta.get().granules_filled, 32);
}

TEST_P(MappingApi, an_enormous_sparse_file_costs_what_is_used_of_it) {
  World world(GetParam());
#ifdef __SANITIZE_THREAD__
  // ThreadSanitizer leaves less than 2 TiB of addresses.
  constexpr std::uint64_t kEnormous = std::uint64_t{1} << 36;
#else
  constexpr std::uint64_t kEnormous = std::uint64_t{1} << 40;
#endif
  const std::string path = world.sparse_file(kEnormous);
  const std::clock_t start = std::clock();
  const Mapping m = world.map(path);
  const auto host = m.host<std::byte>();
  world.store_on_device(m, range(kEnormous - 5, 5), 0x51);
  host[kEnormous / 2] = std::byte{0x52};
  EXPECT_EQ(host[kEnormous - 1], std::byte{0x51});
  EXPECT_EQ(world.seen_by_device(m, range(kEnormous / 2, 2)), with(Bytes(2), 0, 1, 0x52));
  m.sync();
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
  constexpr std::clock_t kMost = 5 * CLOCKS_PER_SEC;
#else
  constexpr std::clock_t kMost = CLOCKS_PER_SEC / 2;
#endif
  EXPECT_LT(std::clock() - start, kMost) << "of processor time, whatever else the machine does";
  EXPECT_EQ(plain_read(path, kEnormous - 6, 6), with(constant(6, 0x51), 0, 1, 0));
}

TEST_P(MappingApi, a_mapping_is_a_handle_that_moves) {
  World world(GetParam());
  const std::string path = world.file(pattern(kGranule));
  Mapping a = world.map(path);
  Mapping b = std::move(a);
  world.store_on_device(b, all_of(b), 0x61);
  a = std::move(b);
  EXPECT_EQ(a.size<std::uint32_t>(), kGranule / 4);
  EXPECT_EQ(a.path(), path);
  a = world.map_new(pattern(10));
  EXPECT_EQ(plain_read(path), constant(kGranule, 0x61)) << "what was assigned over has ended";
  a.close();
  EXPECT_NO_THROW(a.close()) << "it has ended already";
}

TEST_P(MappingApi, ranges_are_checked_by_every_call) {
  World world(GetParam());
  const Mapping m = world.map_new(pattern(kGranule));
  for (const ByteRange bad : {range(0, kGranule + 1), range(kGranule + 1, 0), range(1, ~std::uint64_t{0})}) {
    EXPECT_EQ(code_of([&] { m.sync(bad); }), Errc::out_of_range);
    EXPECT_EQ(code_of([&] { m.advise(bad, Advice::random); }), Errc::out_of_range);
    EXPECT_EQ(code_of([&] { m.prefetch(bad, 0); }), Errc::out_of_range);
    EXPECT_EQ(code_of([&] { m.prefetch_home(bad); }), Errc::out_of_range);
    EXPECT_EQ(code_of([&] { m.discard(bad); }), Errc::out_of_range);
    EXPECT_EQ(code_of([&] { m.snapshot(bad); }), Errc::out_of_range);
    EXPECT_EQ(code_of([&] { m.host_lease(bad, Right::read); }), Errc::out_of_range);
    EXPECT_EQ(code_of([&] { world.store_on_device(m, bad, 1); }), Errc::out_of_range);
  }
  alignas(4096) static std::array<std::byte, kPage> buffer;
  EXPECT_EQ(code_of([&] { m.read_direct(ByteOffset{1}, buffer); }), Errc::invalid_argument);
  EXPECT_EQ(code_of([&] { m.write_direct(ByteOffset{0}, std::span(buffer).first(7)); }),
            Errc::invalid_argument);
}

TEST_P(MappingApi, an_error_says_where_in_the_file) {
  World world(GetParam());
  const std::string path = world.file(pattern(8 * kGranule));
  const Mapping m = world.runtime().map(path, Access::read_write, {.offset = ByteOffset{4 * kGranule}});
  const auto place_of_error = [&](ByteRange r) { return error_of([&] { read_bytes(m, r); }).offset().value; };
  EXPECT_EQ(place_of_error(range(2 * kGranule, 3 * kGranule)), 6 * kGranule) << "more than is mapped";
  plain_truncate(path, 5 * kGranule);
  EXPECT_EQ(place_of_error(range(0, 2 * kGranule)), 5 * kGranule) << "where the file ends";
  EXPECT_EQ(place_of_error(range(2 * kGranule + 7, 1)), 6 * kGranule + 7) << "beyond the end";
}

TEST_P(MappingApi, one_without_a_file_is_refused_by_every_call) {
  World world(GetParam());
  Mapping m = world.map_new(pattern(kGranule));
  m.close();
  EXPECT_EQ(m.size_bytes(), ByteCount{0});
  for (const auto& call : std::vector<std::function<void()>>{
           [&] { m.sync(); },
           [&] { m.advise({}, Advice::random); },
           [&] { m.prefetch({}, 0); },
           [&] { m.discard({}); },
           [&] { m.snapshot({}); },
           [&] { m.resize(ByteCount{1}); },
           [&] { static_cast<void>(m.host<std::byte>()); },
           [&] { m.host_lease({}, Right::read); },
           [&] { m.read(ByteOffset{0}, {}); },
           [&] {
             world.runtime().launch({{1}, {1}}, IncrementBytes{}, aprime::read_write(m));
           },
       })
    EXPECT_EQ(code_of(call), Errc::invalid_argument);
}

TEST_P(MappingApi, one_of_another_runtime_is_refused_by_a_launch) {
  World world(GetParam());
  World other(GetParam());
  const std::string path = other.file(pattern(kGranule));
  const Mapping m = other.map(path);
  const Error refused = error_of([&] {
    world.runtime().launch({{1}, {1}}, IncrementBytes{}, aprime::read_write(m)).wait();
  });
  EXPECT_EQ(refused.code(), Errc::invalid_argument);
  EXPECT_EQ(refused.path(), path);
  EXPECT_EQ(read_bytes(m), pattern(kGranule));
}

TEST_P(MappingApi, a_launch_beside_a_close_has_the_file_or_is_refused) {
  World world(GetParam());
  const std::string path = world.file(constant(kGranule, 0));
  Bytes expected = constant(kGranule, 0);
  for (int n = 0; n < 3000; ++n) {
    Mapping m = world.map(path);
    const auto argument = aprime::read_write(m);
    std::thread launching([&] {
      try {
        world.runtime().launch({{1}, {64}}, IncrementBytes{}, argument).wait();
        expected = incremented(expected);
      } catch (const Error& e) {
        EXPECT_EQ(e.code(), Errc::invalid_argument) << e.what();
      }
    });
    for (int i = 0; i < n % 16; ++i) std::this_thread::yield();
    m.close();
    launching.join();
    ASSERT_EQ(plain_read(path), expected) << n;
  }
}

TEST_P(MappingApi, a_host_lease_keeps_its_bytes_from_devices_after_its_mapping_was_closed) {
  World world(GetParam());
  const std::string path = world.file(constant(2 * kGranule, 1));
  Mapping m = world.map(path);
  HostLease lease = m.host_lease(granules(0), Right::read_write);
  world.store_on_device(m, granules(1), 2);
  m.close();
  const Mapping again = world.map(path);
  const Completion launch =
      world.runtime().launch({{1}, {64}}, IncrementBytes{}, aprime::read_write(again, granules(0)));
  std::this_thread::sleep_for(std::chrono::milliseconds{50});
  EXPECT_FALSE(launch.done());
  std::fill(lease.bytes().begin(), lease.bytes().end(), std::byte{5});
  lease = {};
  launch.wait();
  EXPECT_EQ(read_bytes(again), with(constant(2 * kGranule, 6), kGranule, kGranule, 2));
}

TEST_P(MappingApi, a_file_that_others_cut_and_grow_is_mapped_meanwhile) {
  World world(GetParam(), {.granule = ByteCount{kPage}});
  constexpr std::uint64_t kLarge = std::uint64_t{1} << 30;
  const std::string path = world.sparse_file(kLarge);
  std::atomic<bool> is_over{false};
  std::thread other([&] {
    while (!is_over) {
      plain_truncate(path, kPage);
      plain_truncate(path, kLarge);
    }
  });
  for (int n = 0; n < 3000; ++n) {
    const Mapping m = world.map(path, Access::read);
    const ByteRange last{ByteOffset{m.size_bytes().value - 1}, ByteCount{1}};
    EXPECT_EQ(m.snapshot(last).size(), 1U);
  }
  is_over = true;
  other.join();
}

}  // namespace
}  // namespace aprime::contract
