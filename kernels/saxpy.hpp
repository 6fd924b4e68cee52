#pragma once

#include "kernels/workload.hpp"

namespace aprime::kernels {

extern const Workload saxpy;

}  // namespace aprime::kernels
