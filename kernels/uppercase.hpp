#pragma once

#include "kernels/workload.hpp"

namespace aprime::kernels {

extern const Workload uppercase;

}  // namespace aprime::kernels
