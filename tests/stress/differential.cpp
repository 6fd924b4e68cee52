#include "tests/stress/differential.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <new>
#include <optional>
#include <span>

#include "tests/stress/byte_kernels.hpp"
#include "tests/stress/random.hpp"
#include "tests/stress/world.hpp"

namespace aprime::stress {
namespace {

constexpr Grid kGrid{.blocks = {2, 1, 1}, .threads = {4, 1, 1}};
constexpr std::uint64_t kFileBytesMax = std::uint64_t{1} << 20;
constexpr std::size_t kSlots = 4;
constexpr std::align_val_t kAlignment{4096};

class Runner {
 public:
  explicit Runner(const Setting& setting)
      : setting_(setting),
        path_(directory_.sparse("file", setting.file_bytes)),
        plain_(path_),
        model_(setting.file_bytes),
        buffer_(static_cast<std::uint8_t*>(::operator new(kFileBytesMax, kAlignment))),
        runtime_(std::make_unique<Runtime>(
            RuntimeOptions{.devices = setting.devices,
                           .granule = setting.granule,
                           .host_access = setting.host_access,
                           .dirty_bytes_max = ByteCount{2 * setting.granule.value},
                           .dirty_age_max = std::chrono::milliseconds(setting.flusher ? 5 : 0)})),
        copied_(runtime_->map(directory_.sparse("copied", copy_most()), Access::read_write)) {}

  std::string run(const std::vector<Operation>& operations) {
    for (std::size_t i = 0; i < operations.size() && problem_.empty(); ++i) {
      where_ = fmt::format("operation {}: {}", i, describe(operations[i]));
      try {
        step(operations[i]);
      } catch (const Error& e) {
        complain(fmt::format("failed with an error: {}", e.what()));
      }
    }
    if (problem_.empty()) {
      where_ = "at the end";
      for (Slot& slot : slots_) slot.mapping.reset();
      copied_.close();
      runtime_->close();
      compare_plain();
    }
    return problem_;
  }

 private:
  struct Slot {
    std::optional<Mapping> mapping;
    std::uint64_t first = 0;
  };
  struct Part {
    Slot* slot = nullptr;
    std::uint64_t in_file = 0;
    std::uint64_t size = 0;
    ByteRange range() const { return {ByteOffset{in_file - slot->first}, ByteCount{size}}; }
    const Mapping& mapping() const { return *slot->mapping; }
  };

  /// Bytes of a mapping that the file has, `size` 0 if there are none.
  Part part_of(const Operation& op, std::uint64_t most, std::uint64_t unit = 1) {
    for (std::size_t i = 0; i < kSlots; ++i) {
      Slot& slot = slots_[(op.slot + i) % kSlots];
      if (!slot.mapping) continue;
      const std::uint64_t mapped = slot.first + slot.mapping->size_bytes().value;
      const std::uint64_t end = std::min<std::uint64_t>(mapped, model_.size());
      if (end <= slot.first) continue;
      const std::uint64_t room = end - slot.first;
      const std::uint64_t at = op.at % room / unit * unit;
      const std::uint64_t left = std::min(most, room - at) / unit * unit;
      if (left == 0) continue;
      return {&slot, slot.first + at, std::max(unit, (op.size % left + 1) / unit * unit)};
    }
    return {};
  }
  unsigned device(const Operation& op) const {
    return static_cast<unsigned>(op.variant / 4 % setting_.devices.size());
  }
  static HostAccess access(const Operation& op) { return static_cast<HostAccess>(op.variant % 3); }
  /// Leases of one kernel have to fit into device memory.
  std::uint64_t lease_most() const { return 10 * setting_.granule.value; }
  /// With what it is copied to.
  std::uint64_t copy_most() const { return 6 * setting_.granule.value; }

  void step(const Operation& op) {
    switch (op.verb) {
      case Verb::map: return map(op);
      case Verb::unmap: slots_[op.slot % kSlots].mapping.reset(); return;
      case Verb::resize: return resize(op);
      case Verb::out_of_range: return reach_out(op);
      case Verb::sync: return sync(op);
      case Verb::corrupt: return corrupt(op);
      default: return use(op);
    }
  }

  void map(const Operation& op) {
    Slot& slot = slots_[op.slot % kSlots];
    slot.mapping.reset();
    const std::uint64_t granule = setting_.granule.value;
    slot.first = op.variant % 2 == 0 ? 0 : op.at % (model_.size() / granule + 1) * granule;
    MapOptions options{.offset = ByteOffset{slot.first}};
    if (op.variant % 3 == 0) options.length = ByteCount{op.size % (model_.size() - slot.first + 1)};
    slot.mapping = runtime_->map(path_, Access::read_write, options);
  }

  void resize(const Operation& op) {
    for (std::size_t i = 0; i < kSlots; ++i) {
      Slot& slot = slots_[(op.slot + i) % kSlots];
      if (!slot.mapping || slot.first + slot.mapping->size_bytes().value != model_.size()) continue;
      std::uint64_t size = op.size % (kFileBytesMax / 2 - slot.first);
      if (op.variant % 4 == 0) size = size / setting_.granule.value * setting_.granule.value;
      slot.mapping->resize(ByteCount{size});
      model_.resize(slot.first + size);
      if (plain_.size() != model_.size()) complain(fmt::format("the file has {} bytes", plain_.size()));
      return;
    }
  }

