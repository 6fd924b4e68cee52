#pragma once

#include "tests/contract/demand_kernels.hpp"
#include "tests/contract/kernels.hpp"
#include "tests/contract/owner_kernels.hpp"

// Which kernels and tasks the contract suite launches on a CUDA device, with the arguments that it launches
// them with: one list for nvcc, for the test that they are in the program, and for the stand-in for the CUDA
// runtime, which refuses what is not in it, as a GPU's device does. To be used in this namespace.

namespace aprime::contract {

using Read = LeasedBytes<Right::read>;
using ReadWrite = LeasedBytes<Right::read_write>;
using Write = LeasedBytes<Right::write>;
using DemandRead = DemandBytes<Right::read>;
using DemandReadWrite = DemandBytes<Right::read_write>;

}  // namespace aprime::contract

#define APRIME_CONTRACT_KERNELS(KERNEL)                                                 \
  KERNEL(AddGranules, DemandRead, std::size_t, ReadWrite)                               \
  KERNEL(AtomicIncrement, ReadWrite, std::size_t)                                       \
  KERNEL(AtomicOnReadLease, Read)                                                       \
  KERNEL(ChangeEach64, DemandReadWrite, DemandReadWrite)                                \
  KERNEL(ChangeScattered, DemandReadWrite, std::size_t, unsigned)                       \
  KERNEL(CopyBytes, Read, ReadWrite)                                                    \
  KERNEL(CopyBytes, Read, Write)                                                        \
  KERNEL(CopyElements, DemandRead, DemandReadWrite, std::size_t)                        \
  KERNEL(CountInto, DemandReadWrite, unsigned)                                          \
  KERNEL(CountOthers, Read, std::size_t, Byte, Write)                                   \
  KERNEL(IncrementBoth, ReadWrite, ReadWrite)                                           \
  KERNEL(IncrementBoth, Write, ReadWrite)                                               \
  KERNEL(IncrementBothLanes, ReadWrite, ReadWrite, unsigned, std::size_t)               \
  KERNEL(IncrementBytes, ReadWrite)                                                     \
  KERNEL(IncrementElements, DemandReadWrite)                                            \
  KERNEL(IncrementLane, ReadWrite, unsigned, std::size_t)                               \
  KERNEL(IncrementPinned, DemandReadWrite, std::size_t)                                 \
  KERNEL(LoadAt, Read, std::ptrdiff_t, ReadWrite)                                       \
  KERNEL(LoadFrom, DemandReadWrite, std::size_t, ReadWrite)                             \
  KERNEL(NoteArguments, const char*, Words, Labelled, ReadWrite)                        \
  KERNEL(PinWhileOthersFault, DemandReadWrite, DemandReadWrite, std::size_t, ReadWrite) \
  KERNEL(ReverseByIterator, DemandReadWrite)                                            \
  KERNEL(StoreAt, ReadWrite, std::ptrdiff_t, Byte)                                      \
  KERNEL(StoreBoth, Write, Write, Byte)                                                 \
  KERNEL(StoreEverywhere, ReadWrite, Byte)                                              \
  KERNEL(StoreEverywhere, Write, Byte)                                                  \
  KERNEL(StoreInto, DemandReadWrite, std::size_t, unsigned)                             \
  KERNEL(StoreStrided, ReadWrite, std::size_t, Byte)                                    \
  KERNEL(StoreStrided, Write, std::size_t, Byte)                                        \
  KERNEL(StoreThroughReadLease, Read, std::size_t, Byte)                                \
  KERNEL(SumByIterator, DemandReadWrite)                                                \
  KERNEL(VisitLeased, ReadWrite, ReadWrite)                                             \
  KERNEL(VisitOnDemand, DemandReadWrite, ReadWrite)                                     \
  KERNEL(WaitForHost, DemandReadWrite, unsigned, unsigned)                              \
  KERNEL(WatchNumbers, DemandRead, std::size_t, std::uint64_t, ReadWrite)

#define APRIME_CONTRACT_TASKS(TASK) \
  TASK(DoubleBytes, ReadWrite)      \
  TASK(ReverseBytes, ReadWrite)     \
  TASK(ThrowFromTask, ReadWrite)    \
  TASK(RequireNonZero, Read)        \
  TASK(TellAddress, Read)           \
  TASK(TellSum, Words)              \
  TASK(ThrowFromTask)
