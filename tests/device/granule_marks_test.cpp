#include "host/device/granule_marks.hpp"

#include <gtest/gtest.h>

#include <stdexcept>
#include <vector>

namespace aprime::device {
namespace {

constexpr GranuleRange granules(std::uint64_t first, std::uint64_t count) {
  return {GranuleIndex{first}, GranuleCount{count}};
}

class Marks : public testing::Test {
 protected:
  Marks() {
    marks_.reserve(GranuleCount{1 << 20});
    for (const GranuleRange& run : kMarked) marks_.mark(run);
  }

  static inline const std::vector<GranuleRange> kMarked{granules(0, 3), granules(62, 4), granules(4095, 2),
                                                        granules((1 << 20) - 1, 1)};
  GranuleMarks marks_;
};

TEST_F(Marks, are_found_in_order_and_taken_once) {
  EXPECT_EQ(marks_.take(), kMarked);
  EXPECT_TRUE(marks_.take().empty());
  marks_.mark(granules(63, 1));
  EXPECT_EQ(marks_.take(), std::vector{granules(63, 1)});
}

TEST_F(Marks, can_be_set_again_while_they_are_taken) {
  std::size_t taken = 0;
  marks_.take_each([&](GranuleIndex g) {
    ++taken;
    marks_.mark({g, GranuleCount{1}});
  });
  EXPECT_EQ(taken, 10u);
  EXPECT_EQ(marks_.take(), kMarked);
}

TEST_F(Marks, stay_where_taking_them_fails) {
  for (std::size_t good = 0; good < 10; ++good) {
    std::vector<GranuleIndex> taken;
    EXPECT_THROW(marks_.take_each([&](GranuleIndex g) {
      if (taken.size() == good) throw std::runtime_error("no more");
      taken.push_back(g);
    }),
                 std::runtime_error);
    for (const GranuleIndex g : taken) marks_.mark({g, GranuleCount{1}});
    EXPECT_EQ(marks_.take(), kMarked) << good;
    for (const GranuleRange& run : kMarked) marks_.mark(run);
  }
}

}  // namespace
}  // namespace aprime::device
