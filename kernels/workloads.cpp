#include "kernels/atomics.hpp"
#include "kernels/bfs.hpp"
#include "kernels/blackscholes.hpp"
#include "kernels/cg.hpp"
#include "kernels/grep.hpp"
#include "kernels/histogram.hpp"
#include "kernels/matmul.hpp"
#include "kernels/reduce.hpp"
#include "kernels/saxpy.hpp"
#include "kernels/scan.hpp"
#include "kernels/sort.hpp"
#include "kernels/spmv.hpp"
#include "kernels/transpose.hpp"
#include "kernels/uppercase.hpp"
#include "kernels/workload.hpp"

namespace aprime::kernels {

std::span<const Workload* const> all_workloads() {
  static constexpr const Workload* kAll[] = {
      &histogram, &grep,   &reduce,       &saxpy, &transpose, &sort, &uppercase,
      &scan,      &matmul, &blackscholes, &spmv,  &bfs,       &cg,   &atomics,
  };
  return kAll;
}

const Workload* find_workload(const std::string& name) {
  for (const Workload* workload : all_workloads()) {
    if (workload->name == name) return workload;
  }
  return nullptr;
}

}  // namespace aprime::kernels
