// The workloads' kernels for the GPU: each with the arguments that it is launched with.

#include "aprime/cuda.hpp"
#include "kernels/atomics_kernel.hpp"
#include "kernels/bfs_kernel.hpp"
#include "kernels/blackscholes_kernel.hpp"
#include "kernels/csr_kernel.hpp"
#include "kernels/grep_kernel.hpp"
#include "kernels/matmul_kernel.hpp"
#include "kernels/rotate_kernel.hpp"
#include "kernels/saxpy_kernel.hpp"
#include "kernels/scan_kernel.hpp"
#include "kernels/transpose_kernel.hpp"
#include "kernels/uppercase_kernel.hpp"
#include "kernels/vector_kernel.hpp"

namespace aprime::kernels {

using Read = LeasedBytes<Right::read>;
using ReadWrite = LeasedBytes<Right::read_write>;
using Write = LeasedBytes<Right::write>;
using DemandRead = DemandBytes<Right::read>;
using DemandReadWrite = DemandBytes<Right::read_write>;

APRIME_CUDA_KERNEL(AtomicsKernel, DemandReadWrite)
APRIME_CUDA_KERNEL(BfsKernel, DemandRead, DemandRead, DemandRead, DemandReadWrite, DemandReadWrite, ReadWrite)
APRIME_CUDA_KERNEL(BlackScholesKernel, ReadWrite)
APRIME_CUDA_KERNEL(CombineKernel, ReadWrite, Read)
APRIME_CUDA_KERNEL(CsrColumnsKernel, Read, ReadWrite)
APRIME_CUDA_KERNEL(CsrOffsetsKernel, Read, ReadWrite)
APRIME_CUDA_KERNEL(DotKernel, Read, Read, ReadWrite)
APRIME_CUDA_KERNEL(FillKernel, Write)
APRIME_CUDA_KERNEL(GrepKernel, Read, ReadWrite)
APRIME_CUDA_KERNEL(MatmulKernel, Read, Read, ReadWrite)
APRIME_CUDA_KERNEL(MatmulKernel, Read, Read, Write)
APRIME_CUDA_KERNEL(ReverseKernel, ReadWrite)
APRIME_CUDA_KERNEL(ReverseEndsKernel, ReadWrite, ReadWrite)
APRIME_CUDA_KERNEL(SaxpyKernel, ReadWrite, Read)
APRIME_CUDA_KERNEL(ScanSumsKernel, ReadWrite)
APRIME_CUDA_KERNEL(SpmvKernel, Read, Read, Read, Read, ReadWrite)
APRIME_CUDA_KERNEL(UppercaseKernel, ReadWrite)
APRIME_CUDA_KERNEL(TransposeKernel, Read, Write)
APRIME_CUDA_KERNEL(InterleaveKernel, Read, Write)
APRIME_CUDA_KERNEL(CopyKernel, Read, Write)
APRIME_CUDA_KERNEL(SwapPanelsKernel, ReadWrite, ReadWrite)
APRIME_CUDA_KERNEL(SwapWithinKernel, ReadWrite)

}  // namespace aprime::kernels
