#pragma once

#include "kernels/workload.hpp"

namespace aprime::kernels {

extern const Workload atomics;

}  // namespace aprime::kernels
