#pragma once

#include "kernels/workload.hpp"

namespace aprime::kernels {

extern const Workload bfs;

}  // namespace aprime::kernels
