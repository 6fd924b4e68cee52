#pragma once

#include "kernels/workload.hpp"

namespace aprime::kernels {

extern const Workload reduce;

}  // namespace aprime::kernels
