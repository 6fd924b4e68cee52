#include "host/os/kernel_version.hpp"

#include <gtest/gtest.h>

namespace aprime::os {
namespace {

TEST(KernelVersion, ReleasesAreComparedByNumber) {
  EXPECT_TRUE(is_release_at_least("6.16.0", 6, 16));
  EXPECT_TRUE(is_release_at_least("6.18.44-generic", 6, 16));
  EXPECT_TRUE(is_release_at_least("7.0.0-rc1", 6, 16));
  EXPECT_TRUE(is_release_at_least("6.16-rc1", 6, 16));
  EXPECT_FALSE(is_release_at_least("6.8.0-45-generic", 6, 16));
  EXPECT_FALSE(is_release_at_least("5.99.1", 6, 16));
}

TEST(KernelVersion, WhatIsNoReleaseIsNotNewEnough) {
  for (const char* text : {"", "6", "6.", "six.16", ".16"})
    EXPECT_FALSE(is_release_at_least(text, 1, 0)) << text;
}

TEST(KernelVersion, RunningKernelIsNewerThanTheOldestOnes) {
  EXPECT_TRUE(is_kernel_at_least(2, 0));
  EXPECT_FALSE(is_kernel_at_least(1000, 0));
}

}  // namespace
}  // namespace aprime::os
