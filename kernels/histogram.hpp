#pragma once

#include "kernels/workload.hpp"

namespace aprime::kernels {

extern const Workload histogram;

}  // namespace aprime::kernels
