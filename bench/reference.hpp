#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "aprime/grid.hpp"
#include "aprime/runtime.hpp"
#include "aprime/units.hpp"
#include "bench/device_kernels.hpp"

namespace aprime::bench {

/// What the figures of a software-paged device are compared with: memory of that device that aprime knows
/// nothing of, and copies to and from it. Each call gives the seconds that it took, when all is done.
/// \throws std::runtime_error
class Reference {
 public:
  virtual ~Reference() = default;
  /// The whole range, from the memory that the device copies from fastest.
  virtual double copy_in() = 0;
  virtual double copy_out() = 0;
  virtual double run(const Grid& grid, const RawStream& kernel) = 0;
  virtual double run(const Grid& grid, const RawLoadEach<std::uint32_t>& kernel) = 0;
  virtual double run(const Grid& grid, const RawLoadEach<Quad>& kernel) = 0;
};

/// Of `size` bytes; kernels run on the first device of the runtime, an emulated one, which must live longer.
std::unique_ptr<Reference> emulated_reference(ByteCount size, Runtime& runtime);

// The rest is there where the benchmarks are built with CUDA.

/// Of `size` bytes; plain CUDA.
std::unique_ptr<Reference> cuda_reference(ByteCount size);

/// \throws std::runtime_error if nvcc gave the kernel PinnedStream so many registers that the pager finds no
/// room beside a grid of it: then its figures are of threads that serve their own faults.
void require_room_for_pager();

/// How a program without aprime gets a file's bytes to a kernel.
enum class FilePath : std::uint8_t {
  read_and_copy,     ///< read(2), cudaMalloc, cudaMemcpy of pageable memory
  fread_managed,     ///< fread into managed memory
  mmap_and_copy,     ///< mmap, cudaMalloc, cudaMemcpy from the mapping
  mapping_directly,  ///< mmap, and the kernel uses the mapping
};
/// Whether the GPU can use any memory of the process, a file's mapping included (HMM, or a coherent link).
bool can_use_mappings();

using Bins = std::array<unsigned long long, 256>;
/// Counts the bytes of a file on the GPU, from open to the counts on the CPU. Gives the seconds.
double count_bytes(FilePath how, const std::string& path, Bins& bins);

}  // namespace aprime::bench
