#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <memory>
#include <optional>
#include <random>
#include <vector>

#include "bench/device.hpp"
#include "bench/figure.hpp"
#include "bench/mounts.hpp"

// The mount, as a program on it sees it.

namespace aprime::bench {
namespace {

using namespace aprime::literals;

constexpr ByteCount kGranule = 64_KiB;
constexpr ByteCount kBlock = 1_MiB;
constexpr ByteCount kFile = 256_MiB;

/// A runtime with one device and a mount.
class OurMount {
 public:
  OurMount(DeviceKind kind, HostAccess how, ByteCount device_memory, ByteCount granule = kGranule) {
    RuntimeOptions options = quiet(kind, granule, device_memory);
    options.host_access = how;
    runtime_.emplace(options);
    mount_ = runtime_->mount(directory_.make_directory("source"), directory_.make_directory("ours"));
  }
  ~OurMount() {
    mount_.unmount();
    runtime_.reset();
  }
  OurMount(const OurMount&) = delete;
  OurMount& operator=(const OurMount&) = delete;

  Runtime& runtime() noexcept { return *runtime_; }
  const Directory& directory() const noexcept { return directory_; }
  /// Makes a file in the source. Returns its path on the mount.
  std::string make_file(const std::string& name, ByteCount size) {
    directory_.make_file("source/" + name, size);
    return directory_.at("ours/" + name);
  }
  Mapping map(const std::string& name) {
    return runtime_->map(directory_.at("source/" + name), Access::read_write);
  }

 private:
  const Directory directory_;
  std::optional<Runtime> runtime_;
  Mount mount_;
};

/// A file as `aprime mount` and libfuse's example show it.
class TwoMounts {
 public:
  std::string at(const std::string& path) const { return directory_.at(path); }

 private:
  const Directory directory_;
  const std::string source_ = directory_.make_directory("source");
  const std::string file_ = directory_.make_file("source/file", kFile);
  const ServedMount ours_ = ServedMount::ours(source_, directory_.make_directory("ours"));
  const ServedMount theirs_ = ServedMount::example(source_, directory_.make_directory("theirs"));
};

enum class Traffic { first_read, write, direct_read };

/// Blocks in order, by a program, where no device is involved.
class Sequential final : public Experiment {
 public:
  explicit Sequential(Traffic traffic) : traffic_(traffic) {}

  Sample round() override {
    // Who is second finds the pages that the first has given back: each has each turn.
    Sample s;
    s.measured = seconds("ours/file") / 2;
    s.floor = (seconds("theirs/file") + seconds("theirs/file")) / 2;
    s.measured += seconds("ours/file") / 2;
    return s;
  }

 private:
  double seconds(const std::string& name) {
    const std::string path = mounts_.at(name);
    if (traffic_ == Traffic::write) return program_.write_blocks(path, O_WRONLY, kFile, kBlock);
    return program_.read_blocks(path, traffic_ == Traffic::direct_read ? O_RDONLY | O_DIRECT : O_RDONLY,
                                kFile, kBlock);
  }

  // First, before there is any thread: it forks.
  Program program_;
  const Traffic traffic_;
  const TwoMounts mounts_;
};

/// Blocks in order, from pages that the kernel keeps: without a request. How fast that is depends on where in
/// memory the pages came to lie, and pages that are asked for first and second find different places (a third
/// of the speed was seen): each mount has each turn. What is measured is the kernel's doing on both sides.
class ReadAgain final : public Experiment {
 public:
  Sample round() override {
    Sample s;
    for (const bool we_are_first : {true, false}) {
      our_file_.forget_pages();
      their_file_.forget_pages();
      static_cast<void>(seconds(we_are_first ? our_file_ : their_file_));
      static_cast<void>(seconds(we_are_first ? their_file_ : our_file_));
      s.measured += seconds(our_file_) / 2;
      s.floor += seconds(their_file_) / 2;
    }
    return s;
  }

 private:
  double seconds(const OpenFile& file) const {
    const double start = now();
    for (std::uint64_t at = 0; at < kFile.value; at += kBlock.value)
      read_all(file.fd(), at, {buffer_.data(), kBlock.value});
    return now() - start;
  }

