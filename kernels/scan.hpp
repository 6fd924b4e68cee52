#pragma once

#include "kernels/workload.hpp"

namespace aprime::kernels {

extern const Workload scan;

}  // namespace aprime::kernels
