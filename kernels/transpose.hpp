#pragma once

#include "kernels/workload.hpp"

namespace aprime::kernels {

extern const Workload transpose;

}  // namespace aprime::kernels