  const PlainMemory buffer_ = PlainMemory::anonymous(kBlock, true);
  const TwoMounts mounts_;
  const OpenFile our_file_{mounts_.at("ours/file"), O_RDONLY};
  const OpenFile their_file_{mounts_.at("theirs/file"), O_RDONLY};
};

/// Blocks written in order with O_DIRECT, which libfuse's examples refuse (EINVAL), against the least that a
/// FUSE mount can do.
class DirectWrites final : public Experiment {
 public:
  Sample round() override { return {seconds("ours/file"), seconds("bare/file")}; }

 private:
  double seconds(const std::string& name) {
    return program_.write_blocks(directory_.at(name), O_WRONLY | O_DIRECT, kFile, kBlock);
  }

  // First, before there is any thread: it forks.
  Program program_;
  const Directory directory_;
  const std::string source_ = directory_.make_directory("source");
  const std::string file_ = directory_.make_file("source/file", kFile);
  const ServedMount ours_ = ServedMount::ours(source_, directory_.make_directory("ours"));
  BareMount bare_{directory_.make_file("backing", kFile), kFile, directory_.make_directory("bare")};
};

/// Bytes of granules that the device owns, bounced, against those of granules at home.
class RandomReads final : public Experiment {
 public:
  Sample round() override {
    timed_on_device(ours_.runtime(), read_write(dirty_), [](std::byte* data) {
      for (std::uint64_t at = 0; at < kSize.value; at += kGranule.value) store(data + at, std::byte{1});
    });
    return {seconds(on_device_), seconds(at_home_)};
  }

 private:
  static constexpr ByteCount kSize = 32_MiB;
  static constexpr int kReads = 4000;

  double seconds(const OpenFile& file) {
    std::minstd_rand random(1);
    std::byte* const into = buffer_.data();
    const double start = now();
    for (int i = 0; i < kReads; ++i)
      read_all(file.fd(), random() % (kSize.value / kPage) * kPage, {into, kPage});
    return now() - start;
  }

  const PlainMemory buffer_ = PlainMemory::anonymous(ByteCount{kPage}, true);
  OurMount ours_{DeviceKind::emulated, HostAccess::bounce, 64_MiB};
  const OpenFile on_device_{ours_.make_file("dirty", kSize), O_RDWR};
  const OpenFile at_home_{ours_.make_file("home", kSize), O_RDWR};
  const Mapping dirty_ = ours_.map("dirty");
  const Mapping home_ = ours_.map("home");
};

/// One load in every so many bytes, in order, by mmap, of granules that the device has stored to.
class MappedLoads final : public Experiment {
 public:
  static constexpr ByteCount kSize{1000 * kGranule.value};

  MappedLoads(ByteCount granule, ByteCount step, ReadAhead read_ahead)
      : granule_(granule), step_(step), read_ahead_(read_ahead) {}

  Sample round() override {
    timed_on_device(ours_.runtime(), read_write(mapping_), [](std::byte* data) {
      for (std::uint64_t at = 0; at < kSize.value; at += kGranule.value) store(data + at, std::byte{1});
    });
    return {seconds("ours/file"), seconds("theirs/file")};
  }

 private:
  double seconds(const std::string& name) {
    return program_.load_mapped(ours_.directory().at(name), kSize, step_, read_ahead_);
  }

  // First, before there is any thread: it forks.
  Program program_;
  const ByteCount granule_;
  const ByteCount step_;
  const ReadAhead read_ahead_;
  OurMount ours_{DeviceKind::emulated, HostAccess::adaptive, 128_MiB, granule_};
  const std::string path_ = ours_.make_file("file", kSize);
  const Mapping mapping_ = ours_.map("file");
  const ServedMount example_ =
      ServedMount::example(ours_.directory().at("source"), ours_.directory().make_directory("theirs"));
};

/// Granules of which a program has pages are taken by a device, which replaces them whole.
class Recalls final : public Experiment {
 public:
  explicit Recalls(bool dirty) : dirty_(dirty) {}

  Sample round() override {
    Sample s;
    cache(our_memory_);
    double start = now();
    ours_.runtime()
        .launch_task(
            {.device = 0, .name = "take"}, [](LeasedBytes<Right::write>) {}, write(mapping_))
        .wait();
    s.measured = now() - start;
    cache(bare_memory_);
    start = now();
    for (std::uint64_t at = 0; at < kSize.value; at += kGranule.value) bare_.invalidate(at, kGranule.value);
    s.floor = now() - start;
    return s;
  }

