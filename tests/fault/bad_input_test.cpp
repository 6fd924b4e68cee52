// What the library is given may be wrong, or go wrong under its hands: each time it says what, where and what
// to do.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "host/os/file.hpp"
#include "host/os/memory.hpp"
#include "host/os/syscalls.hpp"
#include "tests/contract/contract.hpp"
#include "tests/contract/kernels.hpp"

namespace aprime::fault {
namespace {

using namespace contract;
using os::sys::Call;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

class BadInput : public testing::TestWithParam<Personality> {
 protected:
  RuntimeOptions options(ByteCount memory = 4_MiB) const {
    return {.devices = {{.kind = GetParam().kind,
                         .memory = memory,
                         .workers = 1,
                         .without_userfaultfd = GetParam().without_userfaultfd}},
            .granule = ByteCount{kGranule},
            .dirty_age_max = std::chrono::milliseconds(0)};
  }
};
APRIME_CONTRACT_SUITE(BadInput);

// Files that cannot be mapped.

/// Files of sysfs have bytes but no pages: mmap is refused with ENODEV.
TEST_P(BadInput, a_file_that_cannot_be_mapped_is_read_all_the_same_but_has_no_pointer) {
  const std::string path = "/sys/kernel/mm/transparent_hugepage/enabled";
  World world(GetParam());
  const Mapping m = world.map(path, Access::read);
  ASSERT_GT(m.size_bytes().value, 0U);
  const Error error = error_of([&] { static_cast<void>(m.host<const std::byte>()); });
  EXPECT_EQ(error.code(), Errc::cannot_open);
  EXPECT_EQ(error.system_error(), ENODEV);
  EXPECT_EQ(error.path(), path);
  EXPECT_THAT(error.what(), AllOf(HasSubstr(path), HasSubstr("cannot map files"), HasSubstr("copy it")));

  std::string expected;
  std::getline(std::ifstream(path), expected);
  const Bytes seen = read_bytes(m, range(0, expected.size()));
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(seen.data()), seen.size()), expected);
  EXPECT_EQ(world.seen_by_device(m, range(0, expected.size())), seen);
}

/// Its pages are stored to by mmap only: bytes of a device could never be written home.
TEST_P(BadInput, a_file_of_huge_pages_is_refused_for_writing) {
  const os::Descriptor file(::memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB));
  if (!file) return;  // this kernel has none
  ASSERT_EQ(::ftruncate(file.get(), 2 << 20), 0);
  const std::string path = "/proc/self/fd/" + std::to_string(file.get());
  World world(GetParam());
  const Mapping reader = world.map(path, Access::read);
  const Error error = error_of([&] { world.map(path); });
  EXPECT_EQ(error.code(), Errc::cannot_open);
  EXPECT_EQ(error.path(), path);
  EXPECT_THAT(error.what(), AllOf(HasSubstr(path), HasSubstr("hugetlbfs"), HasSubstr("open it read-only")));
}

// Rights.

/// Runs `action` as an ordinary user in a child, which prints the error and exits with its code.
void as_ordinary_user(const std::function<void()>& action) {
  if (::geteuid() == 0 && (::setgid(65534) != 0 || ::setuid(65534) != 0)) std::_Exit(100);
  try {
    action();
  } catch (const Error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    std::_Exit(static_cast<int>(e.code()));
  }
  std::_Exit(101);
}

testing::ExitedWithCode exits_with(Errc code) { return testing::ExitedWithCode(static_cast<int>(code)); }

