#pragma once

#include "kernels/workload.hpp"

namespace aprime::kernels {

extern const Workload sort;

}  // namespace aprime::kernels
