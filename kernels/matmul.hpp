#pragma once

#include "kernels/workload.hpp"

namespace aprime::kernels {

extern const Workload matmul;

}  // namespace aprime::kernels
