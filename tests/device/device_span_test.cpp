#include "aprime/device_span.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <iterator>

// device_span on memory that is there, as on a device whose own MMU faults: what algorithms ask of it.

namespace aprime {
namespace {

static_assert(std::random_access_iterator<device_span<unsigned>::iterator>);
static_assert(std::sortable<device_span<unsigned>::iterator>);
static_assert(std::random_access_iterator<device_span<const unsigned>::iterator>);

class DeviceSpan : public testing::Test {
 protected:
  std::array<int, 40> values_{};
  const device_span<int> span_{{.base = reinterpret_cast<std::byte*>(values_.data())}, 0, values_.size()};

  DeviceSpan() {
    for (std::size_t i = 0; i < values_.size(); ++i) values_[i] = static_cast<int>(i * 17 % 40);
  }
};

/// More than an algorithm sorts by insertion alone.
TEST_F(DeviceSpan, is_sorted_by_algorithms_of_the_standard_library) {
  std::sort(span_.begin(), span_.end());
  EXPECT_TRUE(std::ranges::is_sorted(values_));
  std::ranges::sort(span_.begin(), span_.end(), std::greater{});
  EXPECT_TRUE(std::ranges::is_sorted(values_, std::greater{}));
  EXPECT_EQ(values_[39], 0) << "none was lost";
  EXPECT_EQ(values_[0], 39);
}

TEST_F(DeviceSpan, has_elements_that_are_changed_in_place) {
  span_[0] = 12;
  span_[0] += 3;
  span_[0] -= 1;
  span_[0] *= 3;
  EXPECT_EQ(values_[0], 42);
  span_[0] /= 4;
  span_[0] %= 8;
  span_[0] <<= 5;
  EXPECT_EQ(values_[0], 64);
  span_[0] |= 7;
  span_[0] &= 0x46;
  span_[0] ^= 0x40;
  EXPECT_EQ(values_[0], 6);
  span_[0] >>= 1;
  EXPECT_EQ(span_[0]++, 3);
  EXPECT_EQ(++span_[0], 5);
  EXPECT_EQ(span_[0]--, 5);
  EXPECT_EQ(--span_[0], 3);
  EXPECT_EQ(values_[0], 3);
}

TEST_F(DeviceSpan, has_elements_that_are_exchanged) {
  int other = 1000;
  swap(span_[1], span_[2]);
  EXPECT_EQ(values_[1], 34);
  EXPECT_EQ(values_[2], 17);
  swap(span_[1], other);
  EXPECT_EQ(other, 34);
  swap(other, span_[1]);
  EXPECT_EQ(other, 1000);
  EXPECT_EQ(values_[1], 34);
}

}  // namespace
}  // namespace aprime
