#pragma once

#include <cstddef>

namespace aprime::fault {

/// Makes SIGBUS catchable, as a program does that maps files which may fail. \pre before the first runtime of
/// the process is made, so that the library finds this handler when it installs its own
void catch_bus_errors();

/// memcpy by a thread that may touch mappings whose faults cannot be served: false if that raised SIGBUS
/// half-way. For one thread at a time.
bool copy_guarded(void* to, const void* from, std::size_t size);

}  // namespace aprime::fault
