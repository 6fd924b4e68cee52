// Does not compile, and the compiler has to say why.
#include "aprime/runtime.hpp"

struct Count {
  void operator()(aprime::LeasedSpan<int>) { ++launched; }
  int launched = 0;
};

void launch(aprime::Runtime& runtime, const aprime::Mapping& m) {
  runtime.launch(aprime::Grid{{1}, {1}}, Count{}, aprime::read_write(m));
}