  /// One byte too many is an error, and nothing happens.
  void reach_out(const Operation& op) {
    const Part p = part_of(op, kFileBytesMax);
    if (p.size == 0) return;
    const std::uint64_t end =
        std::min<std::uint64_t>(p.slot->first + p.mapping().size_bytes().value, model_.size());
    const std::uint64_t size = end - p.in_file + 1;
    try {
      const std::span<std::byte> bytes(reinterpret_cast<std::byte*>(buffer_.get()), size);
      std::fill(bytes.begin(), bytes.end(), std::byte{0xee});
      if (op.variant % 2 == 0)
        p.mapping().read(p.range().first, bytes, access(op));
      else
        p.mapping().write(p.range().first, bytes, access(op));
      complain("went beyond the end without an error");
    } catch (const Error& e) {
      if (e.code() != Errc::out_of_range) throw;
    }
  }

  void sync(const Operation& op) {
    for (Slot& slot : slots_)
      if (slot.mapping && slot.first == 0 && slot.mapping->size_bytes().value >= model_.size() &&
          !model_.empty()) {
        slot.mapping->sync({ByteOffset{0}, ByteCount{model_.size()}});
        return compare_plain();
      }
    if (const Part p = part_of(op, kFileBytesMax); p.size != 0) {
      p.mapping().sync(p.range());
      plain_.read(p.in_file, buffer_.get(), p.size);
      compare(p, "the plain path");
    }
  }

  void corrupt(const Operation& op) {
    if (model_.empty()) return;
    for (Slot& slot : slots_) slot.mapping.reset();
    const auto wrong = static_cast<std::uint8_t>(model_[op.at % model_.size()] ^ 1);
    plain_.write(op.at % model_.size(), &wrong, 1);
  }

  void use(const Operation& op) {
    const bool direct = op.verb == Verb::read_direct || op.verb == Verb::write_direct;
    const bool leases =
        op.verb == Verb::kernel_store || op.verb == Verb::kernel_overwrite || op.verb == Verb::task_store;
    const std::uint64_t most = op.verb == Verb::kernel_load ? copy_most()
                               : leases                     ? lease_most()
                                                            : kFileBytesMax;
    const Part p = part_of(op, most, direct ? 4096 : 1);
    if (p.size == 0) return;
    const Mapping& m = p.mapping();
    const ByteRange range = p.range();
    const std::span<std::byte> bytes(reinterpret_cast<std::byte*>(buffer_.get()), p.size);
    const LaunchOptions options{.device = device(op), .name = "differential"};
    for (std::size_t i = 0; i < p.size; ++i) buffer_.get()[i] = byte_of(op.salt, i);
    switch (op.verb) {
      case Verb::host_load:
        std::memcpy(buffer_.get(), m.host<const std::uint8_t>().data() + range.first.value, p.size);
        return compare(p, "the host pointer");
      case Verb::lease_load: {
        const HostLease lease = m.host_lease(range, Right::read);
        std::memcpy(buffer_.get(), lease.bytes().data(), p.size);
        return compare(p, "a host lease");
      }
      case Verb::host_store:
        std::memcpy(m.host<std::uint8_t>().data() + range.first.value, buffer_.get(), p.size);
        return remember(p);
      case Verb::read: m.read(range.first, bytes, access(op)); return compare(p, "read");
      case Verb::read_direct: m.read_direct(range.first, bytes); return compare(p, "read_direct");
      case Verb::write: m.write(range.first, bytes, access(op)); return remember(p);
      case Verb::write_direct: m.write_direct(range.first, bytes); return remember(p);
      case Verb::kernel_load: {
        // Whole granules need not be filled.
        const std::uint64_t granule = setting_.granule.value;
        const ByteRange to{ByteOffset{0}, ByteCount{(p.size + granule - 1) / granule * granule}};
        runtime_
            ->launch(kGrid, options, contract::CopyBytes{}, aprime::read(m, range),
                     aprime::write(copied_, to))
            .wait();
        copied_.read(to.first, bytes, access(op));
        return compare(p, "a kernel");
      }
      case Verb::kernel_store:
        runtime_->launch(kGrid, options, StoreBytes{op.salt}, read_write(m, range)).wait();
        return remember(p);
      case Verb::kernel_overwrite:
        runtime_->launch(kGrid, options, StoreBytes{op.salt}, aprime::write(m, range)).wait();
        return remember(p);
      case Verb::task_store: {
        const StoreBytesTask task{op.salt};
        const bool whole = op.variant % 2 == 0;
        (whole ? runtime_->launch_task(options, task, aprime::write(m, range))
               : runtime_->launch_task(options, task, read_write(m, range)))
            .wait();
        return remember(p);
      }
      case Verb::prefetch:
        return m.prefetch(range, options.device, op.variant % 2 ? Right::read : Right::read_write);
      case Verb::prefetch_home: return m.prefetch_home(range);
      case Verb::discard:
        m.discard(range);
        std::fill_n(model_.begin() + static_cast<std::ptrdiff_t>(p.in_file), p.size, std::uint8_t{0});
        return;
      case Verb::advise: return m.advise(range, static_cast<Advice>(op.variant % 5));
      default: return;
    }
  }

