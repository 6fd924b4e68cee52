#include "kernels/cuda/check.hpp"

#include <array>
#include <cstdio>
#include <cstring>

#include "host/sync/mutex.hpp"

namespace aprime::cuda {
namespace {

struct FailureText {
  const char* call = nullptr;
  cudaError_t error = cudaSuccess;
  std::array<char, 200> text{};
};

/// Texts that were needed so far. Never freed: a Status keeps a pointer to one.
class FailureTexts {
 public:
  const char* get(const char* call, cudaError_t error) noexcept {
    const sync::Lock lock(mutex_);
    for (FailureText& t : texts_) {
      if (t.call == nullptr) {
        t.call = call;
        t.error = error;
        std::snprintf(t.text.data(), t.text.size(), "%s: %s (%s)", call, cudaGetErrorString(error),
                      cudaGetErrorName(error));
      }
      if (t.error == error && std::strcmp(t.call, call) == 0) return t.text.data();
    }
    return "a CUDA call failed, as others did before";
  }

 private:
  sync::Mutex mutex_{sync::LockRank::frames};
  std::array<FailureText, 64> texts_ APRIME_GUARDED_BY(mutex_);
};

}  // namespace

const char* failure_text(const char* call, cudaError_t error) noexcept {
  static FailureTexts texts;
  return texts.get(call, error);
}

void throw_if_failed(cudaError_t error, const char* call) {
  if (error == cudaSuccess) return;
  const Status status = status_of(error, call);
  const bool out_of_memory = error == cudaErrorMemoryAllocation;
  throw Error(out_of_memory ? Errc::device_memory : Errc::device_failed, status.reason);
}

}  // namespace aprime::cuda
