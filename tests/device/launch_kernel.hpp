#pragma once

#include "aprime/grid.hpp"
#include "host/device/executor.hpp"

#include <concepts>

namespace aprime::device {

/// Runs a kernel given as a callable without arguments; what it captures by reference is the device's memory.
template <std::invocable Kernel>
LaunchResult launch(Executor& executor, const Grid& grid, const Kernel& kernel,
                    const char* name = "test_kernel") {
  const auto run = [](const void* closure, detail::ThreadCursor& cursor) {
    while (cursor.next()) (*static_cast<const Kernel*>(closure))();
  };
  return executor.run(detail::KernelBody{&kernel, run, name}, grid);
}

}  // namespace aprime::device
