#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <functional>
#include <string>

// A stand-in for the CUDA runtime: the calls that the CUDA device makes, over plain memory and threads. It is
// as asynchronous as the real one (each stream has a thread; a copy has happened when an event after it has),
// and stricter about arguments: a copy that is called asynchronous must be between GPU memory and page-locked
// memory, within one allocation of each. What may wait for all kernels that run does so:
// cudaFree and `load`.
//
// Fault model: a planned call fails once, without doing anything; after a kernel has failed every call fails
// (as with an illegal address), until `repair`.

namespace aprime::fake_cuda {

/// What the machine is like. Call it while nobody uses the runtime.
struct Machine {
  int gpus = 1;
  /// 0 = no driver.
  int driver = CUDART_VERSION;
  /// Of each GPU: 75 is 7.5.
  int compute_capability = 90;
  std::size_t memory = std::size_t{1} << 30;
  bool concurrent_managed_access = true;
  /// Another kernel fills the GPU until it ends.
  bool has_room_for_pager = true;
};
void set_machine(const Machine& machine);
Machine machine();

/// Lets the `nth` call of that name from now on fail (0 = the next).
void fail_call(const std::string& name, unsigned nth, cudaError_t error);
/// Whether the planned failure has happened.
bool has_failed();
/// Forgets a planned failure, a failed kernel, and to lose copies.
void repair();

/// From now on one in `one_in` copies of this kind is not made, although nothing else tells so; zero: every
/// copy is made. Only those of a page or more: no entries of page tables, which are not a file's bytes.
void lose_copies(cudaMemcpyKind kind, unsigned one_in);

/// From now on no copy is made before more than `size` bytes are waiting to be copied; all are made if that
/// does not happen within a second. Zero: they are made at once.
void gather_copies(std::size_t size);
/// Whether so many were waiting.
bool has_gathered();

/// How often a call was made since the process started.
std::size_t calls(const std::string& name);
/// Streams, events and allocations that were made and not given back.
std::size_t live_resources();

inline constexpr int kGreatestPriority = -5;
int priority_of(cudaStream_t stream);

/// Brings a kernel to the GPU, unless it is there.
void load(const std::string& kernel);
/// Queues work on a stream, as a kernel launch does. If it returns false the GPU has failed.
void queue(cudaStream_t stream, std::function<bool()> work);

}  // namespace aprime::fake_cuda
