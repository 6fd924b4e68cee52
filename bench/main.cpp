#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <cstdio>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "bench/figure.hpp"

// usage: aprime_bench [--table=FILE] [--reasons=FILE] [Google Benchmark's options]
// Every benchmark is one figure, every iteration one round: figure and floor, one after the other.

namespace aprime::bench {
namespace {

void run_figure(benchmark::State& state, const Figures& figures, std::size_t index,
                std::vector<Result>& results) {
  const auto next = [&](const Sample* last) {
    if (last != nullptr) state.SetIterationTime(last->measured);
    return state.KeepRunning();
  };
  const Result result = measure(figures, index, next);
  if (!result.error.empty()) state.SkipWithError(result.error.c_str());
  state.counters["floor"] = result.median.floor;
  state.counters["measured"] = result.median.measured;
  state.counters["ratio"] = result.ratio;
  state.counters["met"] = is_met(figures[index], result) ? 1 : 0;
  results.push_back(result);
}

/// Takes "--name=value" out of the arguments.
std::string take_option(int& argc, char** argv, std::string_view name) {
  std::string value;
  int kept = 1;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument.starts_with(name) && argument.substr(name.size()).starts_with('='))
      value = argument.substr(name.size() + 1);
    else
      argv[kept++] = argv[i];
  }
  argc = kept;
  return value;
}

std::string text_of(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

int run(int argc, char** argv) {
  const std::string table_path = take_option(argc, argv, "--table");
  const std::string reasons = text_of(take_option(argc, argv, "--reasons"));
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;

  Figures figures;
  add_transfers(figures);
  add_streaming(figures);
  add_faults(figures);
  add_resident(figures);
  add_sync(figures);
  add_sizes(figures);
  add_host_access(figures);
  add_strict(figures);
#ifdef APRIME_BENCH_CUDA
  add_cuda(figures);
#endif
  add_mount(figures);

  std::vector<Result> results;
  const auto table = [&] { return render(figures, results, reasons); };
  for (std::size_t i = 0; i < figures.size(); ++i) {
    const auto run_one = [&, i](benchmark::State& state) {
      run_figure(state, figures, i, results);
      // After each, so that one that does not end takes no other with it.
      if (!table_path.empty()) std::ofstream(table_path) << table();
    };
    benchmark::RegisterBenchmark(figures[i].key.c_str(), run_one)
        ->Iterations(figures[i].rounds)
        ->UseManualTime()
        ->Unit(benchmark::kMicrosecond);
  }
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();

  fmt::print("\n{}", table());
  return 0;
}

}  // namespace
}  // namespace aprime::bench

int main(int argc, char** argv) { return aprime::bench::run(argc, argv); }
