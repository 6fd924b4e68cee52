#include "host/device/kernel_activity.hpp"

#include <mutex>

namespace aprime::device {

void KernelActivity::begin() {
  const std::lock_guard alone(gate_);
  // Nothing was put off since the kernels that run began.
  if (running_.load(std::memory_order_relaxed) == 0) {
    for (BeforeKernels* asked : asked_) {
      const Status status = asked->before_kernels();
      if (!status.is_ok())
        throw Error(status.code, "no kernel can begin: the system does not take rights away from the device",
                    {}, status.system_error);
    }
  }
  running_.fetch_add(1, std::memory_order_relaxed);
}

KernelActivity::Registration::Registration(KernelActivity& activity, BeforeKernels& asked)
    : activity_(activity), asked_(asked) {
  const std::lock_guard alone(activity_.gate_);
  activity_.asked_.push_back(&asked_);
}

KernelActivity::Registration::~Registration() {
  const std::lock_guard alone(activity_.gate_);
  std::erase(activity_.asked_, &asked_);
}

}  // namespace aprime::device
