#pragma once

#include <functional>
#include <thread>

namespace aprime::os {

/// A thread that takes no signal which is meant for the program; it does take its own faults.
/// \throws std::system_error if no thread can be made
std::thread start_quiet_thread(std::function<void()> body);

}  // namespace aprime::os
