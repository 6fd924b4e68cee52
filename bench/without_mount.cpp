#include "bench/figure.hpp"

namespace aprime::bench {

// This build of the library cannot mount: there is nothing to measure.
void add_mount(Figures&) {}

}  // namespace aprime::bench