 private:
  static constexpr ByteCount kSize{1000 * kGranule.value};

  void cache(const PlainMemory& memory) const {
    for (std::uint64_t at = 0; at < kSize.value; at += kPage)
      dirty_ ? store(memory.data() + at, std::byte{1}) : touch(memory.data() + at);
  }

  const bool dirty_;
  OurMount ours_{DeviceKind::emulated_strict, HostAccess::adaptive, 64_MiB};
  const std::string path_ = ours_.make_file("file", kSize);
  const Mapping mapping_ = ours_.map("file");
  const OpenFile our_file_{path_, O_RDWR};
  const PlainMemory our_memory_ = our_file_.map(kSize);
  BareMount bare_{ours_.directory().make_file("backing", kSize), kSize,
                  ours_.directory().make_directory("bare")};
  const OpenFile bare_file_{ours_.directory().at("bare/file"), O_RDWR};
  const PlainMemory bare_memory_ = bare_file_.map(kSize);
};

}  // namespace

void add_mount(Figures& figures) {
  const std::string example = ServedMount::name_of_example();
  const auto sequential = [&](const std::string& key, const std::string& text, Traffic traffic) {
    figures.push_back({"mount_" + key, "mount, no device involved: " + text, example,
                       Unit::gigabytes_per_second, static_cast<double>(kFile.value), Goal::ratio_at_least,
                       1.0, 21, [traffic] { return std::make_unique<Sequential>(traffic); }});
  };
  sequential("read", "sequential read, 1 MiB", Traffic::first_read);
  figures.push_back({"mount_read_again", "the same, again", example, Unit::gigabytes_per_second,
                     static_cast<double>(kFile.value), Goal::ratio_at_least, 0.9, 15,
                     [] { return std::make_unique<ReadAgain>(); }});
  sequential("write", "sequential write, 1 MiB", Traffic::write);
  sequential("direct_read", "sequential read, 1 MiB, O_DIRECT", Traffic::direct_read);
  figures.push_back({"mount_direct_write", "mount, no device involved: sequential write, 1 MiB, O_DIRECT",
                     "a bare libfuse mount", Unit::gigabytes_per_second, static_cast<double>(kFile.value),
                     Goal::ratio_at_least, 1.0, 7, [] { return std::make_unique<DirectWrites>(); }});
  figures.push_back({"mount_bounce", "mount: random 4 KiB read() of device-dirty granules, bounce",
                     "the same of granules at home", Unit::microseconds, 4000, Goal::ratio_at_least, 0.7, 9,
                     [] { return std::make_unique<RandomReads>(); }});
  for (const ReadAhead read_ahead : {ReadAhead::yes, ReadAhead::no})
    for (const ByteCount granule : {4_KiB, 64_KiB}) {
      const bool is_random = read_ahead == ReadAhead::no;
      figures.push_back({fmt::format("mount_fault_{}{}", granule.value / 1024, is_random ? "_random" : ""),
                         fmt::format("mount: mmap fault on a device-dirty {} KiB granule{}",
                                     granule.value / 1024, is_random ? ", MADV_RANDOM" : ""),
                         "mmap fault on " + example, Unit::microseconds, 1000, Goal::ratio_at_most,
                         is_random ? 0.0 : 1.5, 21,
                         [=] { return std::make_unique<MappedLoads>(granule, kGranule, read_ahead); }});
    }
  figures.push_back({"mount_mapped", "mount: mmap load of every page of a device-dirty file, 64 KiB granules",
                     "the same on " + example, Unit::gigabytes_per_second,
                     static_cast<double>(MappedLoads::kSize.value), Goal::ratio_at_least, 0.7, 9, [] {
                       return std::make_unique<MappedLoads>(kGranule, ByteCount{kPage}, ReadAhead::yes);
                     }});
  for (const bool dirty : {false, true})
    figures.push_back(
        {dirty ? "mount_recall_dirty" : "mount_recall_clean",
         std::string("mount: device takes 1,000 granules of 64 KiB that a program has cached, ") +
             (dirty ? "dirty" : "clean"),
         "bare notify_inval_inode of each", Unit::milliseconds, 1, Goal::ratio_at_most, 1.3, 9,
         [dirty] { return std::make_unique<Recalls>(dirty); }});
}

}  // namespace aprime::bench
