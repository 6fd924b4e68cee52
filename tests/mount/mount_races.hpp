#pragma once

#include <gtest/gtest.h>

#include <future>
#include <string>

#include "tests/mount/held_calls.hpp"
#include "tests/mount/mounted.hpp"

namespace aprime::test {

inline constexpr std::uint64_t kPage = 4096;
inline ByteRange granule(std::uint64_t n) { return bytes(n * kGranule, kGranule); }
inline ByteRange page(std::uint64_t n) { return bytes(n * kPage, kPage); }

/// A file that a runtime has mapped and two programs have open and mapped, on a mount.
class MountRaces : public testing::TestWithParam<DeviceKind> {
 protected:
  MountRaces() {
    mounted_.make("file", std::string(kSize, 'h'));
    mapping_ = mounted_.map("file");
    for (Client* client : {&client_, &other_}) {
      client->must("open " + mounted_.at("file"));
      client->must("map_random");
    }
  }
  ~MountRaces() override { mapping_ = Mapping(); }

  // What the device does, in a thread of its own.
  std::future<void> device_stores(ByteRange range, unsigned char value) {
    return std::async(std::launch::async,
                      [this, range, value] { mounted_.device_stores(mapping_, range, value); });
  }
  std::future<unsigned> device_misses(ByteRange range, unsigned char value) {
    return std::async(std::launch::async,
                      [this, range, value] { return mounted_.device_misses(mapping_, range, value); });
  }
  /// The step by which a device gets the bytes of a granule.
  Moment filling(When when, std::uint64_t n) const {
    return {.call = GetParam() == DeviceKind::emulated ? Call::ioctl : Call::pread,
            .when = when,
            .range = granule(n),
            .on_behalf_of = Moment::kNoRequest};
  }

  Mounted mounted_{GetParam()};
  Mapping mapping_;
  Client client_;
  Client other_;
};

}  // namespace aprime::test
