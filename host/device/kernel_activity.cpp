#include "host/device/kernel_activity.hpp"

#include <algorithm>
#include <mutex>

namespace aprime::device {

void KernelActivity::begin() {
  const sync::Lock lock(beginning_);
  {
    const std::lock_guard alone(gate_);
    running_.fetch_add(1, std::memory_order_relaxed);
  }
  // Every time: the kernel before this one may have been refused for what is still to happen.
  for (BeforeKernels* asked : asked_) {
    const Status status = asked->before_kernels();
    if (status.is_ok()) continue;
    running_.fetch_sub(1, std::memory_order_release);
    throw Error(status.code, "no kernel can begin: the kernel of the machine does not take rights away", {},
                status.system_error);
  }
}

KernelActivity::Registration::Registration(KernelActivity& activity, BeforeKernels& asked)
    : activity_(activity), asked_(asked) {
  const sync::Lock lock(activity_.beginning_);
  activity_.asked_.push_back(&asked_);
}

KernelActivity::Registration::~Registration() {
  const sync::Lock lock(activity_.beginning_);
  std::erase(activity_.asked_, &asked_);
}

}  // namespace aprime::device