class Rights : public BadInput {
 protected:
  void SetUp() override {
    GTEST_FLAG_SET(death_test_style, "fast");
    directory_ = std::filesystem::temp_directory_path().string() + "/aprime-rights-XXXXXX";
    ASSERT_NE(::mkdtemp(directory_.data()), nullptr);
    ASSERT_EQ(::chmod(directory_.c_str(), 0755), 0);
    path_ = directory_ + "/file";
    { const std::ofstream created(path_); }
    plain_truncate(path_, 4 * kGranule);
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  void map(Access access) { static_cast<void>(Runtime(options()).map(path_, access)); }

  std::string directory_;
  std::string path_;
};
APRIME_CONTRACT_SUITE(Rights);

TEST_P(Rights, a_file_that_may_not_be_read_is_refused_by_name) {
  ASSERT_EQ(::chmod(path_.c_str(), 0), 0);
  EXPECT_EXIT(as_ordinary_user([&] { map(Access::read); }), exits_with(Errc::cannot_open),
              "cannot open '.*/file': no permission to read it; change its mode");
}

TEST_P(Rights, a_read_only_file_is_refused_for_writing_and_the_way_out_is_named) {
  ASSERT_EQ(::chmod(path_.c_str(), 0444), 0);
  EXPECT_EXIT(as_ordinary_user([&] { map(Access::read_write); }), exits_with(Errc::cannot_open),
              "cannot open '.*/file': no permission to read and write it; open it read-only");
}

TEST_P(Rights, a_second_mapping_for_writing_of_a_file_that_is_mapped_for_reading_is_refused_too) {
  ASSERT_EQ(::chmod(path_.c_str(), 0444), 0);
  EXPECT_EXIT(as_ordinary_user([&] {
                Runtime runtime(options());
                const Mapping reader = runtime.map(path_, Access::read);
                try {
                  static_cast<void>(runtime.map(path_, Access::read_write));
                } catch (const Error&) {
                  if (read_bytes(reader) != Bytes(4 * kGranule)) std::_Exit(102);
                  throw;
                }
              }),
              exits_with(Errc::cannot_open), "cannot open '.*/file': no permission to read and write it");
}

TEST_P(Rights, a_file_of_a_read_only_file_system_is_refused_for_writing) {
  // The kernel's own; nothing is written to it whatever happens.
  const std::string path = "/proc/version";
  World world(GetParam());
  os::sys::set_fault_plan({.call = Call::open, .nth = 1, .times = 1, .error = EROFS});
  const Error error = error_of([&] { world.map(path, Access::read_write); });
  os::sys::clear_fault_plan();
  EXPECT_EQ(error.code(), Errc::cannot_open);
  EXPECT_THAT(error.what(),
              AllOf(HasSubstr(path), HasSubstr("mounted read-only"), HasSubstr("open it read-only")));
}

TEST_P(BadInput, every_way_to_store_through_a_read_mapping_is_refused_with_the_way_out) {
  World world(GetParam());
  const std::string path = world.file(pattern(4 * kGranule));
  Mapping m = world.map(path, Access::read);
  Bytes bytes(kGranule);
  const std::vector<std::function<void()>> stores = {
      [&] { static_cast<void>(m.host<std::byte>()); },
      [&] { m.write(ByteOffset{0}, bytes); },
      [&] { m.discard(granules(0)); },
      [&] { m.resize(ByteCount{kGranule}); },
      [&] { m.prefetch(granules(0), 0, Right::read_write); },
      [&] { static_cast<void>(m.host_lease(granules(0), Right::read_write)); },
      [&] { world.store_on_device(m, granules(0), 1); },
  };
  for (const auto& store : stores) {
    const Error error = error_of(store);
    EXPECT_EQ(error.code(), Errc::access_denied);
    EXPECT_EQ(error.path(), path);
    EXPECT_THAT(error.what(), AllOf(HasSubstr(path), HasSubstr("map it with Access::read_write")));
  }
  EXPECT_EQ(plain_read(path), pattern(4 * kGranule));
}

TEST_P(BadInput, a_file_that_was_sealed_meanwhile_is_not_said_to_be_mapped_for_reading) {
  const os::Descriptor file(::memfd_create("sealed", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  ASSERT_EQ(::ftruncate(file.get(), 4 * kGranule), 0);
  World world(GetParam());
  const Mapping m = world.map("/proc/self/fd/" + std::to_string(file.get()));
  ASSERT_EQ(::fcntl(file.get(), F_ADD_SEALS, F_SEAL_FUTURE_WRITE), 0);
  world.store_on_device(m, granules(0), 1);
  const Error error = error_of([&] { m.sync(); });
  EXPECT_EQ(error.code(), Errc::access_denied);
  EXPECT_EQ(error.system_error(), EPERM);
  EXPECT_THAT(error.what(), AllOf(HasSubstr("sealed"), Not(HasSubstr("Access::read_write"))));
}

// Other processes' doings.

TEST_P(BadInput, a_file_truncated_by_others_ends_there_and_is_not_grown_again) {
  World world(GetParam());
  const std::string path = world.file(pattern(8 * kGranule));
  const Mapping m = world.map(path);
  // What the device has already it keeps, until the bytes have to come home.
  world.store_on_device(m, granules(0, 4), 0x51);
  const std::uint64_t size = 2 * kGranule + 1234;
  plain_truncate(path, size);

  const Error read_error = error_of([&] { read_bytes(m); });
  EXPECT_EQ(read_error.code(), Errc::out_of_range);
  EXPECT_EQ(read_error.path(), path);
  EXPECT_EQ(read_error.offset().value, size) << "where the file ends now";
  EXPECT_THAT(read_error.what(), AllOf(HasSubstr(path), HasSubstr("map it again")));
  EXPECT_THAT(read_error.what(), Not(HasSubstr("another process"))) << "it may have been this one";
  EXPECT_EQ(code_of([&] { write_bytes(m, size, Bytes(1)); }), Errc::out_of_range);

  const Error kernel_error = error_of([&] { world.increment_on_device(m, granules(6, 2)); });
  EXPECT_EQ(kernel_error.code(), Errc::out_of_range) << kernel_error.what();
  EXPECT_THAT(kernel_error.what(), AllOf(HasSubstr(path), HasSubstr("beyond the end of the file")));

  EXPECT_EQ(read_bytes(m, range(0, size), HostAccess::bounce), constant(size, 0x51));
  EXPECT_NO_THROW(m.sync());
  EXPECT_EQ(plain_size(path), size);
  EXPECT_EQ(plain_read(path), constant(size, 0x51));
}

TEST_P(BadInput, a_hole_punched_by_others_under_dirty_bytes_is_filled_when_they_come_home) {
  World world(GetParam());
  const std::string path = world.file(pattern(4 * kGranule));
  const Mapping m = world.map(path);
  world.store_on_device(m, granules(0), 0x52);
  {
    const os::Descriptor file(::open(path.c_str(), O_RDWR | O_CLOEXEC));
    ASSERT_EQ(::fallocate(file.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4 * kGranule), 0);
  }
  m.sync();
  Bytes expected = constant(4 * kGranule, 0);
  std::fill_n(expected.begin(), kGranule, std::byte{0x52});
  EXPECT_EQ(plain_read(path), expected) << "stored later than the hole was made, as far as anyone can tell";
  EXPECT_EQ(read_bytes(m), expected);
}

// Limits of the process.

/// Leaves `room` descriptors to this process while it lives.
class FewDescriptors {
 public:
  explicit FewDescriptors(rlim_t room) {
    ::getrlimit(RLIMIT_NOFILE, &before_);
    const int next = ::dup(0);
    ::close(next);
    const rlimit few{static_cast<rlim_t>(next) + room, before_.rlim_max};
    ::setrlimit(RLIMIT_NOFILE, &few);
  }
  ~FewDescriptors() { ::setrlimit(RLIMIT_NOFILE, &before_); }
  FewDescriptors(const FewDescriptors&) = delete;
  FewDescriptors& operator=(const FewDescriptors&) = delete;

 private:
  rlimit before_{};
};

TEST_P(BadInput, a_process_without_descriptors_is_told_which_limit_to_raise) {
  World world(GetParam());
  const std::string path = world.file(pattern(kGranule));
  {
    const FewDescriptors none(0);
    const Error error = error_of([&] { world.map(path); });
    EXPECT_EQ(error.code(), Errc::resources);
    EXPECT_EQ(error.system_error(), EMFILE);
    EXPECT_THAT(error.what(),
                AllOf(HasSubstr(path), HasSubstr("too many open files"), HasSubstr("ulimit -n")));
  }
  EXPECT_EQ(read_bytes(world.map(path)), pattern(kGranule));
}

TEST_P(BadInput, few_descriptors_are_enough_or_the_lack_of_them_is_told) {
  World world(GetParam());
  const std::string path = world.file(pattern(4 * kGranule));
  bool is_enough = false;
  for (rlim_t room = 1; !is_enough; ++room) {
    ASSERT_LT(room, 12U) << "one mapping needs more descriptors than a file has agents";
    const FewDescriptors few(room);
    try {
      const Mapping m = world.map(path);
      EXPECT_EQ(read_bytes(m), pattern(4 * kGranule));
      m.sync();
      is_enough = true;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), Errc::resources) << e.what();
    }
  }
}

#ifdef __SANITIZE_THREAD__
/// ThreadSanitizer's runtime does not survive without areas itself: with it the library alone is refused.
class NoMemoryAreas {
 public:
  explicit NoMemoryAreas(std::size_t /*room*/) {
    os::sys::set_fault_plan({.call = Call::mmap, .nth = 1, .times = 0, .error = ENOMEM});
  }
  ~NoMemoryAreas() { os::sys::clear_fault_plan(); }
  NoMemoryAreas(const NoMemoryAreas&) = delete;
  NoMemoryAreas& operator=(const NoMemoryAreas&) = delete;
};
#else
/// Takes every memory area that the process may still have, but `room`.
class NoMemoryAreas {
 public:
  explicit NoMemoryAreas(std::size_t room) {
    // Neighbours of different rights do not merge: two areas for each pair of pages.
    base_ = static_cast<std::byte*>(
        ::mmap(nullptr, kPages * kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (base_ == MAP_FAILED) throw std::runtime_error("mmap");
    std::size_t at = 1;
    while (at < kPages && ::mprotect(base_ + at * kPage, kPage, PROT_READ) == 0) at += 2;
    if (at >= kPages) throw std::runtime_error("this machine has no limit on areas (vm.max_map_count)");
    for (std::size_t i = 0; i < room; i += 2, at -= 2) ::mprotect(base_ + (at - 2) * kPage, kPage, PROT_NONE);
  }
  ~NoMemoryAreas() { ::munmap(base_, kPages * kPage); }
  NoMemoryAreas(const NoMemoryAreas&) = delete;
  NoMemoryAreas& operator=(const NoMemoryAreas&) = delete;

 private:
  static constexpr std::size_t kPages = 1 << 20;
  std::byte* base_ = nullptr;
};
#endif

TEST_P(BadInput, a_process_without_memory_areas_is_told_which_limit_to_raise) {
  World world(GetParam());
  const std::string path = world.file(pattern(8 * kGranule));
  const Mapping mapped = world.map(path);
  ASSERT_EQ(mapped.host<const std::byte>()[0], pattern(1)[0]);
  std::string text;
  Errc code{};
  {
    const NoMemoryAreas none(0);
    try {
      static_cast<void>(world.map(path).host<std::byte>());
    } catch (const Error& e) {
      code = e.code();
      text = e.what();
    }
  }
  EXPECT_EQ(code, Errc::resources) << text;
  EXPECT_THAT(text, AllOf(HasSubstr(path), HasSubstr("vm.max_map_count")));
  EXPECT_EQ(world.map(path).host<std::byte>()[0], pattern(1)[0]) << "and can go on when there are some again";
}

TEST_P(BadInput, a_pointer_keeps_nothing_that_another_could_not_be_given) {
  World world(GetParam());
  const std::string path = world.file(pattern(4 * kGranule));
  // This one's right takes no area of its own; that one's would.
  const Mapping first = world.runtime().map(path, Access::read, {.length = ByteCount{kGranule}});
  const Mapping m = world.map(path);
  const std::byte* const small = first.host<const std::byte>().data();
  static_cast<void>(m.host<const std::byte>());
  world.store_on_device(m, all_of(m), 1);
  {
    const NoMemoryAreas none(0);
    try {
      m.prefetch_home(granules(0));
    } catch (const Error&) {
      // That it is refused is right.
    }
  }
  world.store_on_device(m, all_of(m), 2);
  EXPECT_EQ(contract::load_byte(small), 2);
}

TEST_P(BadInput, a_device_is_given_what_no_pointer_has_a_right_to_without_memory_areas) {
  if (std::string(GetParam().name) == "emulated_without_userfaultfd") return;  // its own rights take areas
  World world(GetParam());
  const std::string path = world.file(pattern(4 * kGranule));
  const Mapping m = world.map(path, Access::read);
  static_cast<void>(m.host<const std::byte>());
  // Direct I/O keeps pointers out, and leaves them so.
  const os::Mapped buffer = os::Mapped::anonymous(4 * kGranule);
  m.read_direct(ByteOffset{0}, buffer.bytes());
  std::string text;
  {
    const NoMemoryAreas none(0);
    try {
      m.prefetch(granules(1), 0, Right::read);
    } catch (const Error& e) {
      text = e.what();
    }
  }
  EXPECT_EQ(text, "");
  EXPECT_EQ(m.host<const std::byte>()[kGranule], pattern(2 * kGranule)[kGranule]);
}

TEST_P(BadInput, what_is_mapped_stays_coherent_without_memory_areas) {
  World world(GetParam());
  constexpr std::uint64_t kCount = 64;
  const Mapping m = world.map_new(Bytes(kCount * kGranule));
  const auto host = m.host<Byte>();
  world.store_on_device(m, all_of(m), 1);  // whatever grows on demand has grown
  std::vector<unsigned> expected(kCount, 1);
  std::vector<Errc> refusals;
  bool is_right = true;
  {
    // A few for the C library, which must not fail here.
    const NoMemoryAreas few(8);
    for (int round = 0; round < 3; ++round)
      // Every second granule changes sides: no two neighbours have the same rights.
      for (std::uint64_t g = 0; g < kCount; ++g) {
        if (g % 2 == 0) {
          host[g * kGranule] = static_cast<Byte>(host[g * kGranule] + 1);
          ++expected[g];
          continue;
        }
        try {
          world.increment_on_device(m, granules(g));
          ++expected[g];
        } catch (const Error& e) {
          refusals.push_back(e.code());
        }
      }
    for (std::uint64_t g = 0; g < kCount; ++g) is_right = is_right && host[g * kGranule] == expected[g];
  }
  EXPECT_TRUE(is_right);
  // Without userfaultfd a right is an area of its own, which may be one too many. With it nothing is ever
  // refused.
  EXPECT_TRUE(refusals.empty() || GetParam().without_userfaultfd || !world.hardware_paged());
  EXPECT_THAT(refusals, testing::Each(Errc::resources));
  world.increment_on_device(m, granules(1));
  EXPECT_EQ(world.seen_by_device(m, granules(1)), constant(kGranule, expected[1] + 1));
}

// Kernels that have no name of their own.

TEST(KernelNames, of_lambdas_and_functions_can_be_read) {
  const auto name_of = [](const auto& kernel) { return detail::readable_name(typeid(kernel).name()); };
  struct Local {
    void operator()(device_span<int>) const {}
  };
  const auto returned = [] { return [](LeasedSpan<int>) {}; };
  EXPECT_EQ(name_of([](device_span<int>) {}), "lambda in TestBody");
  EXPECT_EQ(name_of([](auto) {}), "lambda in TestBody");
  EXPECT_EQ(name_of(returned()), "lambda in TestBody");
  EXPECT_EQ(name_of(&plain_truncate), "function pointer");
  EXPECT_EQ(name_of(Local{}), "Local");
  EXPECT_EQ(name_of(std::pair<Local, int>{}).substr(0, 5), "pair<");
}

}  // namespace
}  // namespace aprime::fault
