#pragma once

#include <functional>
#include <thread>

namespace aprime::os {

/// A thread that takes no signal which is meant for the program: that one may wait for it in a thread of its
/// own, with the signal blocked in all others that it knows of. It does take its own faults, and a profiler's
/// SIGPROF. Every thread of the library is one.
/// \throws std::system_error if no thread can be made
std::thread start_quiet_thread(std::function<void()> body);

/// From now on the calling thread, when it is woken, takes the processor from nobody who runs (SCHED_BATCH):
/// it gets another one, or its turn. For threads several of which are woken, often by one who is about to
/// wait anyway. Changes nothing for a process that somebody gave another policy than the usual one.
void wait_for_turn() noexcept;

}  // namespace aprime::os
