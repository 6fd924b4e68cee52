#pragma once

#include "kernels/workload.hpp"

namespace aprime::kernels {

extern const Workload blackscholes;

}  // namespace aprime::kernels
