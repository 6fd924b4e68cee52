#include "aprime/version.hpp"

namespace aprime {

const char* library_version() noexcept { return APRIME_VERSION; }

}  // namespace aprime
