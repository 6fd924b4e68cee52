#pragma once

#include "kernels/workload.hpp"

namespace aprime::kernels {

extern const Workload cg;

}  // namespace aprime::kernels
