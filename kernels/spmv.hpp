#pragma once

#include "kernels/workload.hpp"

namespace aprime::kernels {

extern const Workload spmv;

}  // namespace aprime::kernels