  void remember(const Part& p) { std::copy_n(buffer_.get(), p.size, model_.data() + p.in_file); }
  void compare(const Part& p, const char* by) {
    for (std::uint64_t i = 0; i < p.size; ++i)
      if (buffer_.get()[i] != model_[p.in_file + i])
        return complain(fmt::format("{} sees {:#x} in byte {} of {}, not {:#x}", by, buffer_.get()[i],
                                    p.in_file + i, model_.size(), model_[p.in_file + i]));
  }
  void compare_plain() {
    if (plain_.size() != model_.size()) return complain(fmt::format("the file has {} bytes", plain_.size()));
    plain_.read(0, buffer_.get(), model_.size());
    compare({nullptr, 0, model_.size()}, "the plain path");
  }
  void complain(const std::string& what) {
    if (problem_.empty()) problem_ = where_ + ": " + what;
  }

  struct Free {
    void operator()(std::uint8_t* p) const { ::operator delete(p, kAlignment); }
  };

  const Setting setting_;
  test::TemporaryDirectory directory_;
  const std::string path_;
  const PlainFile plain_;
  std::vector<std::uint8_t> model_;
  std::unique_ptr<std::uint8_t, Free> buffer_;
  std::unique_ptr<Runtime> runtime_;
  /// Where kernels leave what they saw.
  Mapping copied_;
  std::array<Slot, kSlots> slots_;
  std::string where_;
  std::string problem_;
};

}  // namespace

std::string describe(const Operation& op) {
  constexpr std::array<const char*, kVerbCount + 1> names{
      "map",         "unmap",        "host_load",        "host_store",
      "read",        "write",        "read_direct",      "write_direct",
      "kernel_load", "kernel_store", "kernel_overwrite", "task_store",
      "sync",        "prefetch",     "prefetch_home",    "resize",
      "discard",     "advise",       "lease_load",       "out_of_range",
      "corrupt"};
  return fmt::format("{{Verb::{}, {}, {}, {}, {}, {}}}", names[static_cast<std::size_t>(op.verb)], op.slot,
                     op.variant, op.salt, op.at, op.size);
}

std::string run_operations(const Setting& setting, const std::vector<Operation>& operations) {
  return Runner(setting).run(operations);
}

std::vector<Operation> make_operations(std::uint64_t seed, std::size_t count) {
  Random random(seed, 2);
  std::vector<Operation> operations{{Verb::map, 0, 0, 0, 0, 0}};
  while (operations.size() < count) {
    Operation op{static_cast<Verb>(random.below(kVerbCount)),
                 static_cast<std::uint8_t>(random.next()),
                 static_cast<std::uint8_t>(random.next()),
                 static_cast<std::uint8_t>(random.next()),
                 random.below(kFileBytesMax),
                 random.below(random.one_in(2) ? 6000 : kFileBytesMax)};
    // Mappings that live for a while, and one that covers the whole file most of the time.
    if (op.verb == Verb::unmap && !random.one_in(4)) op.verb = Verb::write;
    if (op.verb == Verb::map && random.one_in(2)) op.variant = 2;
    operations.push_back(op);
  }
  return operations;
}

Setting make_setting(std::uint64_t seed, std::span<const contract::Personality> personalities) {
  Random random(seed, 3);
  const ByteCount granule{std::uint64_t{4096} << random.below(4)};
  Setting setting{.devices = {},
                  .granule = granule,
                  .file_bytes = random.below(std::min<std::uint64_t>(kFileBytesMax / 2, 40 * granule.value)),
                  .host_access = static_cast<HostAccess>(random.below(3)),
                  .flusher = random.one_in(3)};
  for (std::uint64_t d = random.between(1, 3); d > 0; --d) {
    const contract::Personality& personality = personalities[random.below(personalities.size())];
    setting.devices.push_back(personality.device(ByteCount{16 * granule.value}, 2));
  }
  return setting;
}

std::vector<Operation> shrink(const Setting& setting, std::vector<Operation> operations) {
  for (std::size_t piece = operations.size() / 2; piece > 0; piece /= 2) {
    for (std::size_t at = 0; at < operations.size();) {
      std::vector<Operation> fewer = operations;
      const std::size_t end = std::min(at + piece, fewer.size());
      fewer.erase(fewer.begin() + static_cast<std::ptrdiff_t>(at),
                  fewer.begin() + static_cast<std::ptrdiff_t>(end));
      if (run_operations(setting, fewer).empty())
        at += piece;
      else
        operations = std::move(fewer);
    }
  }
  return operations;
}

}  // namespace aprime::stress
