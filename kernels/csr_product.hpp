#pragma once

#include "aprime/mapping.hpp"
#include "kernels/csr_file.hpp"
#include "kernels/session.hpp"

namespace aprime::kernels {

/// y = A x for vectors of float32 values that fill their mappings, whatever is larger than the device memory:
/// non-zeros and rows are streamed once for each part of x that a lease holds. Reports the bytes of columns
/// and values as progress. \pre `matrix.check_arrays` \throws Error, InputError, Interrupted
void multiply(Session& session, const CsrFile& matrix, const Mapping& x, const Mapping& y);

/// What one `multiply` reports as progress.
ByteCount product_bytes(const Session& session, const CsrFile& matrix);

}  // namespace aprime::kernels
