#pragma once

#include "kernels/workload.hpp"

namespace aprime::kernels {

extern const Workload grep;

}  // namespace aprime::kernels
