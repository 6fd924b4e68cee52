#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

// What device threads and the host agree on while a kernel takes faults on a software-paged device: the page
// table, the ring of faults (device to host) and the ring of commands (host to device). Plain data, the same
// for CUDA and for the emulated device.
//
// Who writes what. The page table and everything else in device memory: device threads only. Faults, `done`
// of a command and `Failure`: device threads, in memory that the host can read. Commands but for `done`,
// `faults_taken`, `stop` and `pager_leave`: the host. So nobody does a read-modify-write on a word that the
// other side writes, which no bus promises to be atomic.

namespace aprime::detail {

/// The entry of one granule in the page table.
///
///     63      37 36        27  26   25  24  23 22 21 20     0
///     [ frame  ] [generation] [all][rev][pw][pr][ W][ R] [ pins ]
///
/// - R, W: device threads may load, store. W implies R
/// - pr, pw: somebody has asked the host for the right, or is about to; others wait without asking again
/// - rev: the right is being taken. No new pin counts; whoever removes the last pin completes it, so that the
///   one who takes it never has to wait. all: nothing stays; else R stays. So an entry with neither rev nor R
///   is used by nobody, and one with neither rev nor W stored to by nobody
/// - pins: device threads that rely on the entry as it is. Seven for each thread that a GPU has
/// - generation: of the copy; grows by one when it is taken. For those who load without a pin
struct PageEntry {
  static constexpr std::uint64_t kPin = 1;
  static constexpr std::uint64_t kPins = (std::uint64_t{1} << 21) - 1;
  static constexpr std::uint64_t kRead = std::uint64_t{1} << 21;
  static constexpr std::uint64_t kWrite = std::uint64_t{1} << 22;
  static constexpr std::uint64_t kReadWrite = kRead | kWrite;
  static constexpr std::uint64_t kPendingRead = std::uint64_t{1} << 23;
  static constexpr std::uint64_t kPendingWrite = std::uint64_t{1} << 24;
  static constexpr std::uint64_t kRevoking = std::uint64_t{1} << 25;
  static constexpr std::uint64_t kRevokingAll = std::uint64_t{1} << 26;
  static constexpr std::uint64_t kPending = kPendingRead | kPendingWrite;
  static constexpr std::uint64_t kGeneration = std::uint64_t{1} << 27;
  static constexpr unsigned kFrameShift = 37;
  static constexpr std::uint64_t kGenerations = (std::uint64_t{1} << kFrameShift) - kGeneration;
  static constexpr std::uint64_t kFramesMax = std::uint64_t{1} << (64 - kFrameShift);
};

/// What the host asks of device threads. Executed in the order in which they were posted, as far as beginning
/// goes; several may be under way at once.
enum class PagingOp : std::uint32_t {
  // Copies.
  copy_in,   ///< staging memory to frame
  copy_out,  ///< frame to staging memory
  zero,      ///< of a frame
  fill,      ///< copy_in, then set
  // The others.
  set,      ///< entry := frame and rights; answers those who wait for them
  protect,  ///< takes the write right. While device threads can still use it, the answer is `pinned`: to be
            ///< posted again
  revoke,   ///< takes everything. The same
  close,    ///< takes every right of a whole table: the kernel is to end
  sweep,    ///< removes every pin of a whole table: the threads that had them are gone
};

/// A slot of the command ring. `ready` is written last by the host, `done` last by the device.
struct alignas(64) PagingCommand {
  std::uint64_t ready = 0;  ///< number of the command plus one
  std::uint64_t done = 0;   ///< twice that number once it was executed; plus one: pinned
  PagingOp op = PagingOp::set;
  std::uint32_t bytes = 0;         ///< of a copy, a multiple of kCopyWordBytes
  std::uint64_t* entry = nullptr;  ///< fill, set, protect, revoke: the entry; else the table's first
  std::uint64_t value = 0;         ///< fill, set: frame and rights; close, sweep: number of entries
  std::uint64_t frame_at = 0;      ///< copies: bytes from the start of frame memory
  std::uint64_t staging_at = 0;    ///< copies: bytes from the start of staging memory
};
static_assert(sizeof(PagingCommand) == 64 && std::is_trivially_copyable_v<PagingCommand>);

/// A slot of the fault ring. `ready` is written last.
struct alignas(32) PagingFault {
  std::uint64_t ready;  ///< number of the fault plus one
  std::uint64_t granule;
  std::uint32_t region;
  std::uint32_t write;
  std::uint64_t session;
};
static_assert(sizeof(PagingFault) == 32 && std::is_trivial_v<PagingFault>);

/// An access that no service could help: beyond the range that the launch was given. The first of a session.
struct PagingFailure {
  std::uint64_t session;  ///< written last
  std::uint64_t offset;
  std::uint32_t region;
  std::uint32_t write;
};

inline constexpr std::uint64_t kPagingCommands = 1024;
inline constexpr std::uint64_t kPagingFaults = std::uint64_t{1} << 19;
/// With so many that the host has not read, device threads wait. All that find less at the same moment may go
/// on, so that the rest has room for one of each thread that a GPU keeps resident (192 multiprocessors of
/// 2048).
inline constexpr std::uint64_t kPagingFaultsMost = kPagingFaults / 4;

inline constexpr std::uint64_t kPollingCommands = std::uint64_t{1} << 63;

/// A copy that is under way. In device memory, one for each slot of the command ring.
struct CopyJob {
  std::uint64_t* entry;  ///< not null: set to `value` when all is there
  std::uint64_t value;
  std::uint64_t command;  ///< its number
  std::uint32_t left;     ///< pieces that are not copied yet
};

/// A piece of a job, on the list of those that are to be copied.
struct alignas(32) CopyPiece {
  std::byte* to;
  const std::byte* from;  ///< null: zeros
  CopyJob* job;
  std::uint32_t bytes;
  std::uint32_t goes_home;  ///< not 0: `to` is the host's memory
};

/// Copies are of words of this size, and their places multiples of it.
inline constexpr std::uint64_t kCopyWordBytes = 16;
/// What one warp copies at once.
inline constexpr std::uint64_t kPieceBytes = 8 << 10;
/// What one command may copy.
inline constexpr std::uint64_t kCommandBytesMax = 64 << 10;
/// More than all commands that can be under way have.
inline constexpr std::uint64_t kPagingPieces = kPagingCommands * (kCommandBytesMax / kPieceBytes);

/// Where everything is, as device threads see it. One for each device, in its memory; constant.
struct PagingPort {
  // Memory that both sides reach.
  PagingCommand* commands;
  PagingFault* faults;
  std::byte* staging;
  std::uint64_t* faults_taken;  ///< how many faults the host has read
  std::uint64_t* stop;          ///< not 0: threads that fault end
  std::uint64_t* pager_leave;   ///< not 0: the pager ends when there is nothing to do
  std::uint64_t* session;       ///< grows by one with each kernel
  PagingFailure* failure;
  // Device memory.
  std::byte* frames;            ///< as the pager reaches them
  std::uint64_t* next_command;  ///< one less than its number; with kPollingCommands while a warp looks for it
  std::uint64_t* next_fault;
  std::uint64_t* faults_known;  ///< what `faults_taken` was at least
  std::uint64_t* failed;        ///< last session that somebody has written `failure` for
  std::uint64_t* waiting;       ///< threads that wait for a fault; their warps, where they wait together
  std::uint64_t* pagers;        ///< 1 while the first block of PagerKernel runs
  std::uint64_t* copiers;       ///< how many of its others run
  CopyJob* jobs;
  CopyPiece* pieces;
  std::uint64_t* pieces_listed;    ///< how many ever were
  std::uint64_t* pieces_promised;  ///< how many some block will copy, or has; also of those to come
};

/// A file's A′ as a kernel sees it.
struct PagedWindow {
  /// Hardware-paged: the device address of byte 0 of the file, and the rest is null. Else null.
  std::byte* base = nullptr;
  std::uint64_t* entries = nullptr;
  /// Frame 0, as kernels reach it that have pinned it.
  std::byte* frames = nullptr;
  /// The same without a pin: the rights that a kernel has are no protection here.
  const std::byte* unpinned_frames = nullptr;
  const PagingPort* port = nullptr;
  std::uint32_t region = 0;
  std::uint8_t log2_granule = 0;
  std::uint8_t log2_frame = 0;
};

}  // namespace aprime::detail
